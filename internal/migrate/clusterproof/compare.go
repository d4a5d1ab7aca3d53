package clusterproof

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// Verdict of a set of policies.
type Verdict struct {
	// Outcome is what is compared: as "Allow", or "Deny in tier Admin".
	Outcome string `json:"outcome"`
	// By is the policy and the rule, or says which default it was.
	By string `json:"by"`
}

// Judge is a set of policies.
type Judge interface {
	Judge(d policy.Direction, f *Flow) Verdict
}

// Difference is a flow that is judged differently, of those to or from one class of other ends which the same two rules decide.
type Difference struct {
	Direction string  `json:"direction"`
	From      string  `json:"from"`
	To        string  `json:"to"`
	Traffic   string  `json:"traffic"`
	Before    Verdict `json:"before"`
	After     Verdict `json:"after"`
	// Flows is the number of classes of flows.
	Flows int `json:"flows"`
	// Names is true where the destination is an address of a domain name.
	Names bool `json:"names,omitempty"`
}

// Report of a comparison.
type Report struct {
	// Flows is the number of classes of flows, Differing that of those which differ. Differences has one of each two rules and each
	// other end.
	Flows       int           `json:"flows"`
	Differing   int           `json:"differing"`
	Differences []*Difference `json:"differences,omitempty"`
}

// maxFlows is the number of classes of flows beyond which a comparison would take too long.
const maxFlows = 3_000_000

var errTooManyFlows = errors.New("the policies tell too many classes of flows apart to look at each: give fewer policies at once")

// Compare two sets of policies on every class of flows that the terms tell apart.
func Compare(ctx context.Context, terms []Terms, before, after Judge) (*Report, error) {
	c := &comparison{ctx: ctx, judges: [2]Judge{before, after}, report: &Report{}, found: map[string]*Difference{}}
	for _, d := range policy.Directions {
		var own []Terms
		var subjects []Selector
		for _, t := range terms {
			if t.Direction == d {
				own, subjects = append(own, t), append(subjects, t.Subject)
			}
		}
		selfs, err := objects(subjects)
		if err != nil {
			return nil, err
		}
		for _, self := range selfs {
			if err := c.pod(d, self, own); err != nil {
				return nil, err
			}
		}
	}
	return c.report, nil
}

type comparison struct {
	ctx    context.Context
	judges [2]Judge
	report *Report
	found  map[string]*Difference
}

// pod compares the flows of one class of pods, by the terms of the policies that select it.
func (c *comparison) pod(d policy.Direction, self *object, terms []Terms) error {
	all := Terms{}
	for _, t := range terms {
		if t.Subject.matches(self) {
			all.Pods, all.Nodes, all.Networks = append(all.Pods, t.Pods...), append(all.Nodes, t.Nodes...), append(all.Networks, t.Networks...)
			all.Names, all.Ports = append(all.Names, t.Names...), append(all.Ports, t.Ports...)
		}
	}
	peers, err := peersOf(&all)
	if err != nil {
		return err
	}
	scenarios := scenariosOf(all.Names)
	for _, p := range peers {
		for _, t := range traffics(all.Ports, p.addr.Is4(), d == policy.Ingress || p.pod != nil) {
			for _, names := range scenarios {
				if len(names) > 0 && p.pod != nil && anyOf(names) {
					continue // a name's addresses may be pods': the networks tell the same
				}
				if err := c.one(d, flow(d, self, p, t, names)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func anyOf(names map[string]bool) bool {
	for _, is := range names {
		if is {
			return true
		}
	}
	return false
}

func (c *comparison) one(d policy.Direction, f *Flow) error {
	if f == nil {
		return nil
	}
	if c.report.Flows++; c.report.Flows > maxFlows {
		return errTooManyFlows
	}
	if c.report.Flows%1024 == 0 && c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	before, after := c.judges[0].Judge(d, f), c.judges[1].Judge(d, f)
	if before.Outcome == after.Outcome {
		return nil
	}
	c.report.Differing++
	key := fmt.Sprint(d, f.Peer) + "\x00" + before.Outcome + before.By + "\x00" + after.Outcome + after.By
	if known := c.found[key]; known != nil {
		known.Flows++
		return nil
	}
	found := &Difference{Direction: d.String(), From: f.Self.String(), To: f.Peer.String(), Traffic: f.Traffic(), Before: before, After: after, Flows: 1, Names: len(f.Peer.names) > 0}
	if d == policy.Ingress {
		found.From, found.To = found.To, found.From
	}
	c.found[key] = found
	c.report.Differences = append(c.report.Differences, found)
	return nil
}

// peersOf are one other end of each class: pods and nodes at addresses of each class, and these addresses alone.
func peersOf(t *Terms) ([]*peer, error) {
	var pods, nodes []*object
	var err error
	if len(t.Pods) > 0 || slices.ContainsFunc(t.Ports, func(p Port) bool { return p.Name != "" }) { // else a pod is what its address is
		if pods, err = objects(t.Pods); err != nil {
			return nil, err
		}
	}
	if len(t.Nodes) > 0 {
		if nodes, err = objects(t.Nodes); err != nil {
			return nil, err
		}
	}
	var out []*peer
	for _, a := range addresses(t.Networks) {
		out = append(out, &peer{addr: a})
		for _, o := range pods {
			out = append(out, &peer{addr: a, pod: o})
		}
		for _, o := range nodes {
			out = append(out, &peer{addr: a, node: o})
		}
	}
	return out, nil
}

// scenariosOf names: an address that belongs to none of them, to each alone, and to all.
func scenariosOf(names []string) []map[string]bool {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	none := map[string]bool{}
	for _, n := range names {
		none[n] = false
	}
	out := []map[string]bool{none}
	for _, n := range names {
		one := maps.Clone(none)
		one[n] = true
		out = append(out, one)
	}
	if len(names) > 1 {
		all := map[string]bool{}
		for _, n := range names {
			all[n] = true
		}
		out = append(out, all)
	}
	return out
}
