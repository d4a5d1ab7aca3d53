package compiler

import (
	"math"
	"slices"
	"strconv"

	"github.com/kidoban/kidoban/internal/policy"
)

// crowd is what happens when the maps do not hold what all policies come to: sets that do not fit are refused. Their pods get a set
// without rules, which isolates and costs nothing.
type crowd struct {
	capacity   Usage
	namespaces int
	refused    map[string]*refusal // by the key of the set
	counted    map[string]Usage    // by the last count of what namespaces cause
	grown      map[string]Usage    // since then
	cause      string              // the namespace whose new set splits classes now
	mayCount   bool                // it takes long: once between two Collects
}

// A refusal is a set that does not fit, and what it would cost.
type refusal struct {
	demand  demand
	problem Problem
	// lacks is how many rows more than there was room for it would have, also those that others cause.
	lacks int
}

// refusedKey has the key of a set as its beginning, and is the key of the set in its place.
const refusedKey = " refused"

// lastResort is the part of the maps that no new set may take: of sets in force, others may split a class.
const lastResort = 64

// WithCapacity makes the Compiler keep to the number of entries that the maps can hold. Each of this many namespaces is guaranteed an
// equal share. Without it there is no limit.
func WithCapacity(capacity Usage, namespaces int) Option {
	return func(c *Compiler) { c.capacity, c.namespaces = capacity, namespaces }
}

func newCrowd() crowd {
	return crowd{
		capacity: Usage{math.MaxInt / 2, math.MaxInt / 2, math.MaxInt / 2, math.MaxInt / 2}, namespaces: 1,
		refused: map[string]*refusal{}, counted: map[string]Usage{}, grown: map[string]Usage{}, mayCount: true,
	}
}

// held is what the maps hold.
func (c *Compiler) held() Usage {
	return Usage{len(c.maps.Addresses), len(c.maps.Networks), len(c.maps.Rows), len(c.maps.Ports)}
}

// isHalfEmpty reports whether the maps have so much room that nothing has to be counted.
func (c *Compiler) isHalfEmpty() bool { return c.held().within(c.capacity.part(2)) }

// grow notes that a namespace causes more entries.
func (c *Compiler) grow(namespace string, more Usage) {
	if !c.measuring {
		c.grown[namespace] = c.grown[namespace].plus(more)
	}
}

// causes reports whether a row of a set is its namespace's doing, and not that of others who split the class. found is whether another
// class with the same rules has such a row. It is about what count finds out more exactly.
func (c *Compiler) causes(s *set, cl *class, found bool) bool {
	if c.measuring || c.isHalfEmpty() {
		return false
	}
	return !found || cl == c.none || !cl.atoms.any(func(leaf *atoms) bool {
		for other := range leaf.data.atom.sets {
			if other.namespace == s.namespace {
				return false
			}
		}
		return true
	})
}

// share is what each namespace is guaranteed.
func (c *Compiler) share() Usage { return c.capacity.part(max(c.namespaces, len(c.counted), 1)) }

// hasRoom reports whether a namespace may cause this many entries more. spare is what must be free besides, for what is not known.
func (c *Compiler) hasRoom(namespace string, more, spare Usage) bool {
	if c.measuring {
		return true
	}
	all := c.held().plus(more).plus(spare)
	if all.within(c.capacity.less(reserved)) {
		return true
	}
	if namespace == "" || !all.within(c.capacity.less(lastResort)) {
		return namespace == ""
	}
	isWithin := func() bool { return c.counted[namespace].plus(c.grown[namespace]).plus(more).within(c.share()) }
	if !isWithin() && c.mayCount {
		c.count(c.charges())
	}
	return isWithin()
}

// count sums up the charges by namespace.
func (c *Compiler) count(charges map[*set]Usage) {
	c.mayCount = false
	clear(c.counted)
	clear(c.grown)
	for s, charge := range charges {
		if s != nil {
			c.counted[s.namespace] = c.counted[s.namespace].plus(charge)
		}
	}
}

// refuse notes that a set does not fit.
func (c *Compiler) refuse(s *set, cost Usage) {
	d := demand{namespace: s.namespace, created: s.created, key: s.key, cost: cost}
	s.refusal = &refusal{demand: d, problem: c.problemOf(d)}
	c.refused[s.key] = s.refusal
}

// refuseIncomplete notes that a set does not fit, before it is complete. When there is room, another one is made.
func (c *Compiler) refuseIncomplete(s *set) {
	c.refuse(s, c.expected(s))
	m := c.matcher(s)
	for _, cl := range s.lacks {
		if _, ok := m.matches(cl.atoms); ok {
			s.refusal.lacks++
		}
	}
	delete(c.unfinished, s)
	delete(c.sets, s.key)
	s.key += " incomplete " + strconv.Itoa(int(s.id))
	s.lacks, s.backlogs = nil, nil
	c.sets[s.key] = s
}

// relent forgets that a set does not fit.
func (c *Compiler) relent(key string) {
	delete(c.refused, key)
	if s := c.sets[key]; s != nil { // it is complete, and was not collected yet
		s.refusal = nil
	}
}

// refusalOf is that of a set that is not made, for its addresses have no room.
func (c *Compiler) refusalOf(key string, d policy.Direction, policies []*policy.Policy, prefixes Usage) *refusal {
	_, cost := c.measure(d, policies, func() bool { return true })
	cost.Addresses = max(cost.Addresses, prefixes.Addresses)
	demand := demand{namespace: namespaceOf(policies), created: createdOf(policies), key: key, cost: cost}
	return &refusal{demand: demand, problem: c.problemOf(demand)}
}

