package compiler

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strconv"

	"github.com/kidoban/kidoban/internal/policy"
)

// Cost is what policies that meet on a pod come to in one direction, by their own content alone: it does not depend on the
// addresses of groups, so that no other tenant's pods can raise it.
type Cost struct {
	// Prefixes at which blocks and their excepts begin, after those of a rule are united.
	Prefixes int
	// Rows for the classes of addresses that the blocks and groups make.
	Rows int
	// Ports are the entries of the port lists of these rows.
	Ports int
	// Steps that it takes to find all this: some tens of nanoseconds each.
	Steps int
}

// Resource is a field of Cost.
type Resource string

// The resources, as problems name them.
const (
	Prefixes Resource = "prefixes"
	Rows     Resource = "rows"
	Ports    Resource = "port entries"
	Steps    Resource = "steps"

	// These are of the whole node. A policy that lacks them is within its pod's budget, but its namespace is beyond its share of a
	// map that is full.
	MapAddresses Resource = "entries of the map addresses"
	MapNetworks  Resource = "entries of the map networks"
	MapRows      Resource = "entries of the map rows"
	MapPorts     Resource = "entries of the map ports"
)

// DefaultBudget is far above what a pod's policies come to in real clusters, and a quarter of what a node's maps hold. Within it,
// compiling takes about a second at most.
var DefaultBudget = Cost{Prefixes: 1 << 17, Rows: 1 << 15, Ports: 1 << 18, Steps: 1 << 21}

// Problem is a policy that costs more than the budget for the policies of one pod in one direction, or more than there is of the
// node's maps. The policies of the pod that cost less are in force; this one isolates the pod and none of its rules allows anything.
type Problem struct {
	Policy    policy.ID
	Direction policy.Direction
	// Resource of which the policy needs more than there is.
	Resource Resource
	// Figure at which compiling stopped, Limit the budget; or what the namespace wants of a map, and its share.
	Figure, Limit int
}

// exceeds returns the first resource of which there is more than the budget has; false for none.
func (c Cost) exceeds(budget Cost) (Problem, bool) {
	for _, r := range [...]Problem{
		{Resource: Prefixes, Figure: c.Prefixes, Limit: budget.Prefixes},
		{Resource: Rows, Figure: c.Rows, Limit: budget.Rows},
		{Resource: Ports, Figure: c.Ports, Limit: budget.Ports},
		{Resource: Steps, Figure: c.Steps, Limit: budget.Steps},
	} {
		if r.Figure > r.Limit {
			return r, true
		}
	}
	return Problem{}, false
}

// cost is what the Compiler holds and has spent since New.
func (c *Compiler) cost() Cost {
	return Cost{Prefixes: len(c.hosts) + c.nets.Size(), Rows: len(c.maps.Rows), Ports: c.entries, Steps: c.work}
}

// exhausted reports whether a measuring Compiler has found out that the budget does not suffice. It is asked often, and lets
// others have their turn meanwhile.
func (c *Compiler) exhausted() bool {
	if !c.measuring {
		return false
	}
	c.pause()
	_, over := c.cost().exceeds(c.budget)
	return over
}

// measure compiles policies by themselves and stops when they are over the budget. Where the Step at hand has no steps left it
// calls wait, which returns in a later one, or reports false: then the result does not matter any more. It also returns what they come
// to in the maps.
func (c *Compiler) measure(d policy.Direction, policies []*policy.Policy, wait func() bool) (Cost, Usage) {
	m := New()
	m.budget, m.measuring, m.united = c.budget, true, c.united
	counted := 0
	m.pause = func() {
		c.work += m.work - counted
		if counted = m.work; !c.left() && !wait() {
			m.budget = Cost{}
		}
	}
	next := netip.AddrFrom4([4]byte{240}) // reserved: blocks leave none of these out, but for tests
	for _, p := range policies {
		for i := range p.Rules[d] {
			for peer := range p.Rules[d][i].Peers.All() {
				if peer.IsGroup() && m.members[peer.Group] == nil {
					m.UpdateGroup(peer.Group, []netip.Prefix{netip.PrefixFrom(next, 32)}, nil)
					next = next.Next()
				}
			}
		}
	}
	keys := make([]string, len(policies))
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	s := m.makeSet(d, "", policies, keys, nil, nil)
	m.reclassify()
	m.finish(s, func() bool { return !m.exhausted() })
	m.pause()
	return m.cost(), Usage{len(m.hosts), m.nets.Size(), len(m.maps.Rows), m.entries}
}

