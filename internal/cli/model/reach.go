package model

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// Reach answers for whole workloads.
type Reach struct {
	evaluator *Evaluator
	places    map[string]*place // by looks
	groups    map[Workload]*group
	looks     *looks
	parts     bothParts // of IPv4 and IPv6 addresses of pods that are not known
	count     int       // of all places
}

// group is a workload's places.
type group struct {
	workload Workload
	places   []share
}

// share is a place and the number of addresses that a workload has there.
type share struct {
	*place
	addresses int
}

func (g *group) add(p *place) {
	for i := range g.places {
		if g.places[i].place == p {
			g.places[i].addresses++
			return
		}
	}
	g.places = append(g.places, share{p, 1})
}

// Verdict of a workload's pods.
type Verdict uint8

// The verdicts.
const (
	NotAsked Verdict = iota // there is no flow to ask about
	Allowed
	Denied
	Partial // some pods, or one of two families
	Depends // on the address of a pod, which is not known
)

func (v Verdict) String() string {
	return [...]string{"", "allowed", "denied", "partial", "depends"}[v]
}

// MarshalText makes a Verdict a string in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Outside is what is no pod: an address, by which policies know it.
func Outside(addr netip.Addr) Workload { return Workload{Kind: "Address", Name: addr.String()} }

// DomainName is a host outside the cluster, by its DNS name.
func DomainName(name string) Workload { return Workload{Kind: "DomainName", Name: name} }

// IsOutside reports whether a workload stands for an address or a name outside the cluster.
func (w Workload) IsOutside() bool { return w.Kind == "Address" || w.Kind == "DomainName" }

// NewReach of a cluster, and of addresses outside it.
func NewReach(c *Cluster, outside ...netip.Addr) *Reach {
	e := NewEvaluator(c)
	return newReach(e, e.possibleParts(blocksOf(c)), outside)
}

func newReach(e *Evaluator, parts bothParts, outside []netip.Addr) *Reach {
	c := e.Cluster()
	r := &Reach{evaluator: e, places: map[string]*place{}, groups: map[Workload]*group{}, looks: newLooks(c), parts: parts}
	for i := range c.Pods {
		pod := &c.Pods[i]
		if !policy.IsPeer(&pod.Pod) {
			continue
		}
		g := r.group(pod.Workload)
		for _, addr := range policy.PodAddresses(&pod.Pod) {
			g.add(r.place(addr, e.PodAt(addr)))
		}
	}
	for _, addr := range outside {
		r.group(Outside(addr)).add(r.place(addr, e.PodAt(addr)))
	}
	r.judge(e)
	return r
}

// addNames adds hosts outside the cluster, whose addresses the node has learned, by their names in canonical form. Where an address is not given,
// it may be any, and rules about networks may depend on it.
func (r *Reach) addNames(names map[string][]netip.Addr) {
	e := r.evaluator
	var any bothParts
	for name, addrs := range names {
		g := r.group(DomainName(name))
		for _, addr := range addrs {
			g.add(&place{index: r.nextIndex(), addr: addr, name: name})
		}
		if len(addrs) > 0 {
			continue
		}
		for f, is4 := range [2]bool{true, false} {
			addr := PlaceholderOf(is4)
			if !e.cluster.HasFamily(addr) {
				continue
			}
			if any[f] == nil {
				any[f] = e.partsOf(outsideSpace(is4), blocksOf(e.cluster), noPods...)
			}
			g.add(&place{index: r.nextIndex(), addr: addr, name: name, parts: any[f]})
		}
	}
}

// nextIndex is the index of another place.
func (r *Reach) nextIndex() int {
	r.count++
	return r.count - 1
}

func (r *Reach) group(w Workload) *group {
	g := r.groups[w]
	if g == nil {
		g = &group{workload: w}
		r.groups[w] = g
	}
	return g
}

func (r *Reach) place(addr netip.Addr, pod *Pod) *place {
	family := "6 "
	if addr.Is4() {
		family = "4 "
	}
	var object *corev1.Pod
	var parts *possibleParts
	known := addr
	if pod != nil {
		if object = &pod.Pod; pod.Invented {
			family, known, parts = "? "+family, netip.Addr{}, r.parts[familyOf(addr)]
		}
	}
	key := family + r.looks.of(known, object)
	p := r.places[key]
	if p == nil {
		p = &place{index: r.nextIndex(), addr: addr, pod: object, parts: parts}
		p.assumed = parts != nil && addr.Is6() && r.evaluator.Cluster().assumed6
		r.places[key] = p
	}
	return p
}

