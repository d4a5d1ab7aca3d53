package compiler

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// world is what the reference evaluator needs to know, changed at random beside a Compiler.
type world struct {
	rng      *rand.Rand
	groups   map[policy.GroupKey]map[netip.Prefix]int
	pods     map[string]PodSpec
	policies []*policy.Policy
	version  int64
}

func (w *world) Contains(g policy.GroupKey, addr netip.Addr) bool {
	for p := range w.groups[g] {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

var (
	groupKeys = []policy.GroupKey{{Namespace: "a", Name: "g1"}, {Namespace: "b", Name: "g1"}, {Namespace: "a", Name: "g2"}, {Namespace: "a", Name: "g3"}}
	// Few addresses and many prefixes around them, so that everything overlaps.
	universe = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.1.0.1", "192.168.0.1", "fd00::1", "fd00::2", "fd00:0:0:1::1", "2001:db8::1", "::1", "0.0.0.1"}
	cidrs    = []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.1/32", "10.0.0.2/32", "192.168.0.0/16",
		"::/0", "::/64", "fd00::/8", "fd00::/64", "fd00::/127", "fd00::1/128", "2001:db8::/32",
	}
	ports = []uint16{1, 53, 79, 80, 81, 443, 1023, 1024, 8080, 32767, 32768, 65535}
)

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func (w *world) peer() policy.Peer {
	if w.rng.IntN(2) == 0 {
		return policy.Peer{Group: pick(w.rng, groupKeys)}
	}
	p := policy.Peer{CIDR: netip.MustParsePrefix(pick(w.rng, cidrs))}
	for _, c := range cidrs {
		if e := netip.MustParsePrefix(c); e.Bits() > p.CIDR.Bits() && p.CIDR.Contains(e.Addr()) && w.rng.IntN(3) == 0 {
			p.Except = append(p.Except, e)
		}
	}
	return p
}

func (w *world) rule(tier policy.Tier) policy.Rule {
	r := policy.Rule{EveryPort: w.rng.IntN(3) == 0, Everyone: w.rng.IntN(6) == 0}
	switch tier {
	case policy.TierAdmin:
		r.Action = pick(w.rng, []policy.Action{policy.Allow, policy.Deny, policy.Pass})
	case policy.TierBaseline:
		r.Action = pick(w.rng, []policy.Action{policy.Allow, policy.Deny})
	case policy.TierNetworkPolicy: // its rules only allow
	}
	var peers []policy.Peer
	for range w.rng.IntN(4) {
		if !r.Everyone {
			peers = append(peers, w.peer())
		}
	}
	r.Peers = policy.ListPeers(peers...)
	for range w.rng.IntN(4) {
		if r.EveryPort {
			break
		}
		pr := policy.PortRange{Protocol: pick(w.rng, protocolsWithPorts[:])}
		switch w.rng.IntN(3) {
		case 0:
			pr.Last = 65535
		case 1:
			pr.First = pick(w.rng, ports)
			pr.Last = pr.First
		default:
			pr.First, pr.Last = pick(w.rng, ports), pick(w.rng, ports)
			if pr.First > pr.Last {
				pr.First, pr.Last = pr.Last, pr.First
			}
		}
		r.Ports = append(r.Ports, pr)
	}
	return r
}

func (w *world) newPolicy() *policy.Policy {
	w.version++
	p := &policy.Policy{
		ID:   policy.ID{Kind: "NetworkPolicy", Namespace: "a", Name: fmt.Sprint("p", w.rng.IntN(5)), Generation: w.version},
		Tier: policy.TierNetworkPolicy, Isolates: [2]bool{w.rng.IntN(4) > 0, w.rng.IntN(4) > 0}, Audited: w.rng.IntN(4) == 0,
	}
	if w.rng.IntN(3) == 0 {
		p.Tier, p.Priority = pick(w.rng, []policy.Tier{policy.TierAdmin, policy.TierBaseline}), w.rng.Int32N(3)
	}
	for _, d := range policy.Directions {
		for range w.rng.IntN(4) {
			p.Rules[d] = append(p.Rules[d], w.rule(p.Tier))
		}
	}
	return p
}

func (w *world) mutateGroup(c *Compiler) {
	g := pick(w.rng, groupKeys)
	p := netip.MustParsePrefix(pick(w.rng, cidrs))
	if w.rng.IntN(2) > 0 {
		a := netip.MustParseAddr(pick(w.rng, universe))
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if w.groups[g] == nil {
		w.groups[g] = map[netip.Prefix]int{}
	}
	if w.groups[g][p] > 0 && w.rng.IntN(2) == 0 {
		if w.groups[g][p]--; w.groups[g][p] == 0 {
			delete(w.groups[g], p)
		}
		c.UpdateGroup(g, nil, []netip.Prefix{p})
	} else {
		w.groups[g][p]++
		c.UpdateGroup(g, []netip.Prefix{p}, nil)
	}
}

// mutate changes some addresses' groups, or one pod's policies, in the world and in the compiler.
func (w *world) mutate(c *Compiler) {
	switch w.rng.IntN(3) {
	case 0:
		for range 1 + w.rng.IntN(8) {
			w.mutateGroup(c)
		}
	default:
		key := fmt.Sprint("pod", w.rng.IntN(3))
		if w.rng.IntN(6) == 0 {
			delete(w.pods, key)
			c.DeletePod(key)
			return
		}
		spec := PodSpec{Addresses: podAddresses[key], Interfaces: []uint32{uint32(1 + w.rng.IntN(2))}, Flags: PodFlags(w.rng.IntN(2))}
		for range w.rng.IntN(4) {
			if len(w.policies) < 6 || w.rng.IntN(4) == 0 {
				w.policies = append(w.policies, w.newPolicy())
			}
			spec.AuditPolicies = append(spec.AuditPolicies, pick(w.rng, w.policies[max(0, len(w.policies)-6):]))
		}
		slices.SortFunc(spec.AuditPolicies, policy.Compare)
		spec.AuditPolicies = slices.Compact(spec.AuditPolicies)
		spec.Policies = policy.Enforced(spec.AuditPolicies)
		w.pods[key] = spec
		c.SetPod(key, spec)
	}
}

var podAddresses = map[string][]netip.Addr{
	"pod0": {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	"pod1": {netip.MustParseAddr("10.0.0.2")},
	"pod2": {netip.MustParseAddr("fd00:0:0:1::1"), netip.MustParseAddr("10.0.1.1")},
}

func (w *world) decision(d policy.Direction, f policy.Flow) (decision reference.Audit, isolated, audited bool) {
	var policies []*policy.Policy
	for _, p := range w.pods {
		if slices.Contains(p.Addresses, f.Self(d)) {
			policies = p.AuditPolicies
		}
	}
	isolated = slices.ContainsFunc(policies, func(p *policy.Policy) bool { return !p.Audited && p.Isolates[d] })
	return reference.EvaluateAudit(d, policies, f, w, nil), isolated, policy.IsAudited(d, policies)
}

func (w *world) flows(n int) []policy.Flow {
	out := make([]policy.Flow, n)
	for i := range out {
		f := policy.Flow{Protocol: pick(w.rng, []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, 47})}
		for ok := false; !ok; ok = f.Source.Is4() == f.Destination.Is4() {
			f.Source, f.Destination = netip.MustParseAddr(pick(w.rng, universe)), netip.MustParseAddr(pick(w.rng, universe))
		}
		if f.Protocol.HasPorts() {
			f.Port = pick(w.rng, ports)
		}
		out[i] = f
	}
	return out
}

func cloneMaps(t *Maps) *Maps {
	return &Maps{maps.Clone(t.Pods), maps.Clone(t.Addresses), maps.Clone(t.Networks), maps.Clone(t.Rows), maps.Clone(t.Ports), maps.Clone(t.Interfaces), maps.Clone(t.Domains), maps.Clone(t.Resolvers)}
}

// steps makes the writes one by one, in the order that Changes asks for, and calls check after each.
func (c *Changes) steps(t *Maps, check func()) {
	for _, k := range c.GoneInterfaces {
		delete(t.Interfaces, k)
		check()
	}
	apply(t.Ports, c.Ports, check)
	apply(t.Rows, c.Rows, check)
	apply(t.Addresses, c.Addresses, check)
	apply(t.Networks, c.Networks, check)
	for _, k := range c.GoneAddresses {
		delete(t.Addresses, k)
		check()
	}
	apply(t.Pods, c.Pods, check)
	apply(t.Interfaces, c.Interfaces, check)
	for _, k := range c.StaleRows {
		delete(t.Rows, k)
		check()
	}
	for _, k := range c.StalePorts {
		delete(t.Ports, k)
		check()
	}
}

func apply[K comparable, V any](m map[K]V, writes []Write[K, V], check func()) {
	for _, w := range writes {
		if w.Delete {
			delete(m, w.Key)
		} else {
			m[w.Key] = w.Value
		}
		check()
	}
}

// commit is Commit, or as many Steps as it takes.
func commit(c *Compiler, rng *rand.Rand) []Changes {
	if rng.IntN(2) == 0 {
		return []Changes{c.Commit()}
	}
	var out []Changes
	for {
		var first []string
		if rng.IntN(3) == 0 {
			first = append(first, fmt.Sprint("pod", rng.IntN(3)))
		}
		changes, more := c.Step(rng.IntN(12), first...)
		if out = append(out, changes); !more {
			return out
		}
		if rng.IntN(4) == 0 {
			out = append(out, c.Collect())
		}
	}
}

// TestMapsMeanWhatPoliciesMean changes a world at random and holds the maps against the reference evaluator: after each change
// every flow has the evaluator's decision and rule, and in the middle of a change it has that of before or of after.
func TestMapsMeanWhatPoliciesMean(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			w := &world{rng: rng, groups: map[policy.GroupKey]map[netip.Prefix]int{}, pods: map[string]PodSpec{}}
			budget := DefaultBudget
			if seed%2 == 1 {
				budget.Ports = 4000 // so that most sets are measured, and all fit
			}
			c := New(WithBudget(budget))
			mirror := cloneMaps(c.Maps())
			for range 60 {
				flows := w.flows(30)
				before := decideAll(mirror, flows)
				w.mutate(c)
				steps := commit(c, rng)
				after := decideAll(c.Maps(), flows)
				var narrowed Narrowed
				for i := range steps {
					steps[i].steps(mirror, func() { checkBetween(t, mirror, flows, before, after) })
					narrowed.Addresses = append(narrowed.Addresses, steps[i].Narrowed.Addresses...)
					narrowed.Everything = narrowed.Everything || steps[i].Narrowed.Everything
				}
				checkEqual(t, "mirror", mirror, c.Maps())
				checkAgainstReference(t, c, w, flows)
				checkNarrowed(t, narrowed, flows, before, after)
				checkUsage(t, c)
				if problems := c.Problems(); len(problems) > 0 {
					t.Fatalf("%+v", problems)
				}
				if rng.IntN(3) == 0 {
					collected := c.Collect()
					collected.steps(mirror, func() { checkBetween(t, mirror, flows, after, after) })
					checkEqual(t, "mirror after Collect", mirror, c.Maps())
				}
				if t.Failed() {
					return
				}
			}
			checkNothingLeft(t, c, w)
		})
	}
}

