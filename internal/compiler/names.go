package compiler

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/policy"
)

// PatternID stands for a pattern of DNS names: a name, or "*." and a name. 0: none. Unlike the other IDs it outlives its users: the
// dataplane learns addresses under it, and these stay valid when policies change.
type PatternID uint32

// MaxPatterns is how many patterns can match one name.
const MaxPatterns = 8

// Domain is what the maps hold about a pattern, or about a name just above one.
type Domain struct {
	// Own is the ID of the key, where the key is a pattern in use.
	Own PatternID
	// Patterns match every name of which the key is the longest part that Domains has, ordered from the longest on.
	Patterns [MaxPatterns]PatternID
}

// maxNamed is how many rules with names a set can have in each tier. Rules beyond it allow nothing to names.
const maxNamed = 255

// NameClass is the class in the keys of rows about a pattern in a tier.
func NameClass(id PatternID, tier policy.Tier) ClassID {
	class := ClassID(1<<31) | ClassID(id)
	if tier == policy.TierNetworkPolicy {
		class |= 1 << 30
	}
	return class
}

func isNameClass(class ClassID) bool { return class>>31 == 1 }

// namedTiers are those whose rules can have names.
var namedTiers = [...]policy.Tier{policy.TierAdmin, policy.TierNetworkPolicy}

// patterns are those that sets ask for.
type patterns struct {
	ids   map[string]PatternID // also of patterns that no set asks for any more
	last  PatternID
	users map[string]int // sets
	dirty map[string]struct{}
}

func newPatterns() patterns {
	return patterns{ids: map[string]PatternID{}, users: map[string]int{}, dirty: map[string]struct{}{}}
}

// WithPatterns makes the Compiler number patterns as an earlier one did. It gives out no other number up to last.
func WithPatterns(ids map[string]PatternID, last PatternID) Option {
	return func(c *Compiler) {
		maps.Copy(c.patterns.ids, ids)
		c.patterns.last = last
	}
}

// SetResolvers sets the resolvers whose answers teach the addresses of names. Port 0 stands for every port.
func (c *Compiler) SetResolvers(resolvers []netip.AddrPort) {
	want := map[netip.AddrPort]struct{}{}
	for _, r := range resolvers {
		want[r] = struct{}{}
		if _, ok := c.maps.Resolvers[r]; !ok {
			c.maps.Resolvers[r] = struct{}{}
			c.changes.Resolvers = append(c.changes.Resolvers, Write[netip.AddrPort, struct{}]{Key: r})
		}
	}
	for r := range c.maps.Resolvers {
		if _, ok := want[r]; !ok {
			delete(c.maps.Resolvers, r)
			c.changes.Resolvers = append(c.changes.Resolvers, Write[netip.AddrPort, struct{}]{Key: r, Delete: true})
		}
	}
}

// askNames makes the names of a peer some of those of a rule. Only rules that allow can have names, and only where a tier comes after them; of any
// other rule with names nothing is known to be meant, and it denies what it can.
func (c *Compiler) askNames(s *set, rule int, names []string) {
	r := &s.rules[rule]
	if r.action != policy.Allow {
		r.action, r.everyPort, s.denying = policy.Deny, true, true
		if n := len(s.everyone); n == 0 || s.everyone[n-1] != rule {
			s.everyone = append(s.everyone, rule)
		}
		return
	}
	if s.direction != policy.Egress || r.tier == policy.TierBaseline {
		return
	}
	if !r.isNamed {
		if s.named[r.tier] == maxNamed {
			return
		}
		r.isNamed = true
		s.named[r.tier]++
	}
	if s.byName == nil {
		s.byName = map[string][]int{}
	}
	for _, name := range names {
		if rules := s.byName[name]; len(rules) == 0 || rules[len(rules)-1] != rule {
			s.byName[name] = append(rules, rule)
		}
	}
}

// usePatterns makes the patterns of a set those of the maps, too.
func (c *Compiler) usePatterns(s *set) {
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		if c.patterns.users[name]++; c.patterns.users[name] == 1 {
			if c.patterns.ids[name] == 0 {
				c.patterns.last++
				c.patterns.ids[name] = c.patterns.last
			}
			c.markPattern(name)
		}
	}
}

func (c *Compiler) releasePatterns(s *set) {
	for name := range s.byName {
		if c.patterns.users[name]--; c.patterns.users[name] == 0 {
			delete(c.patterns.users, name)
			c.markPattern(name)
		}
	}
}

// markPattern makes the entries that depend on a pattern dirty.
func (c *Compiler) markPattern(name string) {
	c.patterns.dirty[name] = struct{}{}
	above, isWildcard := strings.CutPrefix(name, "*.")
	if !isWildcard {
		return
	}
	c.patterns.dirty[above] = struct{}{}
	for other := range c.maps.Domains {
		if strings.HasSuffix(other, name[1:]) {
			c.patterns.dirty[other] = struct{}{}
		}
	}
}

// updateDomains brings Maps.Domains up to date.
func (c *Compiler) updateDomains() {
	for _, name := range slices.Sorted(maps.Keys(c.patterns.dirty)) {
		c.work++
		d, ok := c.domain(name)
		switch was, is := c.maps.Domains[name]; {
		case !ok && is:
			delete(c.maps.Domains, name)
			c.changes.Domains = append(c.changes.Domains, Write[string, Domain]{Key: name, Delete: true})
		case ok && (!is || was != d):
			c.maps.Domains[name] = d
			c.changes.Domains = append(c.changes.Domains, Write[string, Domain]{Key: name, Value: d})
		}
	}
	clear(c.patterns.dirty)
}

