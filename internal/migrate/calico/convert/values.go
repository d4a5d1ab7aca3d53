package convert

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nameKey is the label that every namespace has, with its name. A namespace's name is asked for by nothing else here.
const nameKey = corev1.LabelMetadataName

// values is a set of what a label may be: absent, or some strings: those listed or, with others, all but those.
type values struct {
	absent, others bool
	list           []string // sorted
}

func oneOf(list ...string) values {
	list = slices.Clone(list)
	slices.Sort(list)
	return values{list: slices.Compact(list)}
}

func (v values) complement() values { return values{!v.absent, !v.others, v.list} }

func (v values) empty() bool { return !v.absent && !v.others && len(v.list) == 0 }

func (v values) everything() bool { return v.absent && v.others && len(v.list) == 0 }

func (v values) equal(o values) bool {
	return v.absent == o.absent && v.others == o.others && slices.Equal(v.list, o.list)
}

func (v values) has(s string) bool { return slices.Contains(v.list, s) != v.others }

func (v values) intersect(o values) values {
	out := values{absent: v.absent && o.absent, others: v.others && o.others}
	for _, s := range slices.Concat(v.list, o.list) {
		if (v.has(s) && o.has(s)) != out.others {
			out.list = append(out.list, s)
		}
	}
	slices.Sort(out.list)
	out.list = slices.Compact(out.list)
	return out
}

func (v values) union(o values) values {
	return v.complement().intersect(o.complement()).complement()
}

// requirements that together say that a label is in the set. "absent, or one of these" needs two selectors: ok is false.
func (v values) requirements(key string) (out []metav1.LabelSelectorRequirement, ok bool) {
	r := func(op metav1.LabelSelectorOperator, list []string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: list}
	}
	switch {
	case v.everything():
		return nil, true
	case v.absent && v.others:
		return []metav1.LabelSelectorRequirement{r(metav1.LabelSelectorOpNotIn, v.list)}, true
	case v.absent && len(v.list) == 0:
		return []metav1.LabelSelectorRequirement{r(metav1.LabelSelectorOpDoesNotExist, nil)}, true
	case v.absent:
		return nil, false
	case v.others:
		out = []metav1.LabelSelectorRequirement{r(metav1.LabelSelectorOpExists, nil)}
		if len(v.list) > 0 {
			out = append(out, r(metav1.LabelSelectorOpNotIn, v.list))
		}
		return out, true
	}
	return []metav1.LabelSelectorRequirement{r(metav1.LabelSelectorOpIn, v.list)}, true
}