// decided is by direction what becomes of a flow, and after that what would become of it if audited policies were enforced.
type decided [4]Decision

func decideAll(t *Maps, flows []policy.Flow) []decided {
	out := make([]decided, len(flows))
	for i, f := range flows {
		for _, d := range policy.Directions {
			out[i][d], _ = t.Lookup(d, f)
			out[i][2+d], _ = t.LookupAudit(d, f)
		}
	}
	return out
}

func checkBetween(t *testing.T, m *Maps, flows []policy.Flow, before, after []decided) {
	t.Helper()
	for i, now := range decideAll(m, flows) {
		for d := range now {
			if now[d] != before[i][d] && now[d] != after[i][d] {
				t.Errorf("%d %v: %v in the middle of a change from %v to %v", d, flows[i], now[d], before[i][d], after[i][d])
			}
		}
	}
}

func checkAgainstReference(t *testing.T, c *Compiler, w *world, flows []policy.Flow) {
	t.Helper()
	for _, f := range flows {
		for _, d := range policy.Directions {
			want, wantIsolated, wantAudited := w.decision(d, f)
			got, isolated := c.Maps().Lookup(d, f)
			checkDecision(t, c, d, f, got, &want.Enforced)
			all, audited := c.Maps().LookupAudit(d, f)
			if audited {
				checkDecision(t, c, d, f, all, &want.All)
			} else if want.Differs() {
				t.Errorf("%v %v: %+v, and no policy is audited", d, f, want)
			}
			if isolated != wantIsolated || audited != wantAudited {
				t.Errorf("%v %v: isolated %v and audited %v, by the policies %v and %v", d, f, isolated, audited, wantIsolated, wantAudited)
			}
		}
	}
}

