package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// Difference is what two clusters differ in.
type Difference struct {
	Added   []string `json:"added"` // policies, as namespace/name
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	// Pairs of workloads that reach each other on other ports than before.
	Pairs []Pair `json:"pairs"`
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
	// Addresses is how many addresses outside the cluster From or To stands for, where it is those, and Parts are their ranges.
	Addresses *big.Int `json:"addresses,omitempty"`
	Parts     []Part   `json:"parts,omitempty"`
}

// Empty reports whether there is no difference.
func (d *Difference) Empty() bool {
	return len(d.Added)+len(d.Changed)+len(d.Removed)+len(d.Pairs) == 0
}

// NewDifference between a cluster before and after, by exact sets of ports. Addresses outside the cluster are compared too: all parts into
// which the ipBlocks of both sides cut the address space and, each on its own, those of outside.
func NewDifference(before, after *Cluster, outside ...netip.Addr) *Difference {
	d := &Difference{Added: []string{}, Changed: []string{}, Removed: []string{}, Pairs: []Pair{}}
	changed := d.policies(before.Policies, after.Policies)
	e, f := NewEvaluator(before), NewEvaluator(after)
	outside = slices.DeleteFunc(slices.Clone(outside), func(a netip.Addr) bool { return e.PodAt(a) != nil || f.PodAt(a) != nil }) // told as the pod
	blocks := append(blocksOf(before.Policies), blocksOf(after.Policies)...)
	parts := f.possibleParts(blocks)
	if parts[0] == nil {
		parts = e.possibleParts(blocks)
	}
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
	moves := map[Workload][]move{}
	for _, w := range both {
		moves[w] = movesOf(old, now, w, changed)
	}
	for _, from := range both {
		for _, to := range both {
			if from.Kind == "Address" && to.Kind == "Address" {
				continue
			}
			if p := pair(from, to, moves[from], moves[to]); p.differs() {
				d.Pairs = append(d.Pairs, p)
			}
		}
	}
	space := partsOutside(old, now, blocks)
	for _, w := range both {
		if w.Kind != "Address" {
			d.outside(w, moves[w], space)
		}
	}
	return d
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
				return p.From.Kind == q.From.Kind && p.From.Namespace == q.From.Namespace && q.Some == p.Some && q.Depends == p.Depends &&
					q.Gained.equal(p.Gained) && q.Lost.equal(p.Lost)
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

// move is where a pod's address was and is.
type move struct {
	addr     netip.Addr
	old, now *place
	// moved: it may be judged otherwise than before as a peer; ruled, by direction: by its own policies.
	moved bool
	ruled [2]bool
	pods  int
}

// movesOf are the different moves of a workload's addresses.
func movesOf(old, now *Reach, w Workload, changed map[string]bool) []move {
	was := addresses(old.evaluator, w)
	var out []move
	for addr, pod := range addresses(now.evaluator, w) {
		m := move{addr: addr, now: now.place(addr, pod), pods: 1}
		if p, ok := was[addr]; ok {
			m.old = old.place(addr, p)
		} else if like := old.groups[w].like(m.now); like != nil { // a pod more: as the others were
			m.old = like
		} else {
			continue
		}
		i := slices.IndexFunc(out, func(n move) bool { return n.old == m.old && n.now == m.now })
		if i >= 0 {
			out[i].pods++
			continue
		}
		m.moved = !sameLooks(m.old, m.now)
		for _, d := range policy.Directions {
			m.ruled[d] = m.moved || m.old.isolated[d] != m.now.isolated[d] || m.now.pod != nil && changed[m.now.pod.Namespace]
		}
		out = append(out, m)
	}
	return out
}

// like is a place of the same family.
func (g *group) like(p *place) *place {
	for _, s := range g.places {
		if s.addr.Is4() == p.addr.Is4() {
			return s.place
		}
	}
	return nil
}

// addresses of a workload, each with the pod that it is judged as: another workload's, where both have the address.
func addresses(e *Evaluator, w Workload) map[netip.Addr]*Pod {
	out, c := map[netip.Addr]*Pod{}, e.Cluster()
	if w.Kind == "Address" {
		out[netip.MustParseAddr(w.Name)] = nil
		return out
	}
	i, _ := slices.BinarySearchFunc(c.Pods, w, func(p Pod, w Workload) int { return p.Workload.Compare(w) })
	for ; i < len(c.Pods) && c.Pods[i].Workload == w; i++ {
		if !policy.IsPeer(&c.Pods[i].Pod) {
			continue
		}
		for _, a := range policy.PodAddresses(&c.Pods[i].Pod) {
			out[a] = e.PodAt(a)
		}
	}
	return out
}

// sameLooks reports whether a place's pod and namespace look the same to every selector.
func sameLooks(a, b *place) bool {
	if a.pod == nil || b.pod == nil {
		return a.pod == b.pod
	}
	return equalJSON(a.pod.Labels, b.pod.Labels) && equalJSON(a.namespace, b.namespace) &&
		slices.Equal(policy.ContainerPorts(a.pod), policy.ContainerPorts(b.pod))
}

func equalJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func pair(from, to Workload, sources, destinations []move) Pair {
	p := Pair{From: from, To: to}
	unchanged := false
	for i, a := range sources {
		for j, b := range destinations {
			if a.addr.Is4() != b.addr.Is4() || a.now.assumed && b.now.assumed || from == to && i == j && b.pods == 1 {
				continue
			}
			if !a.ruled[policy.Egress] && !b.ruled[policy.Ingress] && !a.moved && !b.moved {
				unchanged = true
				continue
			}
			unchanged = p.compare(a, b) || unchanged
		}
	}
	p.Some = unchanged
	return p
}

// compare the ports on which a reached b and reaches it now. It reports whether they are the same.
func (p *Pair) compare(a, b move) (unchanged bool) {
	unchanged = true
	for _, i := range intervals([2]*place{a.old, b.old}, [2]*place{a.now, b.now}) {
		port := i.port()
		was := allowed{a.old.accepts(policy.Egress, b.old, port), b.old.accepts(policy.Ingress, a.old, port)}
		is := allowed{a.now.accepts(policy.Egress, b.now, port), b.now.accepts(policy.Ingress, a.now, port)}
		if some, all := is.minus(was); some {
			p.Gained.add(i)
			p.Depends, unchanged = p.Depends || !all, false
		}
		if some, all := was.minus(is); some {
			p.Lost.add(i)
			p.Depends, unchanged = p.Depends || !all, false
		}
	}
	return unchanged
}

// allowed are the parts of the destination's addresses that egress allows, and those of the source's that ingress allows.
type allowed struct{ egress, ingress bits }

func (a allowed) never() bool { return a.egress.none() || a.ingress.none() }

// minus reports whether a allows what b does not for some of the addresses, and whether it does so for all.
func (a allowed) minus(b allowed) (some, all bool) {
	if a.never() || !b.never() && a.egress.within(b.egress) && a.ingress.within(b.ingress) {
		return false, false
	}
	return true, a.egress.all && a.ingress.all && b.never()
}

// policies notes which were added, changed and removed, and returns the namespaces where any was.
func (d *Difference) policies(before, after []networkingv1.NetworkPolicy) map[string]bool {
	changed := map[string]bool{}
	was := map[string]*networkingv1.NetworkPolicy{}
	for i := range before {
		was[before[i].Namespace+"/"+before[i].Name] = &before[i]
	}
	for i := range after {
		np := &after[i]
		key := np.Namespace + "/" + np.Name
		old := was[key]
		delete(was, key)
		switch {
		case old == nil:
			d.Added = append(d.Added, key)
		case !equalJSON(normal(old), normal(np)):
			d.Changed = append(d.Changed, key)
		default:
			continue
		}
		changed[np.Namespace] = true
	}
	for key, np := range was {
		d.Removed = append(d.Removed, key)
		changed[np.Namespace] = true
	}
	slices.Sort(d.Removed)
	return changed
}

// normal is a spec with the API server's defaults, so that a manifest equals what became of it.
func normal(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicySpec {
	spec := np.Spec.DeepCopy()
	isolates := policy.PolicyTypes(np)
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
