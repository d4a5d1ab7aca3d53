package compiler

import (
	"math"
	"slices"
	"strconv"

	"github.com/kidoban/kidoban/internal/policy"
)

// A set is what some policies decide in one direction. It never changes: pods move from one to another.
type set struct {
	id        SetID
	key       string
	direction policy.Direction
	namespace string // of its policies; a pod is under the cluster's and those of one namespace
	created   int64  // the newest of the namespace's policies
	versions  []*version
	isolated  bool // in the NetworkPolicy tier
	rules     []setRule
	byAtom    map[*atom][]int // the rules, by index, that have the atom among their peers
	atoms     []uint32        // the numbers of byAtom's keys, sorted
	everyone  []int           // the rules that are about every peer
	denying   bool            // some rule does not accept
	refs      int             // pods
	rows      map[*class]struct{}
	byName    map[string][]int // the rules, by index, that have the pattern among their peers
	named     [2]uint8         // how many rules have names, by tier
	nameRows  []RowKey
	dead      uint64
	problems  []Problem
	building  bool       // some of its policies are not in it yet
	later     *backlog   // of its new atoms; nil: their addresses' classes are found at once
	backlogs  []*backlog // to empty before its rows can be complete
	isFull    bool       // a port list of it has no room
	refusal   *refusal   // where it does not fit into the maps
	expected  Usage      // what it comes to; zero: not measured
	lacks     []*class   // for which it may need rows, while it is unfinished
	matcher   *matcher   // during a Commit
}

