package convert

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/migrate/calico"
)

// podsOf are the pods that a selector of Calico's selects.
func podsOf(s *calico.Selector) (pods, error) {
	switch s.Op {
	case calico.OpAll:
		return everyPod, nil
	case calico.OpGlobal:
		return noPods, nil
	case calico.OpNot:
		p, err := podsOf(s.Of[0])
		if err != nil {
			return nil, err
		}
		return p.complement()
	case calico.OpAnd, calico.OpOr:
		out, combine := everyPod, pods.intersect
		if s.Op == calico.OpOr {
			out, combine = noPods, pods.union
		}
		for _, o := range s.Of {
			p, err := podsOf(o)
			if err == nil {
				out, err = combine(out, p)
			}
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	default:
		return comparison(s)
	}
}

// comparison of one label.
func comparison(s *calico.Selector) (pods, error) {
	var v values
	switch s.Op {
	case calico.OpHas:
		v = values{others: true}
	case calico.OpIn:
		v = oneOf(s.Values...)
	case calico.OpNotIn:
		v = oneOf(s.Values...).complement()
	default:
		return nil, fmt.Errorf("label %s is compared by %q, and selectors of Kubernetes know whole values only", s.Key,
			map[calico.Op]string{calico.OpPrefix: "starts with", calico.OpSuffix: "ends with", calico.OpInfix: "contains"}[s.Op])
	}
	switch {
	case s.Key == "projectcalico.org/orchestrator":
		if v.has("k8s") {
			return everyPod, nil
		}
		return noPods, nil
	case s.Key == "projectcalico.org/serviceaccount" || strings.HasPrefix(s.Key, "pcsa."):
		return nil, fmt.Errorf("%s asks for service accounts, which NetworkPolicies know nothing of", s.Key)
	}
	l := label{key: s.Key}
	if key, ok := strings.CutPrefix(s.Key, "pcns."); ok {
		l = label{true, key}
	}
	if s.Key == "projectcalico.org/namespace" || s.Key == "pcns.projectcalico.org/name" {
		l = label{true, nameKey}
	}
	if err := valid(l.key, v.list); err != nil {
		return nil, err
	}
	if l.ofNamespace && l.key == nameKey {
		v.absent = false
	}
	t := term{}.with(l, v)
	if t.empty() {
		return noPods, nil
	}
	return pods{t}, nil
}

// valid: a label that no pod can have could not be written into a NetworkPolicy.
func valid(key string, list []string) error {
	r := metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpExists}
	if len(list) > 0 {
		r.Operator, r.Values = metav1.LabelSelectorOpIn, list
	}
	if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r}}); err != nil {
		return fmt.Errorf("label %s: %w", key, err)
	}
	return nil
}

// podsOfLabels are the pods that a selector of Kubernetes' selects: by their own labels, or by their namespaces'.
func podsOfLabels(s *metav1.LabelSelector, ofNamespace bool) pods {
	t := term{}
	for k, v := range s.MatchLabels {
		t = t.with(label{ofNamespace, k}, oneOf(v))
	}
	for _, r := range s.MatchExpressions {
		v := oneOf(r.Values...)
		switch r.Operator {
		case metav1.LabelSelectorOpNotIn:
			v = v.complement()
		case metav1.LabelSelectorOpExists:
			v = values{others: true}
		case metav1.LabelSelectorOpDoesNotExist:
			v = values{absent: true}
		}
		t = t.with(label{ofNamespace, r.Key}, v)
	}
	if t.empty() {
		return noPods
	}
	return pods{t}
}

// in are those of the pods that are in a namespace, by their own labels alone. known is false where labels of the namespace are asked
// for that is unknown.
func (p pods) in(name string, namespaceLabels map[string]string) (out pods, known bool) {
	out = pods{}
terms:
	for _, t := range p {
		own := term{}
		for l, v := range t {
			switch {
			case !l.ofNamespace:
				own = own.with(l, v)
			case l.key == nameKey:
				if !v.has(name) {
					continue terms
				}
			case namespaceLabels == nil:
				return nil, false
			default:
				value, ok := namespaceLabels[l.key]
				if ok && !v.has(value) || !ok && !v.absent {
					continue terms
				}
			}
		}
		out = append(out, own)
	}
	out, err := out.simplified()
	return out, err == nil
}

// namespaces that the pods are in, where their terms name them one by one.
func (p pods) namespaces() (names []string, fixed bool) {
	for _, t := range p {
		for l := range t {
			if l.ofNamespace && l.key != nameKey {
				return nil, false
			}
		}
		v, ok := t[label{true, nameKey}]
		if !ok || v.others {
			return nil, false
		}
		names = append(names, v.list...)
	}
	slices.Sort(names)
	return slices.Compact(names), true
}
