package convert

import "slices"

// flow is a set of flows of one pod in one direction: to or from these peers, on these ports.
type flow struct {
	peers peers
	ports ports
}

// origin is the rule that a set of flows comes from, for what is said when it cannot be weighed.
type origin struct {
	policy *candidate
	rule   int // in the direction that is asked about
}

type ruleFlows struct {
	flow
	origin
}

var (
	everyFlow = flow{everyone, everything}
	noFlow    = flow{noPeers, ports{}}
)

func (f flow) empty() bool { return f.peers.empty() || f.ports.empty() }

func (s space) intersectFlows(a, b flow) (flow, error) {
	q, err := a.ports.intersect(b.ports)
	if err == nil && q.empty() {
		return noFlow, nil
	}
	p, errPeers := s.intersect(a.peers, b.peers)
	switch {
	case errPeers == nil && p.empty():
		return noFlow, nil
	case err != nil:
		return noFlow, err
	}
	return flow{p, q}, errPeers
}

// minusFlow are the flows of a that are not in b: on b's ports those of other peers, and on other ports those of all of a's.
func (s space) minusFlow(a, b flow) ([]flow, error) {
	shared, err := s.intersectFlows(a, b)
	if err == nil && shared.empty() {
		return []flow{a}, nil
	}
	samePorts, err := a.ports.intersect(b.ports)
	if err != nil {
		return nil, err
	}
	otherPorts, err := a.ports.minus(b.ports)
	if err != nil {
		return nil, err
	}
	otherPeers, err := s.minus(a.peers, b.peers)
	if err != nil {
		return nil, err
	}
	var out []flow
	for _, f := range []flow{{a.peers, otherPorts}, {otherPeers, samePorts}} {
		if !f.empty() {
			out = append(out, f)
		}
	}
	return out, nil
}

// weighed is a failure to weigh what one rule says against another.
type weighed struct {
	error
	origin // of the rule that refuses or passes
}

// minusAll are the flows less those that each of the rules is about.
func (s space) minusAll(flows []flow, rules []ruleFlows) ([]flow, error) {
	for _, r := range rules {
		var left []flow
		for _, f := range flows {
			rest, err := s.minusFlow(f, r.flow)
			if err != nil {
				return nil, &weighed{err, r.origin}
			}
			left = append(left, rest...)
		}
		flows = left
	}
	return flows, nil
}

// part is what a rule passes to the next tier: its flows less those that were refused before.
type part struct {
	ruleFlows
	minus []ruleFlows
}

// within are the flows that one of the parts has too.
func (s space) within(flows []flow, parts []part) ([]flow, error) {
	var out []flow
	for _, p := range parts {
		for _, f := range flows {
			shared, err := s.intersectFlows(f, p.flow)
			if err != nil {
				return nil, &weighed{err, p.origin}
			}
			if shared.empty() {
				continue
			}
			rest, err := s.minusAll([]flow{shared}, p.minus)
			if err != nil {
				return nil, err
			}
			out = append(out, rest...)
		}
	}
	return out, nil
}

// disjoint reports whether none of the flows is one of the rule's.
func (s space) disjoint(flows []flow, rule flow) bool {
	return !slices.ContainsFunc(flows, func(f flow) bool {
		shared, err := s.intersectFlows(f, rule)
		return err != nil || !shared.empty()
	})
}
