package clusterproof

import (
	"errors"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// label of a pod or a node or, with ofNamespace, of a pod's namespace.
type label struct {
	ofNamespace bool
	key         string
}

// requirement about one label.
type requirement struct {
	label
	labels.Requirement
}

// Selector is a conjunction of requirements about the labels of an object and, of a pod, those of its namespace.
type Selector []requirement

// Select returns the pods, or the nodes, that both selectors select; namespaces is nil where the namespace's labels are not asked for.
func Select(namespaces, own *metav1.LabelSelector) (Selector, error) {
	var out Selector
	for _, part := range []struct {
		ofNamespace bool
		selector    *metav1.LabelSelector
	}{{true, namespaces}, {false, own}} {
		if part.selector == nil {
			continue
		}
		s, err := metav1.LabelSelectorAsSelector(part.selector)
		if err != nil {
			return nil, err
		}
		requirements, _ := s.Requirements()
		for _, r := range requirements {
			out = append(out, requirement{label{part.ofNamespace, r.Key()}, r})
		}
	}
	return out, nil
}

// inNamespace returns the selector, of pods of one namespace.
func (s Selector) inNamespace(name string) (Selector, error) {
	more, err := Select(&metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}, nil)
	return slices.Concat(more, s), err
}

func (s Selector) matches(o *object) bool {
	return !slices.ContainsFunc(s, func(r requirement) bool { return !r.Matches(o.of(r.ofNamespace)) })
}

// object is a pod with its namespace, or a node.
type object struct{ own, namespace labels.Set }

func (o *object) of(namespace bool) labels.Set {
	if namespace {
		return o.namespace
	}
	return o.own
}

func (o *object) with(l label, value string) *object {
	out := &object{maps.Clone(o.own), maps.Clone(o.namespace)}
	out.of(l.ofNamespace)[l.key] = value
	return out
}

// another is a value that no selector names.
const another = "another"

// maxClasses of pods, beyond which a comparison would take too long.
const maxClasses = 5000

var errTooManyClasses = errors.New("the policies' selectors tell too many classes of pods apart to look at each: give fewer policies at once")

// objects returns one object for each set of selectors that an object can match at once. It goes through the labels one by one and keeps
// one object for each set of selectors that are still possible.
func objects(selectors []Selector) ([]*object, error) {
	values := map[label][]string{}
	for _, s := range selectors {
		for _, r := range s {
			values[r.label] = append(values[r.label], r.Values().UnsortedList()...)
		}
	}
	states := []*object{{labels.Set{}, labels.Set{}}}
	done := map[label]bool{}
	for _, l := range slices.SortedFunc(maps.Keys(values), compareLabels) {
		list := values[l]
		slices.Sort(list)
		list = append(slices.Compact(list), another)
		done[l] = true
		isName := l.ofNamespace && l.key == corev1.LabelMetadataName
		seen := map[string]bool{}
		var next []*object
		add := func(o *object) {
			if key := possible(selectors, done, o); !seen[key] {
				seen[key] = true
				next = append(next, o)
			}
		}
		for _, o := range states {
			if !isName { // every namespace has a name
				add(o)
			}
			for _, v := range list {
				add(o.with(l, v))
			}
		}
		if states = next; len(states) > maxClasses {
			return nil, errTooManyClasses
		}
	}
	return states, nil
}

func compareLabels(a, b label) int {
	if a.ofNamespace != b.ofNamespace {
		if a.ofNamespace {
			return -1
		}
		return 1
	}
	return strings.Compare(a.key, b.key)
}

// possible says of each selector whether what it requires of these labels holds.
func possible(selectors []Selector, done map[label]bool, o *object) string {
	out := make([]byte, len(selectors))
	for i, s := range selectors {
		out[i] = '1'
		if slices.ContainsFunc(s, func(r requirement) bool { return done[r.label] && !r.Matches(o.of(r.ofNamespace)) }) {
			out[i] = '0'
		}
	}
	return string(out)
}