// problemOf names the map of which a namespace with a demand has more than its share.
func (c *Compiler) problemOf(d demand) Problem {
	wants, share := c.counted[d.namespace].plus(c.grown[d.namespace]).plus(d.cost), c.share()
	out := Problem{Resource: MapRows, Figure: wants.Rows, Limit: share.Rows}
	for _, p := range [...]Problem{
		{Resource: MapPorts, Figure: wants.Ports, Limit: share.Ports},
		{Resource: MapAddresses, Figure: wants.Addresses, Limit: share.Addresses},
		{Resource: MapNetworks, Figure: wants.Networks, Limit: share.Networks},
	} {
		if float64(p.Figure)*float64(out.Limit) > float64(out.Figure)*float64(p.Limit) {
			out = p
		}
	}
	return out
}

// inPlace returns the set without rules that pods get in place of one that does not fit.
func (c *Compiler) inPlace(r *refusal, d policy.Direction, policies []*policy.Policy, keys []string) *set {
	key := r.demand.key + refusedKey
	if s := c.sets[key]; s != nil {
		return s
	}
	dropped := map[*policy.Policy]Problem{}
	for _, p := range policies {
		if p.ID.Namespace != "" {
			problem := r.problem
			problem.Policy, problem.Direction = p.ID, d
			dropped[p] = problem
		}
	}
	s := c.makeSet(d, key, policies, keys, dropped, nil)
	s.namespace = "" // only the cluster's policies have rules in it
	return s
}

// replace gives pods of a batch, in place of a set that has turned out not to fit, the one without rules.
func (c *Compiler) replace(next **set) {
	s := *next
	policies, keys := make([]*policy.Policy, len(s.versions)), make([]string, len(s.versions))
	for i, v := range s.versions {
		policies[i], keys[i] = v.policy, v.key
	}
	other := c.inPlace(s.refusal, s.direction, policies, keys)
	other.refs++
	*next = other
	c.unref(s)
	c.finish(other, func() bool { return true })
}

// expected is what a set comes to, for one that is refused before it is complete.
func (c *Compiler) expected(s *set) Usage {
	if s.expected == (Usage{}) {
		policies := make([]*policy.Policy, len(s.versions))
		for i, v := range s.versions {
			policies[i] = v.policy
		}
		_, s.expected = c.measure(s.direction, policies, func() bool { return true })
	}
	return s.expected
}

// newPrefixes are at most how many entries the peers of policies add that no set asks for yet.
func (c *Compiler) newPrefixes(d policy.Direction, policies []*policy.Policy) Usage {
	var out Usage
	for _, p := range policies {
		for i := range p.Rules[d] {
			for peer := range p.Rules[d][i].Peers.All() {
				if peer.CIDR.IsValid() {
					out.Addresses += 1 + len(peer.Except)
				} else if peer.IsGroup() && c.atoms[keyOf(&peer)] == nil {
					out.Addresses += len(c.members[peer.Group])
				}
			}
		}
	}
	out.Networks = out.Addresses
	return out
}

// rebalance refuses sets, and admits those that were refused, so that what is in the maps is what admit says.
func (c *Compiler) rebalance() {
	c.mayCount = true
	if len(c.refused) == 0 && c.isHalfEmpty() {
		clear(c.counted)
		clear(c.grown)
		return
	}
	charges := c.charges()
	c.count(charges)
	c.mayCount = true
	var demands []demand
	var sets []*set
	for key, s := range c.sets {
		if len(key) > len(refusedKey) && key[len(key)-len(refusedKey):] == refusedKey {
			continue
		}
		if s.refusal != nil || s.refs == 0 && !s.building {
			continue // it is on its way out of the maps
		}
		_, unfinished := c.unfinished[s]
		demands = append(demands, demand{namespace: s.namespace, created: s.created, key: key, cost: charges[s],
			fixed: unfinished || s.namespace == ""})
		sets = append(sets, s)
	}
	var keys []string
	var spare Usage
	for key, r := range c.refused {
		if other := c.sets[key+refusedKey]; other == nil || other.refs == 0 {
			c.relent(key)
			continue
		}
		keys = append(keys, key)
		demands = append(demands, r.demand)
		if c.counted[r.demand.namespace].plus(r.demand.cost).within(c.share()) {
			spare.Rows += r.lacks
		}
	}
	changed := map[*set]bool{}
	will := c.held()
	for i, fits := range admit(c.capacity, spare, c.namespaces, demands) {
		switch {
		case i < len(sets) && !fits:
			c.refuse(sets[i], charges[sets[i]])
			changed[sets[i]] = true
		case i >= len(sets) && fits:
			key := keys[i-len(sets)]
			r := c.refused[key]
			limit := c.capacity.less(reserved)
			if c.counted[r.demand.namespace].plus(r.demand.cost).within(c.share()) {
				limit = c.capacity.less(lastResort)
			}
			if more := will.plus(r.demand.cost).plus(Usage{Rows: r.lacks}); more.within(limit) { // or it waits until what others lose is gone
				will = more
				changed[c.sets[key+refusedKey]] = true
				c.relent(key)
			}
		}
	}
	for key, p := range c.pods {
		hasChanged := func(s *set) bool { return changed[s] }
		if slices.ContainsFunc(p.sets[:], hasChanged) || slices.ContainsFunc(p.next[:], hasChanged) {
			c.markPod(key)
		}
	}
}

// IsCrowded reports whether some sets do not fit into the maps.
func (c *Compiler) IsCrowded() bool { return len(c.refused) > 0 }

// IsUnfinished reports whether there is something to do for a Step. Collect may leave something to it.
func (c *Compiler) IsUnfinished() bool {
	return len(c.dirty.pods)+len(c.uncompiled)+len(c.waiting) > 0 || !c.released.isEmpty()
}
