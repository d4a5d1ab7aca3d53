package compiler

import (
	"crypto/sha256"
	"encoding/binary"
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
	everyone  []int           // the rules that are about every peer
	denying   bool            // some rule does not accept
	refs      int             // pods
	rows      map[*class]struct{}
	dead      uint64
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
	c.addRow(s, c.class(nil))
	for a := range s.byAtom {
		a.sets[s] = struct{}{}
		for cl := range a.classes {
			c.addRow(s, cl)
		}
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
		for j := range r.Peers {
			a := c.acquire(&r.Peers[j])
			if rules := s.byAtom[a]; len(rules) == 0 || rules[len(rules)-1] != n {
				s.byAtom[a] = append(rules, n)
			}
		}
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

// addRow adds what a set says about a class, once.
func (c *Compiler) addRow(s *set, cl *class) {
	if _, ok := s.rows[cl]; ok {
		return
	}
	row := c.row(s, s.matching(cl))
	if cl.id == 0 && row == (Row{Default: DefaultDeny}) {
		return // what the absence of a row means
	}
	s.rows[cl], cl.rows[s] = struct{}{}, struct{}{}
	key := RowKey{s.id, cl.id}
	c.maps.Rows[key] = row
	c.changes.Rows = append(c.changes.Rows, Write[RowKey, Row]{Key: key, Value: row})
}

// matching are the rules of a set, by index and in order, that an address of a class is a peer of.
func (s *set) matching(cl *class) []int {
	out := slices.Clone(s.everyone)
	for _, a := range cl.atoms {
		out = append(out, s.byAtom[a]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// row makes the decisions of some of a set's rules, for every port, into a Row; its port list is shared with rows that say the same.
func (c *Compiler) row(s *set, rules []int) Row {
	row, entries := s.decide(rules)
	if len(entries) == 0 {
		return row
	}
	key := make([]byte, 0, 16*len(entries))
	for _, e := range entries {
		key = append(key, byte(e.key.Protocol), e.key.Bits, byte(e.decision.Action), byte(e.decision.Tier))
		key = binary.BigEndian.AppendUint16(key, e.key.Port)
		key = binary.BigEndian.AppendUint32(key, uint32(e.decision.Rule))
	}
	t := c.portLists[string(key)]
	if t == nil {
		c.next.portList++
		t = &portList{id: PortListID(c.next.portList), key: string(key), entries: entries}
		c.portLists[t.key], c.byPortList[t.id] = t, t
		for i := range t.entries {
			e := &t.entries[i]
			e.key.PortList = t.id
			c.maps.Ports[e.key] = e.decision
			c.changes.Ports = append(c.changes.Ports, Write[PortKey, Decision]{Key: e.key, Value: e.decision})
		}
	}
	t.refs++
	row.PortList = t.id
	return row
}