// domain is the entry of a pattern, or of the name just above a wildcard, which does not match that name.
func (c *Compiler) domain(name string) (d Domain, ok bool) {
	n := 0
	use := func(pattern string) bool {
		if c.patterns.users[pattern] == 0 {
			return false
		}
		if n < MaxPatterns {
			d.Patterns[n] = c.patterns.ids[pattern]
			n++
		}
		return true
	}
	if use(name) {
		d.Own = c.patterns.ids[name]
	}
	ok = d.Own != 0 || c.patterns.users["*."+name] > 0
	for rest := strings.TrimPrefix(name, "*."); ; {
		var more bool
		if _, rest, more = strings.Cut(rest, "."); !more {
			return d, ok
		}
		use("*." + rest)
	}
}

// addNameRows adds what a set decides about each of its patterns.
func (c *Compiler) addNameRows(s *set) {
	m := c.matcher(s)
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		of := m.trees(s.byName[name])
		for _, tier := range namedTiers {
			pieces := m.within(of[tier], []span{everyPort})
			if len(pieces) == 0 || s.isFull {
				continue
			}
			key := RowKey{s.id, NameClass(c.patterns.ids[name], tier)}
			row := c.row(s, s.patternLine(pieces, tier))
			if l := c.byPortList[row.PortList]; l != nil {
				l.refs++
			}
			c.work++
			s.nameRows = append(s.nameRows, key)
			c.maps.Rows[key] = row
			c.changes.Rows = append(c.changes.Rows, Write[RowKey, Row]{Key: key, Value: row})
		}
	}
}

func (c *Compiler) deleteNameRows(s *set) {
	for _, key := range s.nameRows {
		c.releaseRow(key)
	}
	s.nameRows = nil
}

// A line is decisions about all ports, in order and without gaps.
type line struct {
	pieces    []piece // whose rules are indexes of decisions
	decisions []Decision
}

// add appends the ports up to last.
func (l *line) add(last uint32, d Decision) {
	n := len(l.pieces)
	if n > 0 && l.decisions[n-1] == d {
		l.pieces[n-1].last = last
		return
	}
	first := uint32(0)
	if n > 0 {
		first = l.pieces[n-1].last + 1
	}
	l.pieces = append(l.pieces, piece{span{first, last}, int32(n)})
	l.decisions = append(l.decisions, d)
}

// patternLine is the line of a pattern's rules in a tier: where none decides it denies.
func (s *set) patternLine(pieces []piece, tier policy.Tier) line {
	var l line
	for _, p := range pieces {
		if p.first > 0 && (len(l.pieces) == 0 || l.pieces[len(l.pieces)-1].last < p.first-1) {
			l.add(p.first-1, DefaultDeny)
		}
		d := s.decisionOf(p)
		d.Names[tier] = s.rules[p.rule].before
		l.add(p.last, d)
	}
	if l.pieces[len(l.pieces)-1].last < everyPort.last {
		l.add(everyPort.last, DefaultDeny)
	}
	return l
}

// line is that of a class, with the number of rules with names that come before each decision. decided are the pieces that some rule decides,
// admin those of the Admin tier, with those that pass.
func (s *set) line(decided, admin []piece) line {
	var l line
	for at := uint32(0); at <= everyPort.last; {
		last := everyPort.last
		d, tier := s.otherwise(), policy.TierBaseline
		d.Names = s.named
		if s.isolated {
			tier = policy.TierNetworkPolicy
		}
		if p := pieceAt(&decided, at, &last); p != nil {
			r := &s.rules[p.rule]
			tier = r.tier
			names := d.Names
			d = s.decisionOf(*p)
			d.Names = names
			if tier <= policy.TierNetworkPolicy {
				d.Names[tier] = r.before
			}
		}
		if tier == policy.TierAdmin {
			d.Names[policy.TierNetworkPolicy] = 0
		}
		if p := pieceAt(&admin, at, &last); p != nil {
			d.Names[policy.TierAdmin] = s.rules[p.rule].before
		}
		l.add(last, d)
		at = last + 1
	}
	return l
}

// pieceAt returns the first of pieces that contains at, or nil, and lowers last to where that changes.
func pieceAt(pieces *[]piece, at uint32, last *uint32) *piece {
	for len(*pieces) > 0 && (*pieces)[0].last < at {
		*pieces = (*pieces)[1:]
	}
	if len(*pieces) == 0 {
		return nil
	}
	p := &(*pieces)[0]
	if p.first > at {
		*last = min(*last, p.first-1)
		return nil
	}
	*last = min(*last, p.last)
	return p
}

// byNames replaces a decision about an address by that of the first rule with names that comes before it, where the address was learned under
// these patterns.
func (t *Maps) byNames(set SetID, f policy.Flow, d Decision, patterns []PatternID) Decision {
	limits, found := d.Names, false
	for _, tier := range namedTiers {
		for _, id := range patterns {
			row, ok := t.Rows[RowKey{set, NameClass(id, tier)}]
			if !ok {
				continue
			}
			if named := t.decide(row, f); named.Action == policy.Allow && named.Names[tier] < limits[tier] {
				limits[tier], d, found = named.Names[tier], named, true
			}
		}
		if found {
			break
		}
	}
	return d
}
