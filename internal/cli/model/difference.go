package model

import (
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// Difference is what two clusters differ in.
type Difference struct {
	Added   []string `json:"added"` // policies, as namespace/name or "ClusterNetworkPolicy name"
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	// Pairs of workloads that reach each other on other ports than before.
	Pairs []Pair `json:"pairs"`
	// Names are the DNS names that workloads may reach on other ports than before. Pairs do not include them.
	Names []NameChange `json:"names,omitempty"`
	// Total of Pairs.
	Total Total `json:"total"`
	// AssumesPrivate: if pods whose addresses are not known had public ones, more or other pairs could differ.
	AssumesPrivate bool `json:"assumesPrivate,omitempty"`
	// New and Gone are workloads that only one of the clusters has: no pair of theirs is compared.
	New  []Workload `json:"newWorkloads,omitempty"`
	Gone []Workload `json:"goneWorkloads,omitempty"`
}

// Pair is what one workload gains and loses at another.
type Pair struct {
	From   Workload `json:"from"`
	To     Workload `json:"to"`
	Gained PortSet  `json:"gained"`
	Lost   PortSet  `json:"lost"`
	// Some: not all pods of the two gain or lose this.
	Some bool `json:"some,omitempty"`
	// Depends: they gain or lose this for some of the addresses that their pods may have. Theirs are not known.
	Depends bool `json:"depends,omitempty"`
	// AssumesPrivate: this is only right if pods whose addresses are not known have private ones.
	AssumesPrivate bool `json:"assumesPrivate,omitempty"`
	// Addresses is how many addresses outside the cluster From or To stands for, where it is those, and Parts are their ranges.
	Addresses *big.Int `json:"addresses,omitempty"`
	Parts     []Part   `json:"parts,omitempty"`
}

// Total of a Difference.
type Total struct {
	Gained Sum `json:"gained"`
	Lost   Sum `json:"lost"`
}

// Sum of the pairs that gain or lose ports.
type Sum struct {
	// Pairs of workloads, or of a workload and a single address that was asked about.
	Pairs int `json:"pairs"`
	// IPv4 and IPv6 are how many addresses outside the cluster gain or lose ports at any workload, or any workload at them.
	IPv4 *big.Int `json:"ipv4Addresses"`
	IPv6 *big.Int `json:"ipv6Addresses"`
}

// Empty reports whether there is no difference.
func (d *Difference) Empty() bool {
	return len(d.Added)+len(d.Changed)+len(d.Removed)+len(d.Pairs) == 0
}

// NewDifference between a cluster before and after, by exact sets of ports. Addresses outside the cluster are compared too: all parts into
// which the ipBlocks of both sides cut the address space and, each on its own, those of outside.
func NewDifference(before, after *Cluster, outside ...netip.Addr) *Difference {
	d := &Difference{Added: []string{}, Changed: []string{}, Removed: []string{}, Pairs: []Pair{}}
	changed := d.policies(before, after)
	e, f := NewEvaluator(before), NewEvaluator(after)
	outside = slices.DeleteFunc(slices.Clone(outside), func(a netip.Addr) bool { return e.PodAt(a) != nil || f.PodAt(a) != nil }) // listed as the pod
	blocks := blocksOf(before, after)
	parts := either(f.possibleParts(blocks), e.possibleParts(blocks))
	old, now := newReach(e, parts, outside), newReach(f, parts, outside)
	var both []Workload
	for _, w := range now.Workloads() {
		if old.groups[w] == nil {
			d.New = append(d.New, w)
		} else {
			both = append(both, w)
		}
	}
	for _, w := range old.Workloads() {
		if now.groups[w] == nil {
			d.Gone = append(d.Gone, w)
		}
	}
	d.Names = nameChanges(e, f, both)
	moves := allMoves(old, now, both, changed)
	d.Pairs = pairs(both, moves)
	if wide := either(f.wideParts(blocks), e.wideParts(blocks)); wide != (bothParts{}) {
		d.markAssumed(pairs(both, allMoves(newReach(e, wide, outside), newReach(f, wide, outside), both, changed)))
	}
	space := partsOutside(old, now, blocks)
	for _, w := range both {
		if w.Kind != "Address" {
			d.outside(w, moves[w], space)
		}
	}
	d.Total = total(d.Pairs)
	return d
}

func either(a, b bothParts) bothParts {
	if a == (bothParts{}) {
		return b
	}
	return a
}

func allMoves(old, now *Reach, workloads []Workload, changed map[string]bool) map[Workload][]move {
	out := map[Workload][]move{}
	for _, w := range workloads {
		out[w] = movesOf(old, now, w, changed)
	}
	return out
}

// pairs of workloads that differ.
func pairs(workloads []Workload, moves map[Workload][]move) []Pair {
	out := []Pair{}
	for _, from := range workloads {
		for _, to := range workloads {
			if from.Kind == "Address" && to.Kind == "Address" {
				continue
			}
			if p := pair(from, to, moves[from], moves[to]); p.differs() {
				out = append(out, p)
			}
		}
	}
	return out
}

// markAssumed marks the pairs that differ otherwise where pods may have public addresses too.
func (d *Difference) markAssumed(wide []Pair) {
	type key struct{ from, to Workload }
	others := map[key]*Pair{}
	for i := range wide {
		others[key{wide[i].From, wide[i].To}] = &wide[i]
	}
	for i := range d.Pairs {
		p := &d.Pairs[i]
		at := key{p.From, p.To}
		if w := others[at]; w == nil || !p.equal(w) {
			p.AssumesPrivate, d.AssumesPrivate = true, true
		}
		delete(others, at)
	}
	d.AssumesPrivate = d.AssumesPrivate || len(others) > 0
}

func (p *Pair) equal(q *Pair) bool {
	return p.Some == q.Some && p.Depends == q.Depends && p.Gained.equal(q.Gained) && p.Lost.equal(q.Lost)
}

func total(pairs []Pair) Total {
	sum := func(of func(*Pair) PortSet) Sum {
		out := Sum{IPv4: new(big.Int), IPv6: new(big.Int)}
		var parts []Part
		for i := range pairs {
			switch p := &pairs[i]; {
			case of(p).Empty():
			case len(p.Parts) > 0:
				parts = append(parts, p.Parts...)
			default:
				out.Pairs++
			}
		}
		for _, p := range union(parts) {
			n := out.IPv6
			if p.First.Is4() {
				n = out.IPv4
			}
			n.Add(n, p.Count())
		}
		return out
	}
	return Total{sum(func(p *Pair) PortSet { return p.Gained }), sum(func(p *Pair) PortSet { return p.Lost })}
}

func (p *Pair) differs() bool { return !p.Gained.Empty() || !p.Lost.Empty() }

// ranges are parts of the address space that policies do not tell apart.
type ranges struct {
	parts []Part
	move  move
}

// partsOutside are the parts of the address space that the blocks cut, those that are judged alike together.
func partsOutside(old, now *Reach, blocks []netip.Prefix) []*ranges {
	var out []*ranges
	at := map[[2]*place]*ranges{}
	c := now.evaluator.Cluster()
	for _, space := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		is4 := space.Addr().Is4()
		named := slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Addr().Is4() == is4 })
		if is4 && !c.Addressing.IPv4 || !is4 && (!c.Addressing.IPv6 || c.assumed6 && !named) {
			continue
		}
		for _, part := range Parts([]netip.Prefix{space}, blocks) {
			addr, ok := outsideOf(part, old.evaluator, now.evaluator)
			if !ok {
				continue
			}
			m := move{addr: addr, old: old.place(addr, nil), now: now.place(addr, nil), pods: 2}
			key := [2]*place{m.old, m.now}
			if at[key] == nil {
				at[key] = &ranges{move: m}
				out = append(out, at[key])
			}
			at[key].parts = append(at[key].parts, part)
		}
	}
	return out
}

