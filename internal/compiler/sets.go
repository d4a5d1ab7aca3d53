package compiler

import (
	"crypto/sha256"
	"encoding/json"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// A set is what some policies say in one direction. It never changes: pods move from one to another.
type set struct {
	id        SetID
	key       string
	direction policy.Direction
	versions  []*version
	isolated  bool // in the NetworkPolicy tier
	rules     []setRule
	byAtom    map[*atom][]int // the rules, by index, that have the atom among their peers
	atoms     []uint32        // the numbers of byAtom's keys, sorted
	everyone  []int           // the rules that are about every peer
	denying   bool            // some rule does not accept
	refs      int             // pods
	rows      map[*class]struct{}
	dead      uint64
	matcher   *matcher // during a Commit
}

type setRule struct {
	id        RuleID
	tier      policy.Tier
	action    policy.Action
	everyPort bool
	ports     []policy.PortRange
}

// A version is one content of one policy in one direction, with the IDs of its rules.
type version struct {
	key    string
	policy *policy.Policy
	rules  []RuleID
	refs   int // sets
}

// set returns the set of the policies that isolate in a direction, or nil where there is none.
func (c *Compiler) set(d policy.Direction, policies []*policy.Policy, encoded map[*policy.Policy]string) *set {
	var keys []string
	var key []byte
	var in []*policy.Policy
	for _, p := range policies {
		if !p.Isolates[d] {
			continue
		}
		k, ok := encoded[p]
		if !ok {
			k = encode(p)
			encoded[p] = k
		}
		in, keys, key = append(in, p), append(keys, k+d.String()), append(key, k...)
	}
	if len(in) == 0 {
		return nil
	}
	key = append(key, d.String()...)
	if s := c.sets[string(key)]; s != nil {
		return s
	}
	c.next.set++
	s := &set{id: SetID(c.next.set), key: string(key), direction: d, byAtom: map[*atom][]int{}, rows: map[*class]struct{}{}}
	c.sets[s.key], c.bySet[s.id] = s, s
	for i, p := range in {
		c.include(s, d, p, c.version(d, p, keys[i]))
	}
	if s.denying {
		c.denying++
	}
	c.addRow(s, c.none)
	for a := range s.byAtom {
		a.sets[s] = struct{}{}
		s.atoms = append(s.atoms, a.leaf.prefix)
	}
	slices.Sort(s.atoms)
	seen := map[*atoms]struct{}{}
	for a := range s.byAtom {
		a.leaf.eachAbove(seen, func(x *atoms) {
			if x.data.class != nil {
				c.addRow(s, x.data.class)
			}
		})
	}
	return s
}

func (c *Compiler) include(s *set, d policy.Direction, p *policy.Policy, v *version) {
	v.refs++
	s.versions = append(s.versions, v)
	s.isolated = s.isolated || p.Tier == policy.TierNetworkPolicy
	for i := range p.Rules[d] {
		r := &p.Rules[d][i]
		n := len(s.rules)
		s.rules = append(s.rules, setRule{id: v.rules[i], tier: p.Tier, action: r.Action, everyPort: r.EveryPort, ports: r.Ports})
		s.denying = s.denying || r.Action != policy.Allow
		if r.Everyone {
			s.everyone = append(s.everyone, n)
		}
		var blocks []policy.Peer
		for j := range r.Peers {
			if r.Peers[j].CIDR.IsValid() {
				blocks = append(blocks, r.Peers[j])
			} else {
				c.ask(s, n, &r.Peers[j])
			}
		}
		blocks = unite(blocks)
		for j := range blocks {
			c.ask(s, n, &blocks[j])
		}
	}
}

// ask makes a peer's atom one of those of a rule.
func (c *Compiler) ask(s *set, rule int, p *policy.Peer) {
	a := c.acquire(p)
	if rules := s.byAtom[a]; len(rules) == 0 || rules[len(rules)-1] != rule {
		s.byAtom[a] = append(rules, rule)
	}
}

// version returns the IDs of a policy's rules: the same ones for every set that has the policy in this content.
func (c *Compiler) version(d policy.Direction, p *policy.Policy, key string) *version {
	if v := c.versions[key]; v != nil {
		return v
	}
	v := &version{key: key, policy: p, rules: make([]RuleID, len(p.Rules[d]))}
	for i := range v.rules {
		c.next.rule++
		v.rules[i] = RuleID(c.next.rule)
		c.rules[v.rules[i]] = RuleRef{Policy: p, Direction: d, Rule: i}
	}
	c.versions[key] = v
	return v
}

// encode is a key for the whole content of a policy: two with the same key mean the same and are called the same.
func encode(p *policy.Policy) string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // a Policy has nothing that JSON cannot say
	}
	sum := sha256.Sum256(b)
	return string(sum[:])
}

func (c *Compiler) unref(s *set) {
	if s == nil {
		return
	}
	if s.refs--; s.refs == 0 {
		s.dead = c.round
	}
}

// addRow adds what a set decides about a class, once, if it asks for one of the class's atoms.
func (c *Compiler) addRow(s *set, cl *class) {
	if _, ok := s.rows[cl]; ok {
		return
	}
	m := c.matcher(s)
	rules, ok := m.matches(cl.atoms)
	if !ok && cl != c.none {
		return
	}
	rules = m.union(rules, m.everyone)
	row, known := m.rows[rules]
	if !known {
		row = c.row(s, m.pieces(rules))
		m.rows[rules] = row
	}
	if cl == c.none && row == (Row{Default: DefaultDeny}) {
		return // the absence of a row means the same
	}
	c.putRow(s, cl, row)
}

// putRow writes a row, and holds its port list for it.
func (c *Compiler) putRow(s *set, cl *class, row Row) {
	c.work++
	s.rows[cl], cl.rows[s] = struct{}{}, struct{}{}
	if l := c.byPortList[row.PortList]; l != nil {
		l.refs++
	}
	key := RowKey{s.id, cl.id}
	c.maps.Rows[key] = row
	c.changes.Rows = append(c.changes.Rows, Write[RowKey, Row]{Key: key, Value: row})
}

// row returns a Row for pieces; rows with the same entries share one port list.
func (c *Compiler) row(s *set, pieces []piece) Row {
	row, entries := s.entries(pieces)
	c.work += len(pieces) + len(entries)
	if len(entries) == 0 {
		return row
	}
	key := keyOfEntries(entries)
	l := c.portLists[key]
	if l == nil {
		c.next.portList++
		l = &portList{id: PortListID(c.next.portList), key: key, entries: entries}
		c.portLists[l.key], c.byPortList[l.id] = l, l
		for i := range l.entries {
			e := &l.entries[i]
			e.key.PortList = l.id
			c.maps.Ports[e.key] = e.decision
			c.changes.Ports = append(c.changes.Ports, Write[PortKey, Decision]{Key: e.key, Value: e.decision})
		}
	}
	row.PortList = l.id
	return row
}
