package compiler

import (
	"math/bits"
	"slices"
	"sort"

	"github.com/kidoban/kidoban/internal/policy"
)

// A matcher makes the rows of one set during one Commit. It works on sets of rules as classes are sets of atoms: two
// classes that differ in few atoms match sets of rules that differ in few, and share what was computed for the rest.
type matcher struct {
	compiler *Compiler
	set      *set
	rules    forest[portsOfRules]
	everyone matched
	memo     map[*atoms]matched
	results  map[matched]*result
}

// A result is a row, and what it was made from.
type result struct {
	row     Row
	pieces  []piece
	visible map[int32]struct{} // the rules of pieces; nil before it is asked for
}

// ruleTree is a set of a set's rules, by their indexes.
type ruleTree = tree[portsOfRules]

// matched are the rules that match some addresses, by tier.
type matched [3]*ruleTree

// matcher returns the set's own for the Commit at hand.
func (c *Compiler) matcher(s *set) *matcher {
	if s.matcher == nil {
		s.matcher = &matcher{compiler: c, set: s, memo: map[*atoms]matched{}, results: map[matched]*result{}}
		s.matcher.rules = newForest[portsOfRules](&c.work)
		s.matcher.rules.unions = map[pair[portsOfRules]]*ruleTree{}
		s.matcher.everyone = s.matcher.trees(s.everyone)
		c.matching = append(c.matching, s)
	}
	return s.matcher
}

// matches are the rules of a class, beside those for every peer; false where the set asks for none of its atoms.
func (m *matcher) matches(x *atoms) (matched, bool) {
	if x == nil || !m.set.asksWithin(x) {
		return matched{}, false
	}
	if x.isLeaf() {
		return m.trees(m.set.byAtom[x.data.atom]), true
	}
	if out, ok := m.memo[x]; ok {
		return out, true
	}
	m.compiler.exhausted() // lets others have their turn
	out, left := m.matches(x.l)
	r, right := m.matches(x.r)
	if left && right {
		out = m.union(out, r)
	} else if right {
		out = r
	}
	m.memo[x] = out
	return out, true
}

func (m *matcher) union(a, b matched) matched {
	for tier := range a {
		a[tier] = m.rules.union(a[tier], b[tier])
	}
	return a
}

// trees are some rules, in order, by tier.
func (m *matcher) trees(rules []int) matched {
	var out matched
	for len(rules) > 0 {
		tier := m.set.rules[rules[0]].tier
		n := sort.Search(len(rules), func(i int) bool { return m.set.rules[rules[i]].tier > tier })
		out[tier] = m.tree(rules[:n])
		rules = rules[n:]
	}
	return out
}

func (m *matcher) tree(rules []int) *ruleTree {
	first, last := uint32(rules[0]), uint32(rules[len(rules)-1])
	if first == last {
		return m.rules.leaf(first)
	}
	bit := bits.Len32(first^last) - 1
	n := sort.Search(len(rules), func(i int) bool { return rules[i]>>bit&1 == 1 })
	return m.rules.branch(m.tree(rules[:n]), m.tree(rules[n:]))
}

// asksWithin reports whether one of the set's atoms has a number that a tree may have.
func (s *set) asksWithin(x *atoms) bool {
	i, found := slices.BinarySearch(s.atoms, x.prefix)
	return found || i < len(s.atoms) && s.atoms[i] <= x.last()
}

// pieces are the ports of all protocols with the rule that decides about each; no rule decides about the ports in between. admin are those of the
// Admin tier, with the rules that pass.
func (m *matcher) pieces(of matched) (decided, admin []piece) {
	free := []span{everyPort}
	admin = m.within(of[policy.TierAdmin], free)
	decided = slices.DeleteFunc(slices.Clone(admin), func(p piece) bool { return m.set.rules[p.rule].action == policy.Pass })
	for _, tier := range [...]policy.Tier{policy.TierNetworkPolicy, policy.TierBaseline} {
		decided = merge(decided, m.within(of[tier], gaps(decided, free)))
	}
	return decided, admin
}

// portsOfRules is what a matcher has computed about some rules.
type portsOfRules struct {
	pieces  []piece // of the first rule for each port, sorted; nil before it is computed
	size    int     // the most pieces that there can be
	unknown int     // see unknown; 0 before it is asked for
	spent   int     // on looking through the rules for lack of pieces
}