// outsideOf a part is an address that is no pod's.
func outsideOf(p Part, e, f *Evaluator) (netip.Addr, bool) {
	for addr := p.First; addr.IsValid() && !p.Last.Less(addr); addr = addr.Next() {
		if e.PodAt(addr) == nil && f.PodAt(addr) == nil {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// outside adds what addresses outside the cluster gain and lose at a workload, and it at them. Ranges with the same difference are one pair.
func (d *Difference) outside(w Workload, moves []move, space []*ranges) {
	var found []Pair
	for _, r := range space {
		for _, p := range []Pair{pair(Workload{Kind: "Address"}, w, []move{r.move}, moves), pair(w, Workload{Kind: "Address"}, moves, []move{r.move})} {
			if !p.differs() {
				continue
			}
			i := slices.IndexFunc(found, func(q Pair) bool {
				return p.From.Kind == q.From.Kind && p.From.Namespace == q.From.Namespace && p.equal(&q)
			})
			if i < 0 {
				i = len(found)
				found = append(found, p)
			}
			found[i].Parts = append(found[i].Parts, r.parts...)
		}
	}
	for _, p := range found {
		slices.SortFunc(p.Parts, func(a, b Part) int { return a.First.Compare(b.First) })
		p.Parts = join(p.Parts)
		p.Addresses = new(big.Int)
		for _, part := range p.Parts {
			p.Addresses.Add(p.Addresses, part.Count())
		}
		at := &p.From
		if p.From == w {
			at = &p.To
		}
		at.Name = describeParts(p.Parts)
		d.Pairs = append(d.Pairs, p)
	}
}

// join ranges that follow each other.
func join(parts []Part) []Part {
	var out []Part
	for _, p := range parts {
		if n := len(out); n > 0 && out[n-1].Last.Next() == p.First {
			out[n-1].Last = p.Last
			continue
		}
		out = append(out, p)
	}
	return out
}

// mostRanges is how many ranges of addresses a text lists.
const mostRanges = 3

func describeParts(parts []Part) string {
	var out []string
	for i, p := range parts {
		if i == mostRanges {
			out = append(out, fmt.Sprintf("%d more ranges", len(parts)-i))
			break
		}
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// policies notes which were added, changed and removed, and returns the namespaces where any was, and the ClusterNetworkPolicies by Describe.
func (d *Difference) policies(before, after *Cluster) map[string]bool {
	changed := map[string]bool{}
	was, is := specs(before), specs(after)
	for _, key := range slices.Sorted(maps.Keys(is)) {
		old, there := was[key]
		switch {
		case !there:
			d.Added = append(d.Added, key)
		case old.audited != is[key].audited || !equalJSON(old.spec, is[key].spec):
			d.Changed = append(d.Changed, key)
		default:
			continue
		}
		changed[is[key].scope] = true
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if _, there := is[key]; !there {
			d.Removed = append(d.Removed, key)
			changed[was[key].scope] = true
		}
	}
	return changed
}

// scoped is the spec of a policy, and the namespace where it counts; of a ClusterNetworkPolicy, which counts everywhere, itself.
type scoped struct {
	audited bool
	spec    any
	scope   string
}

// specs of all policies: of NetworkPolicies by namespace/name, of ClusterNetworkPolicies by Describe.
func specs(c *Cluster) map[string]scoped {
	out := map[string]scoped{}
	for i := range c.Policies {
		np := &c.Policies[i]
		out[np.Namespace+"/"+np.Name] = scoped{isAuditedNetworkPolicy(*np), normal(np), np.Namespace}
	}
	for i := range c.ClusterPolicies {
		key := Describe(ClusterPolicyKind, &c.ClusterPolicies[i])
		out[key] = scoped{isAudited(c.ClusterPolicies[i]), c.ClusterPolicies[i].Spec, key}
	}
	return out
}

// normal is a spec with the API server's defaults, so that a manifest equals what became of it.
func normal(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicySpec {
	spec := np.Spec.DeepCopy()
	isolates := netpol.PolicyTypes(np)
	spec.PolicyTypes = nil
	if isolates[policy.Ingress] {
		spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	}
	if isolates[policy.Egress] {
		spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
	for i := range spec.Ingress {
		defaultProtocols(spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		defaultProtocols(spec.Egress[i].Ports)
	}
	return spec
}

func defaultProtocols(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			p := corev1.ProtocolTCP
			ports[i].Protocol = &p
		}
	}
}
