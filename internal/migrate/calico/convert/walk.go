package convert

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// local is a candidate in one namespace: which of its pods it selects, by their own labels.
type local struct {
	*candidate
	pods pods
}

// grant is what a policy allows to some of the pods that it selects.
type grant struct {
	candidate *candidate
	pods      pods
	flows     []flow
	// passed: what no policy decides, and is allowed at the end of all tiers.
	passed bool
}

// maxClasses of pods that the policies of a namespace tell apart, where it matters which of them a pod is selected by.
const maxClasses = 64

var errTooManyClasses = errors.New("policies that refuse or pass select too many different sets of pods")

// walk asks about one direction in one namespace.
type walk struct {
	space     space
	direction policy.Direction
	// locals are the policies that apply, in the order of evaluation.
	locals []local
}

// class is pods that the same ones of some policies select.
type class struct {
	pods     pods
	selected map[*candidate]bool
}

// split pods by who selects them.
func split(p pods, by []local) ([]class, error) {
	classes := []class{{p, map[*candidate]bool{}}}
	for _, l := range by {
		var next []class
		for _, c := range classes {
			in, err := c.pods.intersect(l.pods)
			if err != nil {
				return nil, err
			}
			out, err := c.pods.minus(l.pods)
			if err != nil {
				return nil, err
			}
			if !in.empty() {
				next = append(next, class{in, with(c.selected, l.candidate)})
			}
			if !out.empty() {
				next = append(next, class{out, c.selected})
			}
		}
		if classes = next; len(classes) > maxClasses {
			return nil, errTooManyClasses
		}
	}
	return classes, nil
}

func with(set map[*candidate]bool, c *candidate) map[*candidate]bool {
	out := map[*candidate]bool{c: true}
	for k := range set {
		out[k] = true
	}
	return out
}

// grants of the policy at an index to all pods that it selects.
func (w *walk) grants(at int) ([]grant, error) {
	l := w.locals[at]
	var relevant []local
	for _, earlier := range w.locals[:at] {
		if earlier.tier.Name != l.tier.Name || w.matters(earlier.candidate, l.candidate) {
			relevant = append(relevant, earlier)
		}
	}
	classes, err := split(l.pods, relevant)
	if err != nil {
		return nil, err
	}
	var out []grant
	for _, c := range classes {
		flows, err := w.contribution(at, c.selected)
		if err != nil {
			return nil, err
		}
		g := grant{candidate: l.candidate, pods: c.pods, flows: flows}
		if i := slices.IndexFunc(out, func(o grant) bool { return sameFlows(o.flows, flows) }); i >= 0 {
			if out[i].pods, err = out[i].pods.union(g.pods); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, g)
	}
	return out, nil
}

// matters reports whether something that one policy refuses or passes is allowed by another one, of the same tier.
func (w *walk) matters(refusing, allowing *candidate) bool {
	return slices.ContainsFunc(refusing.rules[w.direction], func(r rule) bool {
		return r.action != calico.Allow && slices.ContainsFunc(allowing.rules[w.direction], func(a rule) bool {
			return a.action == calico.Allow && !w.space.disjoint([]flow{a.flow}, r.flow)
		})
	})
}

