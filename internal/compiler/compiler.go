package compiler

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/kidoban/kidoban/internal/policy"
)

// Compiler holds the input of a node's maps, and the maps. UpdateGroup, SetPod and the like change the input; Commit, or
// several Steps, return the writes that bring the maps up to date. Entries that nothing uses any more stay until Collect has
// seen them unused twice, so that a packet which is being decided meanwhile finds all entries that it looks for.
//
// A Compiler is not safe for concurrent use.
type Compiler struct {
	maps    Maps
	changes Changes // since the last Commit or Collect

	members map[policy.GroupKey]map[netip.Prefix]int // how many times each was added
	pods    map[string]*pod
	dirty   dirty

	interfaces interfaces

	atoms   map[atomKey]*atom
	hosts   map[netip.Addr]*node
	nets    bart.Table[*node]
	classes map[ClassID]*class
	none    *class // of no atoms, which has no marks of its own
	forest  forest[atomsData]

	versions   map[string]*version
	rules      map[RuleID]RuleRef
	sets       map[string]*set
	bySet      map[SetID]*set
	portLists  map[string]*portList
	byPortList map[PortListID]*portList

	next  struct{ atom, set, class, portList, rule uint32 }
	round uint64 // of Collect

	later      *backlog            // of what is marked now; nil: it is dirty
	released   backlog             // of atoms that no set asks for any more
	left       func() bool         // whether the Step at hand has steps left
	uncompiled []*batch            // that wait for a fitting
	fittings   map[string]*fitting // by the key of the set to be
	waiting    []*batch            // whose sets may lack rows
	unfinished map[*set]struct{}   // the sets that do
	spent      map[string]int      // steps, by namespace, since nothing was left to do

	patterns patterns

	encoder  encoder
	encoded  map[*policy.Policy]encoded // until nothing is left to do
	united   map[*policy.Rule][]policy.Peer
	denying  int    // sets with rules that do not accept
	matching []*set // with a matcher
	work     int    // steps since New
	entries  int    // of port lists that were made since New

	budget Cost
	crowd
	oldestFirst bool // the order of pods in a Commit: that in which they have room in the maps

	measuring bool   // see measure
	pause     func() // while measuring
}

// dirty is what Commit has to look at again.
type dirty struct {
	pods map[string]uint64 // numbered in the order in which they became dirty
	last uint64
	prefixSet
}

// PodSpec is what the compiler has to know of a pod of this node.
type PodSpec struct {
	// Addresses of the pod. No two pods may have the same one.
	Addresses []netip.Addr
	// Policies that select the pod, ordered by policy.Compare, with the pod's named ports in place (policy.ForPod). None is audited.
	Policies []*policy.Policy
	// AuditPolicies are those that would be in force if audited policies were enforced, audited ones among them. They get sets of
	// their own in the directions in which an audited policy has a say. Empty for a pod without audited policies.
	AuditPolicies []*policy.Policy
	Flags         PodFlags
	// Interfaces on the host that are the pod's alone, by index. The first stands for the pod in the maps.
	Interfaces []uint32
}

// ifIndex is the first of the pod's interfaces, or 0.
func (s *PodSpec) ifIndex() uint32 {
	if len(s.Interfaces) == 0 {
		return 0
	}
	return s.Interfaces[0]
}

type pod struct {
	spec PodSpec
	sets podSets
	next podSets      // while its batch waits
	in   []netip.Addr // Maps.Pods under these addresses

	behind []uint32 // Maps.Interfaces under these indexes
}

// podSets are the sets of a pod by direction, and after those the audit sets by direction. nil: not isolated, or not audited, in that
// direction.
type podSets [4]*set

// set finds the set for a place in podSets. It reports false where that takes more steps than the Step at hand has left.
func (p *PodSpec) set(c *Compiler, place int) (*set, bool) {
	d := policy.Direction(place % 2)
	if place < 2 {
		return c.set(d, p.Policies)
	}
	if !policy.IsAudited(d, p.AuditPolicies) {
		return nil, true
	}
	return c.set(d, p.AuditPolicies)
}

// entry is what Maps.Pods has under the addresses of a pod with these sets.
func (p *PodSpec) entry(sets podSets) Pod {
	out := Pod{Flags: p.Flags, IfIndex: p.ifIndex()}
	for place, s := range sets {
		switch {
		case s == nil:
		case place < 2:
			out.Sets[place] = s.id
		default:
			out.AuditSets[place-2] = s.id
		}
	}
	return out
}

// RuleRef is what a RuleID stands for.
type RuleRef struct {
	Policy    *policy.Policy
	Direction policy.Direction
	// Rule is the index in Policy.Rules[Direction].
	Rule int
}

// Option changes a Compiler from what New makes it by default.
type Option func(*Compiler)

// WithBudget limits what the policies on one pod may cost in one direction; DefaultBudget without it.
func WithBudget(budget Cost) Option {
	return func(c *Compiler) { c.budget = budget }
}