type setRule struct {
	id        RuleID
	before    uint8 // rules with names that come before it in its tier
	isNamed   bool
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

// set returns the set of the policies that isolate in a direction, or nil where there is none. It reports false where that takes
// more steps than the Step at hand has left.
func (c *Compiler) set(d policy.Direction, policies []*policy.Policy) (*set, bool) {
	var keys []string
	var key []byte
	var in []*policy.Policy
	var all estimate
	for _, p := range policies {
		if !p.Isolates[d] {
			continue
		}
		e, ok := c.encoded[p]
		if !ok {
			e.key = c.encoder.key(p)
			for _, d := range policy.Directions {
				e.estimates[d].add(p, d)
				c.work += e.estimates[d].size()
			}
			c.encoded[p] = e
			if !c.left() {
				return nil, false
			}
		}
		all.join(e.estimates[d])
		in, keys, key = append(in, p), append(keys, e.key+d.String()), append(key, e.key...)
	}
	if len(in) == 0 {
		return nil, true
	}
	key = append(key, d.String()...)
	if r := c.refused[string(key)]; r != nil {
		return c.inPlace(r, d, in, keys), true
	}
	if s := c.sets[string(key)]; s != nil {
		return s, true
	}
	if !c.held().plus(Usage{Addresses: all.peers, Networks: all.peers}).within(c.capacity.part(2)) {
		if more := c.newPrefixes(d, in); !c.hasRoom(namespaceOf(in), more, Usage{}) {
			c.refused[string(key)] = c.refusalOf(string(key), d, in, more)
			return c.inPlace(c.refused[string(key)], d, in, keys), true
		}
	}
	if !all.within(c.budget) {
		s := c.fitting(string(key), d, in, keys)
		return s, s != nil
	}
	defer clear(c.united)
	return c.makeSet(d, string(key), in, keys, nil, nil), true
}

// makeSet makes the set of some policies. Those that are dropped isolate, without their rules. With wait it makes a large set in several
// Steps, and returns nil if wait reports false.
func (c *Compiler) makeSet(
	d policy.Direction, key string, policies []*policy.Policy, keys []string, dropped map[*policy.Policy]Problem, wait func() bool,
) *set {
	c.next.set++
	s := &set{id: SetID(c.next.set), direction: d, byAtom: map[*atom][]int{}, rows: map[*class]struct{}{}, building: true}
	s.key = "building " + strconv.Itoa(int(s.id)) // so that no pod gets it yet
	if wait != nil || c.isLarge(d, policies) {
		s.later = &backlog{marks: newPrefixSet()}
	}
	s.namespace, s.created = namespaceOf(policies), createdOf(policies)
	c.sets[s.key], c.bySet[s.id] = s, s
	c.unfinished[s] = struct{}{}
	s.isolated = slices.ContainsFunc(policies, func(p *policy.Policy) bool { return p.Tier == policy.TierNetworkPolicy })
	abandoned := false
	for i, p := range policies {
		v := c.version(d, p, keys[i])
		v.refs++
		s.versions = append(s.versions, v)
		if s.isolated && p.Tier == policy.TierBaseline {
			continue // NetworkPolicies decide about everything
		}
		if problem, ok := dropped[p]; ok {
			s.problems = append(s.problems, problem)
			s.drop(p)
		} else {
			abandoned = !c.include(s, d, p, v, wait)
		}
		if abandoned {
			break
		}
	}
	if s.building = false; abandoned {
		s.denying, s.dead = false, c.round // Collect removes it
		return nil
	}
	delete(c.sets, s.key)
	s.key = key
	c.sets[key] = s
	if s.denying {
		c.denying++
	}
	c.usePatterns(s)
	c.addRow(s, c.none)
	c.addNameRows(s)
	for a := range s.byAtom {
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

// namespaceOf is that of policies that meet on a pod; "" where all are the cluster's.
func namespaceOf(policies []*policy.Policy) string {
	for _, p := range policies {
		if p.ID.Namespace != "" {
			return p.ID.Namespace
		}
	}
	return ""
}

// createdOf is when the newest of a namespace's policies was created. Sets with audited policies count as newer than all others: no
// enforced policy lacks room in the maps for their sake.
func createdOf(policies []*policy.Policy) (newest int64) {
	for _, p := range policies {
		if p.Audited {
			return math.MaxInt64
		}
		if p.ID.Namespace != "" {
			newest = max(newest, p.Created)
		}
	}
	return newest
}

// inTrouble are the policies that have a problem because the set lacks the rules of one: that one, or the audited policies of the set. An
// enforced policy has sets without these, and what would be if they were enforced is wrong for lack of any rule.
func (s *set) inTrouble(lacking policy.ID) []policy.ID {
	var audited []policy.ID
	for _, v := range s.versions {
		if v.policy.Audited {
			audited = append(audited, v.policy.ID)
		}
	}
	if len(audited) > 0 {
		return audited
	}
	return []policy.ID{lacking}
}

// drop puts a policy that the budget does not suffice for into the set: without its rules, and where that would not isolate as
// a NetworkPolicy does, with a denial of everything at its place.
func (s *set) drop(p *policy.Policy) {
	if p.Tier == policy.TierNetworkPolicy {
		return
	}
	s.everyone = append(s.everyone, len(s.rules))
	s.rules = append(s.rules, setRule{tier: p.Tier, action: policy.Deny, everyPort: true})
	s.denying = true
}

// include puts a policy's rules into the set. It reports false if wait does.
func (c *Compiler) include(s *set, d policy.Direction, p *policy.Policy, v *version, wait func() bool) bool {
	for i := range p.Rules[d] {
		if c.exhausted() {
			return true
		}
		if wait != nil && !c.left() && !wait() {
			return false
		}
		r := &p.Rules[d][i]
		c.work += r.Peers.Len()
		n := len(s.rules)
		s.rules = append(s.rules, setRule{id: v.rules[i], tier: p.Tier, action: r.Action, everyPort: r.EveryPort, ports: r.Ports})
		if p.Tier != policy.TierBaseline {
			s.rules[n].before = s.named[p.Tier]
		}
		s.denying = s.denying || r.Action != policy.Allow
		if r.Everyone {
			s.everyone = append(s.everyone, n)
		}
		for peer := range r.Peers.All() {
			switch {
			case len(peer.DomainNames) > 0:
				c.work += len(peer.DomainNames)
				c.askNames(s, n, peer.DomainNames)
			case peer.IsGroup():
				group := peer
				c.ask(s, n, &group)
			}
		}
		blocks := c.blocksOf(r)
		for j := range blocks {
			c.ask(s, n, &blocks[j])
		}
	}
	return true
}

// blocksOf are the united blocks of a rule, found once while a set is made.
func (c *Compiler) blocksOf(r *policy.Rule) []policy.Peer {
	if blocks, ok := c.united[r]; ok {
		return blocks
	}
	var blocks []policy.Peer
	for peer := range r.Peers.All() {
		if peer.CIDR.IsValid() {
			blocks = append(blocks, peer)
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	blocks = unite(blocks)
	c.united[r] = blocks
	return blocks
}

// ask makes a peer's atom one of those of a rule.
func (c *Compiler) ask(s *set, rule int, p *policy.Peer) {
	a := c.acquire(p, s.later)
	s.await(a.backlog)
	a.sets[s] = struct{}{}
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

func (c *Compiler) unref(s *set) {
	if s == nil {
		return
	}
	if s.refs--; s.refs == 0 {
		s.dead = c.round
	}
}

// addRow adds what a set decides about a class, once, if it asks for one of the class's atoms; later, where the set lacks other
// rows too.
func (c *Compiler) addRow(s *set, cl *class) {
	if _, ok := c.unfinished[s]; ok {
		s.lacks = append(s.lacks, cl)
	} else {
		c.computeRow(s, cl)
	}
}

func (c *Compiler) computeRow(s *set, cl *class) {
	if _, ok := s.rows[cl]; ok || c.exhausted() {
		return
	}
	c.work++
	result, found, ok := c.matcher(s).result(cl)
	if !ok || s.isFull {
		return
	}
	row := result.row
	if c.causes(s, cl, found) {
		c.grow(s.namespace, Usage{Rows: 1})
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

// row returns a Row for a line; rows with the same entries share one port list.
func (c *Compiler) row(s *set, l line) Row {
	row, entries := s.entries(l)
	c.work += len(l.pieces) + len(entries)
	if len(entries) == 0 {
		return row
	}
	key := keyOfEntries(entries)
	list := c.portLists[key]
	if list == nil {
		if _, ok := c.unfinished[s]; ok && !c.hasRoom(s.namespace, Usage{Ports: len(entries)}, Usage{}) {
			s.isFull = true
			return row
		}
		c.next.portList++
		list = &portList{id: PortListID(c.next.portList), key: key, entries: entries}
		c.portLists[list.key], c.byPortList[list.id] = list, list
		c.entries += len(entries)
		c.grow(s.namespace, Usage{Ports: len(entries)})
		row.PortList = list.id
		if c.measuring {
			list.entries = nil
			return row
		}
		for i := range list.entries {
			e := &list.entries[i]
			e.key.PortList = list.id
			c.maps.Ports[e.key] = e.decision
			c.changes.Ports = append(c.changes.Ports, Write[PortKey, Decision]{Key: e.key, Value: e.decision})
		}
	}
	row.PortList = list.id
	return row
}
