package model

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"

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
}

// Empty reports whether there is no difference.
func (d *Difference) Empty() bool {
	return len(d.Added)+len(d.Changed)+len(d.Removed)+len(d.Pairs) == 0
}

// NewDifference between a cluster before and after, by exact sets of ports. Addresses outside are asked about too.
func NewDifference(before, after *Cluster, outside ...netip.Addr) *Difference {
	d := &Difference{Added: []string{}, Changed: []string{}, Removed: []string{}, Pairs: []Pair{}}
	changed := d.policies(before.Policies, after.Policies)
	e, f := NewEvaluator(before), NewEvaluator(after)
	outside = slices.DeleteFunc(slices.Clone(outside), func(a netip.Addr) bool { return e.PodAt(a) != nil || f.PodAt(a) != nil }) // told as the pod
	old, now := newReach(e, outside), newReach(f, outside)
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
			if p := pair(from, to, moves[from], moves[to]); !p.Gained.Empty() || !p.Lost.Empty() {
				d.Pairs = append(d.Pairs, p)
			}
		}
	}
	return d
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
		} else if g := old.groups[w]; g != nil { // a pod more: as the others were
			m.old = g.places[0].place
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
			if a.addr.Is4() != b.addr.Is4() || from == to && i == j && b.pods == 1 {
				continue
			}
			if !a.ruled[policy.Egress] && !b.ruled[policy.Ingress] && !a.moved && !b.moved {
				unchanged = true
				continue
			}
			was, is := ports(a.old, b.old), ports(a.now, b.now)
			gained, lost := is.Minus(was), was.Minus(is)
			unchanged = unchanged || gained.Empty() && lost.Empty()
			p.Gained, p.Lost = p.Gained.Plus(gained), p.Lost.Plus(lost)
		}
	}
	p.Some = unchanged
	return p
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
