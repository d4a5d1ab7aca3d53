package compiler

import (
	"math/bits"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// A portTable is a list of disjoint port prefixes with a verdict each.
type portTable struct {
	id      TableID
	key     string
	entries []portEntry
	refs    int // rows
	dead    uint64
}

type portEntry struct {
	key     PortKey // Table is 0 until the entry has one
	verdict Verdict
}

var protocolsWithPorts = [...]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// judge says what some rules of a set mean for every port of every protocol: the Row's Default is for all that no entry is about.
func (s *set) judge(rules []int) (Row, []portEntry) {
	row := Row{Default: s.verdict(rules, func(r *setRule) bool { return r.everyPort })}
	var entries []portEntry
	for _, proto := range protocolsWithPorts {
		entries = append(entries, s.judgeProtocol(rules, proto, row.Default)...)
	}
	return row, entries
}

// judgeProtocol cuts the ports of a protocol where a rule's ranges begin and end, judges each piece, and makes prefixes of
// those that differ from the default.
func (s *set) judgeProtocol(rules []int, proto policy.Protocol, otherwise Verdict) []portEntry {
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
	current := s.verdictAt(rules, proto, 0)
	for _, cut := range cuts[1:] {
		var next Verdict
		if cut < 1<<16 {
			if next = s.verdictAt(rules, proto, uint16(cut)); next == current {
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

func (s *set) verdictAt(rules []int, proto policy.Protocol, port uint16) Verdict {
	return s.verdict(rules, func(r *setRule) bool {
		return r.everyPort || slices.ContainsFunc(r.ports, func(pr policy.PortRange) bool {
			return pr.Name == "" && pr.Protocol == proto && pr.First <= port && port <= pr.Last
		})
	})
}

// verdict is policy.Evaluate over rules that are known to match the peer.
func (s *set) verdict(rules []int, matches func(*setRule) bool) Verdict {
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
		return Verdict{Action: r.action, Tier: r.tier, Rule: r.id}
	}
	if s.isolated {
		return DefaultDeny
	}
	return Verdict{Action: policy.Accept, Tier: policy.TierBaseline}
}

// appendPrefixes cuts a range into the fewest prefixes.
func appendPrefixes(entries []portEntry, proto policy.Protocol, first, last int, v Verdict) []portEntry {
	for first <= last {
		size := 1 << 16
		if first > 0 {
			size = first & -first
		}
		for first+size-1 > last {
			size >>= 1
		}
		key := PortKey{Protocol: proto, Port: uint16(first), Bits: uint8(16 - bits.TrailingZeros(uint(size)))}
		entries = append(entries, portEntry{key: key, verdict: v})
		first += size
	}
	return entries
}
