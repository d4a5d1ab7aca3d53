package resolver

import (
	"math/rand/v2"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func in(key string, values ...string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}
}

func notIn(key string, values ...string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: values}
}

func exists(key string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpExists}
}

func missing(key string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpDoesNotExist}
}

func where(labels map[string]string, expressions ...metav1.LabelSelectorRequirement) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: labels, MatchExpressions: expressions}
}

func mustParse(t *testing.T, s *metav1.LabelSelector) selector {
	t.Helper()
	out, err := parseSelector(s)
	if err != nil {
		t.Fatalf("parse %v: %v", s, err)
	}
	return out
}

func TestSelectorsEqualInMeaningHaveOneKey(t *testing.T) {
	for name, pair := range map[string][2]*metav1.LabelSelector{
		"none and empty":                 {nil, where(nil)},
		"order":                          {where(nil, in("a", "1"), exists("b")), where(nil, exists("b"), in("a", "1"))},
		"order of values":                {where(nil, in("a", "1", "2")), where(nil, in("a", "2", "1"))},
		"duplicates":                     {where(nil, in("a", "1", "1"), in("a", "1")), where(nil, in("a", "1"))},
		"a label and a list of one":      {where(map[string]string{"a": "1"}), where(nil, in("a", "1"))},
		"lists that meet":                {where(nil, in("a", "1", "2"), in("a", "2", "3")), where(nil, in("a", "2"))},
		"a list that another cuts":       {where(nil, in("a", "1", "2"), notIn("a", "2")), where(nil, in("a", "1"))},
		"a presence that goes unsaid":    {where(nil, in("a", "1"), exists("a")), where(nil, in("a", "1"))},
		"absent, and not something":      {where(nil, missing("a"), notIn("a", "1")), where(nil, missing("a"))},
		"two lists of what is not":       {where(nil, notIn("a", "1"), notIn("a", "2")), where(nil, notIn("a", "2", "1"))},
		"different ways to select none":  {where(nil, exists("a"), missing("a")), where(nil, in("b", "1"), in("b", "2"))},
		"none, whatever else is asked":   {where(map[string]string{"c": "1"}, exists("a"), missing("a")), where(nil, in("b", "1"), missing("b"))},
		"present but not, in two orders": {where(nil, exists("a"), notIn("a", "1")), where(nil, notIn("a", "1"), exists("a"))},
	} {
		if a, b := mustParse(t, pair[0]).key(), mustParse(t, pair[1]).key(); a != b {
			t.Errorf("%s: %q and %q", name, a, b)
		}
	}
}

func TestSelectorsOfOtherMeaningHaveOtherKeys(t *testing.T) {
	all := []*metav1.LabelSelector{
		where(nil),
		where(nil, exists("a")), where(nil, missing("a")), where(nil, in("a", "1")), where(nil, notIn("a", "1")),
		where(nil, exists("a"), notIn("a", "1")), where(nil, in("a", "1", "2")), where(nil, in("a", "12")), where(nil, in("a", "")),
		where(nil, notIn("a", "")), where(nil, in("a", "1"), in("b", "2")), where(nil, in("a", "2"), in("b", "1")), where(nil, in("ab", "1")),
		where(nil, exists("a"), missing("a")),
	}
	keys := map[string]int{}
	for i, s := range all {
		key := mustParse(t, s).key()
		if j, ok := keys[key]; ok {
			t.Errorf("%v and %v are one: %q", all[j], s, key)
		}
		keys[key] = i
	}
}

func TestInvalidSelectorsAreErrors(t *testing.T) {
	for name, s := range map[string]*metav1.LabelSelector{
		"unknown operator":       where(nil, metav1.LabelSelectorRequirement{Key: "a", Operator: "Near", Values: []string{"1"}}),
		"In without values":      where(nil, in("a")),
		"NotIn without values":   where(nil, notIn("a")),
		"Exists with values":     where(nil, metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpExists, Values: []string{"1"}}),
		"a key that is no label": where(map[string]string{"a b": "1"}),
		"a value that is none":   where(map[string]string{"a": "1 2"}),
	} {
		if _, err := parseSelector(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The canonical form, the form of the API and Kubernetes' own code must agree on every set of labels, and the
// index must find every selector that matches.
func TestSelectorsAgreeWithKubernetes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		s := randomSelector(rng)
		canonical := mustParse(t, s)
		theirs, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		written, err := metav1.LabelSelectorAsSelector(canonical.labelSelector())
		if err != nil {
			t.Fatal(err)
		}
		x := newIndex[int]()
		x.add(canonical, 1)
		set := randomLabels(rng)
		want := theirs.Matches(labels.Set(set))
		found := 0
		x.candidates(set, func(int) { found++ })
		if got := canonical.matches(set); got != want || written.Matches(labels.Set(set)) != want {
			t.Fatalf("%v on %v: Kubernetes says %t, canonical %t, written %t (%v)", s, set, want, got, written.Matches(labels.Set(set)), written)
		}
		if found > 1 || want && found == 0 {
			t.Fatalf("%v on %v: matches %t, found %d times", s, set, want, found)
		}
		x.remove(canonical, 1)
		if len(x.byValue)+len(x.byKey)+len(x.rest) != 0 {
			t.Fatalf("%v stays in the index", s)
		}
	}
}

func randomLabels(rng *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, k := range []string{"a", "b", "c"} {
		if rng.IntN(3) > 0 {
			out[k] = []string{"1", "2", "3", ""}[rng.IntN(4)]
		}
	}
	return out
}

func randomSelector(rng *rand.Rand) *metav1.LabelSelector {
	out := &metav1.LabelSelector{}
	key := func() string { return []string{"a", "b", "c"}[rng.IntN(3)] }
	values := func() (out []string) {
		for range 1 + rng.IntN(3) {
			out = append(out, []string{"1", "2", "3", ""}[rng.IntN(4)])
		}
		return out
	}
	for range rng.IntN(4) {
		switch rng.IntN(5) {
		case 0:
			out.MatchLabels = labels.Merge(out.MatchLabels, labels.Set{key(): values()[0]})
		case 1:
			out.MatchExpressions = append(out.MatchExpressions, in(key(), values()...))
		case 2:
			out.MatchExpressions = append(out.MatchExpressions, notIn(key(), values()...))
		case 3:
			out.MatchExpressions = append(out.MatchExpressions, exists(key()))
		case 4:
			out.MatchExpressions = append(out.MatchExpressions, missing(key()))
		}
	}
	return out
}