// New returns a Compiler with empty maps.
func New(options ...Option) *Compiler {
	c := &Compiler{
		maps: Maps{
			Pods:      map[netip.Addr]Pod{},
			Addresses: map[netip.Addr]ClassID{},
			Networks:  map[netip.Prefix]ClassID{},
			Rows:      map[RowKey]Row{},
			Ports:     map[PortKey]Decision{},

			Interfaces: map[uint32]Interface{},
			Domains:    map[string]Domain{},
			Resolvers:  map[netip.AddrPort]struct{}{},
		},
		members: map[policy.GroupKey]map[netip.Prefix]int{},
		pods:    map[string]*pod{},
		dirty:   newDirty(),

		interfaces: newInterfaces(),

		atoms:      map[atomKey]*atom{},
		hosts:      map[netip.Addr]*node{},
		classes:    map[ClassID]*class{},
		none:       &class{rows: map[*set]struct{}{}},
		versions:   map[string]*version{},
		rules:      map[RuleID]RuleRef{},
		sets:       map[string]*set{},
		bySet:      map[SetID]*set{},
		portLists:  map[string]*portList{},
		byPortList: map[PortListID]*portList{},
	}
	c.forest = newForest[atomsData](&c.work)
	c.released.marks = newPrefixSet()
	c.patterns = newPatterns()
	c.budget = DefaultBudget
	c.crowd = newCrowd()
	c.encoded = map[*policy.Policy]encoded{}
	c.fittings = map[string]*fitting{}
	c.unfinished = map[*set]struct{}{}
	c.spent = map[string]int{}
	c.united = map[*policy.Rule][]policy.Peer{}
	for _, o := range options {
		o(c)
	}
	return c
}

func newDirty() dirty {
	return dirty{pods: map[string]uint64{}, prefixSet: newPrefixSet()}
}

// UpdateGroup adds addresses to a group and takes others out. An address that was added twice (by two slices of the group, while it moves
// from one to the other) is in the group until it is taken out twice. Taking out what is not there does nothing.
func (c *Compiler) UpdateGroup(key policy.GroupKey, add, remove []netip.Prefix) {
	g := c.members[key]
	if g == nil {
		g = map[netip.Prefix]int{}
		c.members[key] = g
	}
	a := c.atoms[atomKey{group: key}]
	for _, p := range add {
		if g[p]++; g[p] == 1 && a != nil {
			c.mark(p, a)
		}
	}
	for _, p := range remove {
		switch g[p] {
		case 0:
		case 1:
			delete(g, p)
			if a != nil {
				c.unmark(p, a)
			}
		default:
			g[p]--
		}
	}
	if len(g) == 0 {
		delete(c.members, key)
	}
}

// SetPod sets what a pod is like now. key is the pod's namespace, a slash, and what distinguishes it from the namespace's other pods.
func (c *Compiler) SetPod(key string, spec PodSpec) {
	p := c.pods[key]
	if p == nil {
		p = &pod{}
		c.pods[key] = p
	}
	p.spec = spec
	c.markPod(key)
}

// DeletePod removes a pod.
func (c *Compiler) DeletePod(key string) {
	if p := c.pods[key]; p != nil {
		p.spec = PodSpec{}
		c.markPod(key)
	}
}

// markPod makes a pod dirty, in its order.
func (c *Compiler) markPod(key string) {
	if _, ok := c.dirty.pods[key]; !ok {
		c.dirty.last++
		c.dirty.pods[key] = c.dirty.last
	}
}

// Pending reports whether a pod's entries are still those of before its last SetPod or DeletePod: Step has left it to the next one.
func (c *Compiler) Pending(key string) bool {
	if _, ok := c.dirty.pods[key]; ok {
		return true
	}
	has := func(b *batch) bool { return slices.Contains(b.pods, key) }
	return slices.ContainsFunc(c.uncompiled, has) || slices.ContainsFunc(c.waiting, has)
}

// Maps are all the entries that should be in force after the last Commit or Collect. They are the Compiler's own and not to be
// changed. Only Commit, Step and Collect change them.
func (c *Compiler) Maps() *Maps { return &c.maps }

// Rule returns the rule that a RuleID stands for; false for one that is no longer in use.
func (c *Compiler) Rule(id RuleID) (RuleRef, bool) {
	r, ok := c.rules[id]
	return r, ok
}

// Set returns the policies that a set is made of, in the order of evaluation; nil for one that is no longer in use.
func (c *Compiler) Set(id SetID) []*policy.Policy {
	s := c.bySet[id]
	if s == nil {
		return nil
	}
	out := make([]*policy.Policy, len(s.versions))
	for i, v := range s.versions {
		out[i] = v.policy
	}
	return out
}

// Problems are the policies of pods of this node that the budget does not suffice for, ordered by policy and direction.
func (c *Compiler) Problems() []Problem {
	type key struct {
		id policy.ID
		d  policy.Direction
	}
	all := map[key]Problem{}
	for _, s := range c.sets {
		if s.refs == 0 {
			continue
		}
		for _, p := range s.problems {
			for _, p.Policy = range s.inTrouble(p.Policy) {
				if _, ok := all[key{p.Policy, p.Direction}]; !ok {
					all[key{p.Policy, p.Direction}] = p
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Policy.String(), b.Policy.String()), cmp.Compare(a.Policy.Generation, b.Policy.Generation),
			cmp.Compare(a.Direction, b.Direction))
	})
}

// DirectionOf is the direction that a set speaks of, also where no pod has the set any more. The set must be in use (Set).
func (c *Compiler) DirectionOf(id SetID) policy.Direction { return c.bySet[id].direction }

// Contains reports whether an address is in a group, by the calls of UpdateGroup. It makes a Compiler a reference.Groups.
func (c *Compiler) Contains(group policy.GroupKey, addr netip.Addr) bool {
	g := c.members[group]
	if g[netip.PrefixFrom(addr, addr.BitLen())] > 0 {
		return true
	}
	for bits := addr.BitLen() - 1; bits >= 0 && len(g) > 0; bits-- {
		if p, err := addr.Prefix(bits); err == nil && g[p] > 0 {
			return true
		}
	}
	return false
}
