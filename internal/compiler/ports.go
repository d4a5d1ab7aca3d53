package compiler

import (
	"math/bits"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// A portList is a list of disjoint port prefixes with a decision each.
type portList struct {
	id      PortListID
	key     string
	entries []portEntry
	refs    int // rows
	dead    uint64
}

type portEntry struct {
	key      PortKey // PortList is 0 until the entry has one
	decision Decision
}

var protocolsWithPorts = [...]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// decide says what some rules of a set mean for every port of every protocol: the Row's Default is for all that no entry is about.
func (s *set) decide(rules []int) (Row, []portEntry) {
	row := Row{Default: s.decision(rules, func(r *setRule) bool { return r.everyPort })}
	var entries []portEntry
	for _, proto := range protocolsWithPorts {
		entries = append(entries, s.decideProtocol(rules, proto, row.Default)...)
	}
	return row, entries
}

// decideProtocol cuts the ports of a protocol where a rule's ranges begin and end, decides each piece, and makes prefixes of
// those that differ from the default.
func (s *set) decideProtocol(rules []int, proto policy.Protocol, otherwise Decision) []portEntry {
	cuts := []int{0, 1 << 16}
	for _, i := range rules {
		for _, pr := range s.rules[i].ports {
			if pr.Protocol == proto && pr.Name == "" {
				cuts = append(cuts, int(pr.First), int(pr.Last)+1)
			}
		}
	}
	if len(cuts) == 2 {
		return nil
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var entries []portEntry
	first := 0
	current := s.decideAt(rules, proto, 0)
	for _, cut := range cuts[1:] {
		var next Decision
		if cut < 1<<16 {
			if next = s.decideAt(rules, proto, uint16(cut)); next == current {
				continue
			}
		}
		if current != otherwise {
			entries = appendPrefixes(entries, proto, first, cut-1, current)
		}
		first, current = cut, next
	}
	return entries
}

func (s *set) decideAt(rules []int, proto policy.Protocol, port uint16) Decision {
	return s.decision(rules, func(r *setRule) bool {
		return r.everyPort || slices.ContainsFunc(r.ports, func(pr policy.PortRange) bool {
			return pr.Name == "" && pr.Protocol == proto && pr.First <= port && port <= pr.Last
		})
	})
}

// decision is policy.Evaluate over rules that are known to match the peer.
func (s *set) decision(rules []int, matches func(*setRule) bool) Decision {
	passed := false
	for _, i := range rules {
		r := &s.rules[i]
		if r.tier == policy.TierBaseline && s.isolated {
			break
		}
		if passed && r.tier == policy.TierAdmin || !matches(r) {
			continue
		}
		if r.action == policy.Pass {
			passed = true
			continue
		}
		return Decision{Action: r.action, Tier: r.tier, Rule: r.id}
	}
	if s.isolated {
		return DefaultDeny
	}
	return Decision{Action: policy.Allow, Tier: policy.TierBaseline}
}

// appendPrefixes cuts a range into the fewest prefixes.
func appendPrefixes(entries []portEntry, proto policy.Protocol, first, last int, v Decision) []portEntry {
	for first <= last {
		size := 1 << 16
		if first > 0 {
			size = first & -first
		}
		for first+size-1 > last {
			size >>= 1
		}
		key := PortKey{Protocol: proto, Port: uint16(first), Bits: uint8(16 - bits.TrailingZeros(uint(size)))}
		entries = append(entries, portEntry{key: key, decision: v})
		first += size
	}
	return entries
}