// fit returns which of the policies that meet on a pod are in force without their rules, because the budget does not suffice
// for all: the most expensive ones, some more perhaps than is necessary, but none of the cluster's policies for the sake of a namespace's. usage is
// what the others come to.
func (c *Compiler) fit(d policy.Direction, policies []*policy.Policy, wait func() bool) (dropped map[*policy.Policy]Problem, usage Usage) {
	estimates := make(map[*policy.Policy]estimate, len(policies))
	for _, p := range policies {
		estimates[p] = c.encoded[p].estimates[d]
	}
	all := slices.Clone(policies)
	slices.SortStableFunc(all, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(min(1, len(a.ID.Namespace)), min(1, len(b.ID.Namespace))),
			cmp.Compare(estimates[a].ports(), estimates[b].ports()), cmp.Compare(estimates[a].size(), estimates[b].size()))
	})
	out := map[*policy.Policy]Problem{}
	byCost := all
	for i, read := 0, 0; i < len(all); i++ { // reading takes steps, too
		if read += estimates[all[i]].size(); read > c.budget.Steps {
			byCost = all[:min(i, len(byCost))]
			out[all[i]] = Problem{Policy: all[i].ID, Direction: d, Resource: Steps, Figure: read, Limit: c.budget.Steps}
		}
	}
	cost, usage := c.measure(d, inOrder(policies, byCost), wait)
	problem, over := cost.exceeds(c.budget)
	if !over {
		return out, usage
	}
	usage = Usage{}
	fits, tooMany := 0, len(byCost)
	measured := func(n int) {
		cost, some := c.measure(d, inOrder(policies, byCost[:n]), wait)
		if p, over := cost.exceeds(c.budget); over {
			tooMany, problem = n, p
		} else {
			fits, usage = n, some
		}
	}
	for 2*fits+1 < tooMany { // twice as many each time: this costs about as much as the last one
		measured(2*fits + 1)
	}
	if tooMany-fits > 1 { // one more try, and no search for the last that fits
		measured((fits + tooMany) / 2)
	}
	for _, p := range byCost[fits:] {
		problem.Policy, problem.Direction = p.ID, d
		out[p] = problem
	}
	return out, usage
}

// A fitting makes a set in several Steps.
type fitting struct {
	next func() (*set, bool)
	stop func()
}

// fitting makes the set of policies that may be over the budget. It returns nil where that takes more steps than there are left: the next
// call with this key goes on.
func (c *Compiler) fitting(key string, d policy.Direction, policies []*policy.Policy, keys []string) *set {
	f := c.fittings[key]
	if f == nil {
		f = &fitting{}
		f.next, f.stop = iter.Pull(func(yield func(*set) bool) {
			united := map[*policy.Rule][]policy.Peer{}
			wait := func() bool {
				c.united = map[*policy.Rule][]policy.Peer{}
				ok := yield(nil)
				c.united = united
				return ok
			}
			c.united = united
			dropped, usage := c.fit(d, policies, wait)
			s := c.makeSet(d, key, policies, keys, dropped, wait)
			if s != nil {
				s.expected = usage
			}
			c.united = map[*policy.Rule][]policy.Peer{}
			yield(s)
		})
		c.fittings[key] = f
	}
	s, _ := f.next()
	if s != nil {
		f.stop()
		delete(c.fittings, key)
	}
	return s
}

// inOrder returns some of the policies in the order that all have.
func inOrder(all, some []*policy.Policy) []*policy.Policy {
	in := make(map[*policy.Policy]bool, len(some))
	for _, p := range some {
		in[p] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(p *policy.Policy) bool { return !in[p] })
}

// An estimate is what policies cost at most, found without compiling them.
type estimate struct {
	peers  int // blocks, excepts and groups
	ranges int // of more than one port
	single int // ports
}

func (e *estimate) add(p *policy.Policy, d policy.Direction) {
	for i := range p.Rules[d] {
		r := &p.Rules[d][i]
		for peer := range r.Peers.All() {
			e.peers += 1 + len(peer.Except) + len(peer.DomainNames)
		}
		for _, pr := range r.Ports {
			if pr.First == pr.Last {
				e.single++
			} else {
				e.ranges++
			}
		}
	}
}

// encoded is what there is to know of a policy before it is compiled.
type encoded struct {
	key       string
	estimates [2]estimate // by direction
}

func (e *estimate) join(other estimate) {
	e.peers += other.peers
	e.ranges += other.ranges
	e.single += other.single
}

// size is what there is to read.
func (e estimate) size() int { return e.peers + e.ranges + e.single }

// ports are the most port entries that can come of it: of each row one for a port, and where there are ranges as many as it takes to
// write what is between two edges.
func (e estimate) ports() int {
	const perRange = 30
	list := e.single
	if e.ranges > 0 {
		list = perRange * (2*e.ranges + 2*e.single + 1)
	}
	return (e.peers + 1) * list
}

// within reports whether the policies are so small that they fit.
func (e estimate) within(budget Cost) bool {
	const stepsEach = 64 // for each peer and port: more than the logarithm of what is small
	n := e.peers + e.ranges + e.single
	return e.peers < min(budget.Prefixes, budget.Rows) && e.ports() <= budget.Ports && (e.peers+1)*stepsEach+n*stepsEach <= budget.Steps
}
