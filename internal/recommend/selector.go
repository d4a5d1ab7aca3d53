package recommend

import (
	"cmp"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/replay"
)

// workload is a workload with the labels of its pods.
type workload struct {
	party replay.Party
	pods  []map[string]string
	unit  *unit
}

// unit is one workload, or several that no labels tell apart. One policy is for one unit.
type unit struct {
	workloads []*workload
	// selector selects the pods of the unit and of no other in the namespace; nil if there is none.
	selector *metav1.LabelSelector
}

func (u *unit) namespace() string { return u.workloads[0].party.Namespace }

// party is the first workload, by which the unit is named.
func (u *unit) party() replay.Party { return u.workloads[0].party }

func (u *unit) parties() (out []replay.Party) {
	for _, w := range u.workloads {
		out = append(out, w.party)
	}
	return out
}

func (u *unit) pods() (out []map[string]string) {
	for _, w := range u.workloads {
		out = append(out, w.pods...)
	}
	return out
}

// unitsOf the workloads of one namespace, with their selectors. Workloads that share all stable labels become one unit.
func unitsOf(workloads []*workload) []*unit {
	var units []*unit
	for _, w := range slices.SortedFunc(slices.Values(workloads), func(a, b *workload) int { return a.party.Compare(b.party) }) {
		units = append(units, &unit{workloads: []*workload{w}})
	}
	for merged := true; merged; {
		merged = false
		for i, u := range units {
			var with int
			if u.selector, with = u.select1(units); with < 0 {
				continue
			}
			// every label of the unit is that of another one, too
			other := units[with]
			first, second := min(i, with), max(i, with)
			u.workloads = append(u.workloads, other.workloads...)
			slices.SortFunc(u.workloads, func(a, b *workload) int { return a.party.Compare(b.party) })
			units[first] = u
			units = slices.Delete(units, second, second+1)
			merged = true
			break
		}
	}
	for _, u := range units {
		for _, w := range u.workloads {
			w.unit = u
		}
	}
	return units
}

// select1 finds a selector of the unit's pods that selects no pod of the others. It returns the index of a unit that cannot be distinguished, or -1.
// Without any stable label there is no selector: such a unit is not merged with all others.
func (u *unit) select1(units []*unit) (*metav1.LabelSelector, int) {
	labels := common(u.pods())
	if len(labels) == 0 {
		return nil, -1
	}
	// the labels that leave the fewest pods of others, the preferred ones first
	chosen := map[string]string{}
	left := selected(units, u, chosen)
	for _, key := range inOrder(labels) {
		with := maps.Clone(chosen)
		with[key] = labels[key]
		if now := selected(units, u, with); len(chosen) == 0 || now < left {
			chosen, left = with, now
		}
		if left == 0 {
			break
		}
	}
	out := &metav1.LabelSelector{MatchLabels: chosen}
	if left == 0 {
		return out, -1
	}
	return u.exclude(out, units)
}

// exclude pods of others that have all labels of the unit, and more.
func (u *unit) exclude(s *metav1.LabelSelector, units []*unit) (*metav1.LabelSelector, int) {
	absent := map[string]bool{}
	for i, other := range units {
		if other == u {
			continue
		}
		for _, p := range other.pods() {
			if !matches(s.MatchLabels, p) || hasAny(p, absent) {
				continue
			}
			key := u.absentKey(p)
			if key == "" {
				return nil, i
			}
			absent[key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(absent)) {
		s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpDoesNotExist})
	}
	return s, -1
}

// absentKey is the key of a stable label of a pod that no pod of the unit has.
func (u *unit) absentKey(pod map[string]string) string {
	for _, key := range inOrder(pod) {
		if isStable(key, pod[key]) && !slices.ContainsFunc(u.pods(), func(p map[string]string) bool { _, ok := p[key]; return ok }) {
			return key
		}
	}
	return ""
}

func hasAny(labels map[string]string, keys map[string]bool) bool {
	for key := range keys {
		if _, ok := labels[key]; ok {
			return true
		}
	}
	return false
}

func matches(selector, labels map[string]string) bool {
	for key, value := range selector {
		if v, ok := labels[key]; !ok || v != value {
			return false
		}
	}
	return true
}

// selected counts the pods of other units that a selector selects.
func selected(units []*unit, u *unit, selector map[string]string) (n int) {
	for _, other := range units {
		if other == u {
			continue
		}
		for _, p := range other.pods() {
			if matches(selector, p) {
				n++
			}
		}
	}
	return n
}

func compareUnits(a, b *unit) int { return cmp.Or(a.party().Compare(b.party())) }
