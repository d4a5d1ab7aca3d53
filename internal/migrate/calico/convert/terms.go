package convert

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// label is a pod's own label or, with ofNamespace, one of its namespace's.
type label struct {
	ofNamespace bool
	key         string
}

// term is the pods whose labels are each in their set. A label that is not in the term may be anything.
type term map[label]values

// pods is a union of terms; an empty one selects no pod.
type pods []term

var (
	noPods   = pods{}
	everyPod = pods{{}}
)

// maxTerms of a set of pods, beyond which it would be unreadable.
const maxTerms = 200

var errTooComplex = errors.New("the selectors come to too many cases")

func (t term) with(l label, v values) term {
	if l.ofNamespace && l.key == nameKey {
		v.absent = false // every namespace has a name
	}
	if known, ok := t[l]; ok {
		v = v.intersect(known)
	}
	out := maps.Clone(t)
	if out == nil {
		out = term{}
	}
	if v.everything() || l.ofNamespace && l.key == nameKey && v.others && len(v.list) == 0 {
		delete(out, l)
		return out
	}
	out[l] = v
	return out
}

func (t term) empty() bool {
	for _, v := range t {
		if v.empty() {
			return true
		}
	}
	return false
}

func (t term) intersect(o term) term {
	for l, v := range o {
		t = t.with(l, v)
	}
	return t
}

// complement is one term for each label.
func (t term) complement() pods {
	out := pods{}
	for l, v := range t {
		if c := (term{}).with(l, v.complement()); !c.empty() {
			out = append(out, c)
		}
	}
	return out
}

func (t term) equal(o term) bool { return maps.EqualFunc(t, o, values.equal) }

// within reports whether every pod of t is one of o.
func (t term) within(o term) bool {
	return t.empty() || !slices.ContainsFunc(o.complement(), func(c term) bool { return !t.intersect(c).empty() })
}

func (p pods) empty() bool { return len(p) == 0 }

func (p pods) intersect(o pods) (pods, error) {
	out := pods{}
	for _, a := range p {
		for _, b := range o {
			if t := a.intersect(b); !t.empty() {
				out = append(out, t)
			}
		}
	}
	return out.simplified()
}

func (p pods) union(o pods) (pods, error) { return slices.Concat(p, o).simplified() }

func (p pods) complement() (pods, error) {
	out := everyPod
	for _, t := range p {
		var err error
		if out, err = out.intersect(t.complement()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p pods) minus(o pods) (pods, error) {
	c, err := o.complement()
	if err != nil {
		return nil, err
	}
	return p.intersect(c)
}

// simplified: without terms that others hold, and with terms that differ in one label put together.
func (p pods) simplified() (pods, error) {
	out := slices.DeleteFunc(slices.Clone(p), term.empty)
	if len(out) > 4*maxTerms {
		return nil, errTooComplex
	}
	for changed := true; changed; {
		changed = false
	pairs:
		for i := range out {
			for j := range out {
				if i == j {
					continue
				}
				if out[j].within(out[i]) {
					out, changed = slices.Delete(out, j, j+1), true
					break pairs
				}
				if merged, ok := out[i].merge(out[j]); ok {
					out[i], out, changed = merged, slices.Delete(out, j, j+1), true
					break pairs
				}
			}
		}
	}
	if len(out) > maxTerms {
		return nil, errTooComplex
	}
	slices.SortFunc(out, func(a, b term) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// merge two terms that differ in one label.
func (t term) merge(o term) (term, bool) {
	if len(t) != len(o) {
		return nil, false
	}
	var differs *label
	for l, v := range t {
		other, ok := o[l]
		switch {
		case !ok:
			return nil, false
		case v.equal(other):
		case differs != nil:
			return nil, false
		default:
			differs = &l
		}
	}
	if differs == nil {
		return t, true
	}
	union := t[*differs].union(o[*differs])
	if _, ok := union.requirements(""); !ok {
		return nil, false
	}
	out := maps.Clone(t)
	delete(out, *differs)
	return out.with(*differs, union), true
}

// String is for ordering, and for people who look for errors here.
func (t term) String() string {
	var parts []string
	for l, v := range t {
		parts = append(parts, fmt.Sprintf("%v %s %v %v %q", l.ofNamespace, l.key, v.absent, v.others, v.list))
	}
	slices.Sort(parts)
	return strings.Join(parts, " && ")
}

// split the term so that each part can be said by one selector for each of pods and namespaces.
func (t term) split() []term {
	for l, v := range t {
		if _, ok := v.requirements(l.key); !ok {
			present := v
			present.absent = false
			return append(t.with(l, values{absent: true}).split(), t.with(l, present).split()...)
		}
	}
	return []term{t}
}

// selector of the term's pods, or of its namespaces; nil where it asks for none of their labels.
func (t term) selector(ofNamespace bool) *metav1.LabelSelector {
	var out *metav1.LabelSelector
	for _, l := range slices.SortedFunc(maps.Keys(t), func(a, b label) int { return strings.Compare(a.key, b.key) }) {
		if l.ofNamespace != ofNamespace {
			continue
		}
		if out == nil {
			out = &metav1.LabelSelector{}
		}
		if v := t[l]; !v.absent && !v.others && len(v.list) == 1 {
			if out.MatchLabels == nil {
				out.MatchLabels = map[string]string{}
			}
			out.MatchLabels[l.key] = v.list[0]
			continue
		}
		r, _ := t[l].requirements(l.key)
		out.MatchExpressions = append(out.MatchExpressions, r...)
	}
	return out
}