// judge finds the policies that select each place.
func (r *Reach) judge(e *Evaluator) {
	shared := map[string][2][][]*rule{} // by namespace, the rules of each of its policies
	cluster := r.clusterRules(e.Cluster())
	for _, p := range r.places {
		pod := p.pod
		if pod == nil {
			continue
		}
		if ns := e.Namespace(pod.Namespace); ns != nil {
			p.namespace = ns.Labels
		}
		policies := e.Policies(pod.Namespace)
		all, ok := shared[pod.Namespace]
		if !ok {
			for i := range policies {
				for _, d := range policy.Directions {
					var rules []*rule
					for n, cr := range netpol.Rules(d, &policies[i]) {
						rules = append(rules, newRule(&policies[i], n, cr, len(r.places)))
					}
					all[d] = append(all[d], rules)
				}
			}
			shared[pod.Namespace] = all
		}
		for i := range policies {
			for _, d := range policy.Directions {
				if netpol.Selects(d, &policies[i], pod) {
					p.isolated[d] = true
					p.rules[d][policy.TierNetworkPolicy] = append(p.rules[d][policy.TierNetworkPolicy], all[d][i]...)
				}
			}
		}
		for _, c := range cluster {
			if c.subject.Matches(netip.Addr{}, pod, p.namespace) {
				for _, d := range policy.Directions {
					p.rules[d][c.tier] = append(p.rules[d][c.tier], c.rules[d]...)
				}
			}
		}
	}
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

// Verdict says whether pods of one workload reach a port of another's. NotAsked: they have no family in common, or the only pod
// of both is the same.
func (r *Reach) Verdict(from, to Workload, port Port) Verdict {
	return r.groups[from].verdict(r.groups[to], port)
}

func (g *group) verdict(to *group, port Port) Verdict {
	allowed, denied, depends := false, false, false
	g.eachPair(to, func(a, b *place) bool {
		out, in := a.accepts(policy.Egress, b, port), b.accepts(policy.Ingress, a, port)
		switch {
		case out.none() || in.none():
			denied = true
		case out.all && in.all:
			allowed = true
		default:
			depends = true
		}
		return !depends
	})
	switch {
	case depends:
		return Depends
	case allowed && denied:
		return Partial
	case allowed:
		return Allowed
	case denied:
		return Denied
	}
	return NotAsked
}

// eachPair yields the pairs of places that connections can be between, until yield returns false.
func (g *group) eachPair(to *group, yield func(a, b *place) bool) {
	if g == nil || to == nil || g.workload.IsOutside() && to.workload.IsOutside() {
		return
	}
	for _, a := range g.places {
		for _, b := range to.places {
			if a.addr.Is4() != b.addr.Is4() || a.assumed && b.assumed || g == to && a.place == b.place && b.addresses == 1 {
				continue
			}
			if !yield(a.place, b.place) {
				return
			}
		}
	}
}

// Isolated says in which directions all, some or none of a workload's pods are isolated, or denied something by a ClusterNetworkPolicy.
func (r *Reach) Isolated(w Workload) (out [2]Verdict) {
	for _, d := range policy.Directions {
		for _, p := range r.groups[w].places {
			v := Denied
			if p.isolated[d] || p.denies(d) {
				v = Allowed
			}
			if out[d] != NotAsked && out[d] != v {
				v = Partial
			}
			out[d] = v
		}
	}
	return out
}

// Workloads in order, those outside last.
func (r *Reach) Workloads() []Workload {
	var out []Workload
	for w := range r.groups {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Workload) int {
		if a.IsOutside() != b.IsOutside() {
			if a.IsOutside() {
				return 1
			}
			return -1
		}
		return a.Compare(b)
	})
	return out
}

// Distinct are the pods less those that nothing tells apart from another of the same workload: one of each kind. Pods on the host's
// network are among them; those that have ended are not.
func (c *Cluster) Distinct() []*Pod {
	looks := newLooks(c)
	seen := map[string]bool{}
	var out []*Pod
	for i := range c.Pods {
		p := &c.Pods[i]
		key := p.Workload.Kind + " " + p.Workload.Name + " " + looks.of(netip.Addr{}, &p.Pod)
		if policy.IsPeer(&p.Pod) {
			for _, a := range policy.PodAddresses(&p.Pod) {
				key += looks.of(a, nil)
			}
		} else if !p.Spec.HostNetwork {
			continue
		}
		if !seen[key] {
			seen[key] = true
			out = append(out, p)
		}
	}
	return out
}