// contribution of the policy to pods that these earlier ones select too: what its rules allow, less what was refused or passed before,
// and of that what the earlier tiers passed.
func (w *walk) contribution(at int, selected map[*candidate]bool) ([]flow, error) {
	l := w.locals[at]
	var decided []ruleFlows
	for _, earlier := range w.locals[:at] {
		if earlier.tier.Name == l.tier.Name && selected[earlier.candidate] {
			decided = append(decided, w.decided(earlier.candidate)...)
		}
	}
	tiers := w.passed(at, selected)
	var out []flow
	for _, r := range l.rules[w.direction] {
		if r.action != calico.Allow {
			decided = append(decided, ruleFlows{r.flow, origin{l.candidate, r.index}})
			continue
		}
		if r.flow.empty() {
			continue
		}
		flows, err := w.space.minusAll([]flow{r.flow}, decided)
		for _, parts := range tiers {
			if err == nil {
				flows, err = w.space.within(flows, parts)
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, flows...)
	}
	return out, nil
}

func (w *walk) decided(c *candidate) (out []ruleFlows) {
	for _, r := range c.rules[w.direction] {
		if r.action != calico.Allow {
			out = append(out, ruleFlows{r.flow, origin{c, r.index}})
		}
	}
	return out
}

// passed are, for each tier before an index that has policies which select the pods, what it passes on.
func (w *walk) passed(before int, selected map[*candidate]bool) [][]part {
	var out [][]part
	for i := 0; i < before; {
		tier := w.locals[i].tier
		var parts []part
		var refused []ruleFlows
		selects := false
		var last *candidate
		for ; i < len(w.locals) && w.locals[i].tier.Name == tier.Name; i++ {
			c := w.locals[i].candidate
			if !selected[c] {
				continue
			}
			selects, last = true, c
			for _, r := range c.rules[w.direction] {
				f := ruleFlows{r.flow, origin{c, r.index}}
				switch r.action {
				case calico.Deny:
					refused = append(refused, f)
				case calico.Pass:
					parts = append(parts, part{f, slices.Clone(refused)})
				case calico.Allow, calico.Log: // neither decides what the next tier sees
				}
			}
		}
		if i > before { // the tier that is asked about
			return out
		}
		if selects && tier.DefaultAction == calico.Pass {
			parts = append(parts, part{ruleFlows{everyFlow, origin{last, -1}}, refused})
		}
		if selects {
			out = append(out, parts)
		}
	}
	return out
}

// ends are what all tiers pass for pods that policies select: it is allowed, though no policy says so.
func (w *walk) ends() ([]grant, error) {
	if !slices.ContainsFunc(w.locals, func(l local) bool { return l.passes(w.direction) }) {
		return nil, nil
	}
	classes, err := split(everyPod, w.locals)
	if err != nil {
		return nil, err
	}
	var out []grant
	for _, c := range classes {
		tiers := w.passed(len(w.locals), c.selected)
		if len(tiers) == 0 {
			continue // nothing selects them
		}
		flows := []flow{everyFlow}
		var by *candidate
		for _, parts := range tiers {
			if flows, err = w.space.within(flows, parts); err != nil {
				return nil, err
			}
			if len(parts) > 0 {
				by = parts[0].policy
			}
		}
		if len(flows) == 0 {
			continue
		}
		i := slices.IndexFunc(out, func(o grant) bool { return o.candidate == by && sameFlows(o.flows, flows) })
		if i < 0 {
			out = append(out, grant{by, c.pods, flows, true})
			continue
		}
		if out[i].pods, err = out[i].pods.union(c.pods); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// untouched reports the rule that takes something from what a policy of Kubernetes' allows; that one stays as it is.
func (w *walk) untouched(at int) *weighed {
	l := w.locals[at]
	for _, earlier := range w.locals[:at] {
		shared, err := earlier.pods.intersect(l.pods)
		if err == nil && shared.empty() {
			continue
		}
		for _, r := range earlier.rules[w.direction] {
			for _, a := range l.rules[w.direction] {
				if r.action == calico.Deny && !w.space.disjoint([]flow{a.flow}, r.flow) || r.action == calico.Pass && earlier.tier.Name == l.tier.Name && !w.space.disjoint([]flow{a.flow}, r.flow) {
					return &weighed{fmt.Errorf("it decides about what %s (%s) allows, which stays as it is", l.name, a.path), origin{earlier.candidate, r.index}}
				}
			}
		}
		if earlier.tier.Name != l.tier.Name && !passesEverything(earlier.candidate, w.direction) {
			return &weighed{fmt.Errorf("its tier does not pass on all that %s allows, which stays as it is", l.name), origin{earlier.candidate, -1}}
		}
	}
	return nil
}

func passesEverything(c *candidate, d policy.Direction) bool {
	return c.tier.DefaultAction == calico.Pass || slices.ContainsFunc(c.rules[d], func(r rule) bool {
		return r.action == calico.Pass && r.flow.peers.everyone && r.flow.ports.isEverything()
	})
}

// tied is a policy whose place among others of the same order is not known, and matters.
func (w *walk) tied(at int) *weighed {
	l := w.locals[at]
	for _, o := range w.locals {
		if o.candidate == l.candidate || o.tier.Name != l.tier.Name || o.order != l.order || o.kind() == l.kind() {
			continue
		}
		shared, err := o.pods.intersect(l.pods)
		if err == nil && !shared.empty() && w.matters(l.candidate, o.candidate) {
			return &weighed{fmt.Errorf("it is that of %s too, and which of the two Calico asks first is not the same in all of its versions", o.name), origin{l.candidate, -1}}
		}
	}
	return nil
}

// kind and namespace of the policy: among equals, names order.
func (c *candidate) kind() string {
	if c.kubernetes != nil {
		return "kubernetes"
	}
	return c.policy.Kind
}

func sameFlows(a, b []flow) bool {
	return slices.EqualFunc(a, b, func(x, y flow) bool {
		return x.peers.everyone == y.peers.everyone && x.peers.nets.Equal(y.peers.nets) && slices.EqualFunc(x.peers.pods, y.peers.pods, term.equal) && x.ports.equal(y.ports)
	})
}

func (p ports) equal(o ports) bool {
	if p.others != o.others || !slices.Equal(p.rest, o.rest) {
		return false
	}
	for i := range p.of {
		if !slices.Equal(p.of[i].ranges, o.of[i].ranges) || !slices.Equal(p.of[i].names, o.of[i].names) {
			return false
		}
	}
	return true
}
