package resolver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// selector is a label selector in canonical form: one constraint a key, sorted by key. Selectors that mean
// the same, however they are written, have equal keys (see key).
type selector struct {
	constraints []constraint
	// nothing is set if the constraints of a key contradict each other; then constraints is empty.
	nothing bool
}

// constraint is the part of a selector about one label.
type constraint struct {
	label string
	// absent allows the label to be missing.
	absent bool
	// values are the allowed values or, if except is set, the values that are not allowed. Sorted, each once.
	values []string
	except bool
}

// parseSelector returns the canonical form of s; nil selects everything, as an empty selector does.
func parseSelector(s *metav1.LabelSelector) (selector, error) {
	if s == nil {
		return selector{}, nil
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return selector{}, err
	}
	byLabel := map[string]constraint{}
	require := func(c constraint) {
		if have, ok := byLabel[c.label]; ok {
			c = have.and(c)
		}
		byLabel[c.label] = c
	}
	for label, value := range s.MatchLabels {
		require(constraint{label: label, values: []string{value}})
	}
	for _, e := range s.MatchExpressions {
		values := slices.Compact(slices.Sorted(slices.Values(e.Values)))
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			require(constraint{label: e.Key, values: values})
		case metav1.LabelSelectorOpNotIn: // a label that is missing is not in the list
			require(constraint{label: e.Key, values: values, except: true, absent: true})
		case metav1.LabelSelectorOpExists:
			require(constraint{label: e.Key, except: true})
		case metav1.LabelSelectorOpDoesNotExist:
			require(constraint{label: e.Key, absent: true})
		default:
			return selector{}, fmt.Errorf("unknown operator %q", e.Operator)
		}
	}
	var out selector
	for _, label := range slices.Sorted(maps.Keys(byLabel)) {
		c := byLabel[label]
		if !c.absent && !c.except && len(c.values) == 0 {
			return selector{nothing: true}, nil
		}
		out.constraints = append(out.constraints, c)
	}
	return out, nil
}

// and returns the constraint that is met if both are met.
func (c constraint) and(d constraint) constraint {
	out := constraint{label: c.label, absent: c.absent && d.absent}
	switch {
	case c.except && d.except:
		out.except = true
		out.values = slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.values, d.values))))
	case c.except:
		return d.and(c)
	default:
		for _, v := range c.values {
			if d.allows(v) {
				out.values = append(out.values, v)
			}
		}
	}
	return out
}

func (c constraint) allows(value string) bool {
	_, found := slices.BinarySearch(c.values, value)
	return found != c.except
}

func (s selector) matches(set map[string]string) bool {
	if s.nothing {
		return false
	}
	for _, c := range s.constraints {
		value, ok := set[c.label]
		if !ok && !c.absent || ok && !c.allows(value) {
			return false
		}
	}
	return true
}

// key is equal for two selectors if and only if they select the same.
func (s selector) key() string {
	if s.nothing {
		return "nothing"
	}
	var b strings.Builder
	for _, c := range s.constraints {
		fmt.Fprintf(&b, "%s %t %t", strconv.Quote(c.label), c.absent, c.except)
		for _, v := range c.values {
			b.WriteByte(' ')
			b.WriteString(strconv.Quote(v))
		}
		b.WriteByte(';')
	}
	return b.String()
}

// labelSelector returns the selector in the form of the API.
func (s selector) labelSelector() *metav1.LabelSelector {
	out := &metav1.LabelSelector{}
	require := func(label string, op metav1.LabelSelectorOperator, values ...string) {
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: label, Operator: op, Values: values})
	}
	if s.nothing {
		require("nothing", metav1.LabelSelectorOpExists)
		require("nothing", metav1.LabelSelectorOpDoesNotExist)
	}
	for _, c := range s.constraints {
		switch {
		case !c.except && c.absent && len(c.values) == 0:
			require(c.label, metav1.LabelSelectorOpDoesNotExist)
		case !c.except && len(c.values) == 1:
			out.MatchLabels = labels.Merge(out.MatchLabels, labels.Set{c.label: c.values[0]})
		case !c.except:
			require(c.label, metav1.LabelSelectorOpIn, c.values...)
		default:
			if !c.absent {
				require(c.label, metav1.LabelSelectorOpExists)
			}
			if len(c.values) > 0 {
				require(c.label, metav1.LabelSelectorOpNotIn, c.values...)
			}
		}
	}
	return out
}