func checkDecision(t *testing.T, c *Compiler, d policy.Direction, f policy.Flow, got Decision, want *reference.Decision[policy.Policy]) {
	t.Helper()
	if got.Action != want.Action || got.Tier != want.Tier {
		t.Errorf("%v %v: maps decide %v, the policies %v", d, f, got, want)
		return
	}
	ref, known := c.Rule(got.Rule)
	if known != (want.Policy != nil) || known && (ref.Policy.ID != want.Policy.ID || ref.Rule != want.Rule || ref.Direction != d) {
		t.Errorf("%v %v: maps name %v, the policies %v rule %d", d, f, ref, want.Policy, want.Rule)
	}
}

// checkNarrowed: a flow that was allowed and is not any more has an end that Narrowed names.
func checkNarrowed(t *testing.T, n Narrowed, flows []policy.Flow, before, after []decided) {
	t.Helper()
	for i, f := range flows {
		for _, d := range policy.Directions {
			if before[i][d].Action == policy.Allow && after[i][d].Action == policy.Deny && !n.Everything &&
				!slices.Contains(n.Addresses, f.Source) && !slices.Contains(n.Addresses, f.Destination) {
				t.Errorf("%v %v lost what allowed it, and is not in %v", d, f, n)
			}
		}
	}
}

