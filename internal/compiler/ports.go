package compiler

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"

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

// A span is a range of ports. The ports of all protocols are one line: first 65,536 numbers for the protocols without
// ports, then those of each protocol with ports.
type span struct{ first, last uint32 }

// A piece is a span about which a rule decides, by its index in the set.
type piece struct {
	span
	rule int32
}

const portsPerProtocol = 1 << 16

var everyPort = span{0, (1+uint32(len(protocolsWithPorts)))*portsPerProtocol - 1}

// pieces are the spans of one rule.
func (r *setRule) pieces(index int32) []piece {
	if r.action == policy.Pass && r.tier != policy.TierAdmin {
		return nil
	}
	if r.everyPort {
		return []piece{{everyPort, index}}
	}
	out := make([]piece, 0, len(r.ports))
	for _, pr := range r.ports {
		if pr.Name != "" || pr.First > pr.Last {
			continue
		}
		if i := slices.Index(protocolsWithPorts[:], pr.Protocol); i >= 0 {
			start := uint32(i+1) * portsPerProtocol
			out = append(out, piece{span{start + uint32(pr.First), start + uint32(pr.Last)}, index})
		}
	}
	slices.SortFunc(out, func(a, b piece) int { return int(a.first) - int(b.first) })
	merged := out[:0]
	for _, p := range out {
		if n := len(merged); n > 0 && p.first <= merged[n-1].last+1 {
			merged[n-1].last = max(merged[n-1].last, p.last)
		} else {
			merged = append(merged, p)
		}
	}
	return merged
}

// gaps are the parts of free spans that no piece is in. The pieces are all inside them.
func gaps(pieces []piece, free []span) []span {
	if len(pieces) == 0 {
		return free
	}
	out := make([]span, 0, len(free)+len(pieces))
	for _, f := range free {
		first := f.first
		for len(pieces) > 0 && pieces[0].first <= f.last {
			if pieces[0].first > first {
				out = append(out, span{first, pieces[0].first - 1})
			}
			first = pieces[0].last + 1
			pieces = pieces[1:]
		}
		if first <= f.last {
			out = append(out, span{first, f.last})
		}
	}
	return out
}

// clip returns the parts of pieces that are in free spans.
func clip(pieces []piece, free []span) []piece {
	if len(free) == 1 && free[0] == everyPort {
		return pieces
	}
	var out []piece
	for _, f := range free {
		if len(pieces) > 0 && pieces[0].last < f.first { // the next one is often near
			n := 1
			for n < len(pieces) && pieces[n].last < f.first {
				n *= 2
			}
			start := n / 2
			end := min(n+1, len(pieces))
			pieces = pieces[start+sort.Search(end-start, func(i int) bool { return pieces[start+i].last >= f.first }):]
		}
		for i := 0; i < len(pieces) && pieces[i].first <= f.last; i++ {
			p := pieces[i]
			out = append(out, piece{span{max(p.first, f.first), min(p.last, f.last)}, p.rule})
			if p.last >= f.last {
				pieces = pieces[i:]
				break
			}
			if i+1 == len(pieces) {
				pieces = nil
				break
			}
		}
	}
	return out
}

// merge returns two lists of disjoint pieces as one.
func merge(a, b []piece) []piece {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	out := make([]piece, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].first < b[0].first {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// otherwise is the decision where no rule decides.
func (s *set) otherwise() Decision {
	if s.isolated {
		return DefaultDeny
	}
	return Decision{Action: policy.Allow, Tier: policy.TierBaseline}
}

// entries makes a line into a Row and port entries: the Row's Default is for all that no entry is about.
func (s *set) entries(l line) (Row, []portEntry) {
	pieces := l.pieces
	decisionOf := s.decisionOf
	if l.decisions != nil {
		decisionOf = func(p piece) Decision { return l.decisions[p.rule] }
	}
	row := Row{Default: s.otherwise()}
	if len(pieces) > 0 && pieces[0].first == 0 {
		row.Default = decisionOf(pieces[0])
	}
	var entries []portEntry
	for i, proto := range protocolsWithPorts {
		start := uint32(i+1) * portsPerProtocol
		end := start + portsPerProtocol
		run := span{start, start}
		var current Decision
		write := func() {
			if current != row.Default && run.first < run.last {
				entries = appendPrefixes(entries, proto, int(run.first-start), int(run.last-start)-1, current)
			}
		}
		extend := func(to uint32, d Decision) { // run.last is exclusive
			if to <= run.last {
				return
			}
			if d != current {
				write()
				run.first, current = run.last, d
			}
			run.last = to
		}
		for len(pieces) > 0 && pieces[0].first < end {
			p := pieces[0]
			if p.last >= start {
				extend(max(p.first, start), s.otherwise())
				extend(min(p.last+1, end), decisionOf(p))
			}
			if p.last >= end {
				break
			}
			pieces = pieces[1:]
		}
		extend(end, s.otherwise())
		write()
	}
	return row, entries
}

func (s *set) decisionOf(p piece) Decision {
	r := &s.rules[p.rule]
	return Decision{Action: r.action, Tier: r.tier, Rule: r.id}
}

// keyOfEntries is the same for the same entries only.
func keyOfEntries(entries []portEntry) string {
	key := make([]byte, 0, 12*len(entries))
	for _, e := range entries {
		key = append(key, byte(e.key.Protocol), e.key.Bits, byte(e.decision.Action), byte(e.decision.Tier))
		key = append(key, e.decision.Names[:]...)
		key = binary.BigEndian.AppendUint16(key, e.key.Port)
		key = binary.BigEndian.AppendUint32(key, uint32(e.decision.Rule))
	}
	return string(key)
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