// within returns the pieces of some rules inside free spans.
//
// It either computes the pieces of the rules for every port, once, or looks for those of the spans rule by rule. The
// first costs what the rules have of ranges, the second what the spans are; it takes the second as long as that has cost
// less in all. So rules that others hide, and that few classes share, cost no more than what is seen of them.
func (m *matcher) within(x *ruleTree, free []span) []piece {
	if x == nil || len(free) == 0 || m.compiler.exhausted() {
		return nil
	}
	d := m.portsOf(x)
	if d.pieces == nil {
		if !x.isLeaf() {
			d.unknown = m.unknown(x.l) + m.unknown(x.r)
			d.spent += len(free) * d.unknown
		}
		if x.isLeaf() || d.spent >= d.size {
			d.pieces = m.compute(x)
		}
	}
	if d.pieces != nil {
		out := clip(d.pieces, free)
		*m.rules.work += len(out) + len(free)
		return out
	}
	return m.firstOf(x, free)
}

func (m *matcher) firstOf(x *ruleTree, free []span) []piece {
	first := m.within(x.l, free)
	return merge(first, m.within(x.r, gaps(first, free)))
}

func (m *matcher) compute(x *ruleTree) []piece {
	var out []piece
	if x.isLeaf() {
		out = m.set.rules[x.prefix].pieces(int32(x.prefix))
	} else {
		out = m.firstOf(x, []span{everyPort})
	}
	*m.rules.work += len(out)
	if out == nil {
		out = []piece{}
	}
	return out
}

// unknown is how many parts of some rules a look through them has to ask, at most: of parts that were asked before it takes
// what was found then.
func (m *matcher) unknown(x *ruleTree) int {
	if x.isLeaf() || x.data.pieces != nil {
		return 1
	}
	if x.data.unknown == 0 {
		*m.rules.work++
		x.data.unknown = m.unknown(x.l) + m.unknown(x.r)
	}
	return x.data.unknown
}

func (m *matcher) portsOf(x *ruleTree) *portsOfRules {
	d := &x.data
	switch {
	case d.size > 0:
	case x.isLeaf():
		d.size = 1 + len(m.set.rules[x.prefix].ports)
	default:
		d.size = m.portsOf(x.l).size + m.portsOf(x.r).size
	}
	return d
}

// result returns the row of a class, and whether another class with the same rules had it before.
func (m *matcher) result(cl *class) (_ *result, found, ok bool) {
	rules, ok := m.matchesOf(cl)
	if !ok {
		return nil, false, false
	}
	if r := m.results[rules]; r != nil && m.isLive(r) {
		return r, true, true
	}
	if cl.base != nil {
		if base, ok := m.matchesOf(cl.base); ok {
			if r := m.results[base]; r != nil && m.isLive(r) && m.sameRow(r, base, rules) {
				m.results[rules] = r
				return r, false, true
			}
		}
	}
	decided, admin := m.pieces(rules)
	r := &result{pieces: decided}
	l := line{pieces: decided}
	if m.set.named != [2]uint8{} {
		l = m.set.line(decided, admin)
	}
	r.row = m.compiler.row(m.set, l)
	m.results[rules] = r
	return r, false, true
}

func (m *matcher) matchesOf(cl *class) (matched, bool) {
	rules, ok := m.matches(cl.atoms)
	if !ok && cl != m.compiler.none {
		return matched{}, false
	}
	return m.union(rules, m.everyone), true
}

// isLive reports whether the port list of a result has not been collected since.
func (m *matcher) isLive(r *result) bool {
	return r.row.PortList == 0 || m.compiler.byPortList[r.row.PortList] != nil
}

// sameRow reports whether rules have the same row as base, of which r is the result, because those that base lacks, or has
// besides, decide about no port. It may report false where they do have the same.
func (m *matcher) sameRow(r *result, base, rules matched) bool {
	same := true
	for tier := range rules {
		m.rules.difference(base[tier], rules[tier]).each(func(leaf *ruleTree) { same = same && !m.isVisible(r, int32(leaf.prefix)) })
		m.rules.difference(rules[tier], base[tier]).each(func(leaf *ruleTree) { same = same && m.isHidden(r, leaf) })
	}
	return same
}

func (m *matcher) isVisible(r *result, rule int32) bool {
	if r.visible == nil {
		r.visible = make(map[int32]struct{})
		for _, p := range r.pieces {
			r.visible[p.rule] = struct{}{}
		}
		*m.rules.work += len(r.pieces)
	}
	_, ok := r.visible[rule]
	return ok || m.set.rules[rule].action == policy.Pass
}

// isHidden reports whether rules before this one decide about all of its ports.
func (m *matcher) isHidden(r *result, leaf *ruleTree) bool {
	rule := int32(leaf.prefix)
	if m.set.rules[rule].action == policy.Pass {
		return false
	}
	for _, p := range m.within(leaf, []span{everyPort}) {
		i := sort.Search(len(r.pieces), func(i int) bool { return r.pieces[i].last >= p.first })
		for at := p.first; at <= p.last; i++ {
			*m.rules.work++
			if i == len(r.pieces) || r.pieces[i].first > at || r.pieces[i].rule > rule {
				return false
			}
			at = r.pieces[i].last + 1
		}
	}
	return true
}