func checkEqual(t *testing.T, what string, got, want *Maps) {
	t.Helper()
	if !maps.Equal(got.Pods, want.Pods) || !maps.Equal(got.Addresses, want.Addresses) || !maps.Equal(got.Networks, want.Networks) ||
		!maps.Equal(got.Rows, want.Rows) || !maps.Equal(got.Ports, want.Ports) || !maps.Equal(got.Interfaces, want.Interfaces) {
		t.Errorf("%s: the changes lead to\n%v\nnot to\n%v", what, got, want)
	}
}

// checkNothingLeft takes everything away and looks for what stays.
func checkNothingLeft(t *testing.T, c *Compiler, w *world) {
	t.Helper()
	for key := range w.pods {
		c.DeletePod(key)
	}
	for g, members := range w.groups {
		for p, n := range members {
			for range n {
				c.UpdateGroup(g, nil, []netip.Prefix{p})
			}
		}
	}
	c.Commit()
	for range 4 {
		c.Collect()
	}
	m := c.Maps()
	if n := len(m.Pods) + len(m.Addresses) + len(m.Networks) + len(m.Rows) + len(m.Ports) + len(m.Interfaces); n > 0 {
		t.Errorf("%d entries are left: %v", n, m)
	}
	if n := len(c.members) + len(c.pods) + len(c.atoms) + len(c.hosts) + c.nets.Size() + len(c.sets) + len(c.bySet) +
		len(c.versions) + len(c.rules) + len(c.portLists) + len(c.byPortList) + len(c.classes) + len(c.forest.leaves) + len(c.forest.branches); n > 0 {
		t.Errorf("the compiler still remembers something: %+v", c)
	}
}
