package resolver

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// pod is a pod and the matchers that select it.
type pod struct {
	Pod
	addresses []address
	in        []*matcher
}

func (r *Resolver) newPod(p *Pod) *pod { return &pod{Pod: *p, addresses: r.addressesOf(p)} }

// isPeer reports whether peer selectors can select the pod. They select a terminating pod until it is
// deleted.
func (p *pod) isPeer() bool { return len(p.addresses) > 0 && !p.HostNetwork && !p.isFinal() }

func (p *pod) equal(q *pod) bool {
	return p.UID == q.UID && p.Node == q.Node && p.isFinal() == q.isFinal() && slices.Equal(p.Addresses, q.Addresses) &&
		p.HostNetwork == q.HostNetwork && maps.Equal(p.Labels, q.Labels) && slices.Equal(p.addresses, q.addresses) && slices.Equal(p.Ports, q.Ports)
}

// eachGroup yields the groups that the pod's addresses are in.
func (p *pod) eachGroup(yield func(*group)) {
	for _, m := range p.in {
		if m.group != nil && m.group.isIn(p) {
			yield(m.group)
		}
		if len(m.byPort) == 0 {
			continue
		}
		for _, port := range p.Ports {
			for _, g := range m.byPort[port] {
				if g.isIn(p) {
					yield(g)
				}
			}
		}
	}
}

// counted is the number of addresses with which the pod can be in a group.
func (p *pod) counted() int {
	if !p.isPeer() {
		return 0
	}
	return len(p.addresses)
}

// has reports whether the pod gives a number to a name.
func (p *pod) has(name portName) bool {
	for _, port := range p.Ports {
		if port.Name == name.name && port.Protocol == name.protocol {
			return true
		}
	}
	return false
}

// eachNumber yields the numbers that the pod gives to a name.
func (p *pod) eachNumber(name portName, yield func(uint16)) {
	for _, port := range p.Ports {
		if port.Name == name.name && port.Protocol == name.protocol {
			yield(port.Port)
		}
	}
}

// eachCount yields the counts that include the pod, with the pod's numbers.
func (p *pod) eachCount(yield func(*nameCount, uint16)) {
	for _, m := range p.in {
		if len(m.names) == 0 {
			continue
		}
		for _, port := range p.Ports {
			for _, c := range m.names[portName{port.Protocol, port.Name}] {
				if len(c.within.of(p)) > 0 {
					yield(c, port.Port)
				}
			}
		}
	}
}

func (r *Resolver) setPod(key types.NamespacedName, next *Pod) {
	ns := r.namespace(key.Namespace)
	old := ns.pods[key.Name]
	r.settleAnnouncement(old, next)
	var p *pod
	if next != nil {
		p = r.newPod(next)
		if old != nil && p.equal(old) {
			return
		}
		r.podAddresses += p.counted()
		ns.pods[key.Name] = p
		if r.started {
			p.in = ns.matchers(p)
		}
	} else {
		delete(ns.pods, key.Name)
	}
	if old != nil {
		r.podAddresses -= old.counted()
	}
	if r.started {
		r.movePod(old, p)
	}
	r.own(old, p)
	r.dropNamespace(ns)
}

// movePod removes a pod from the groups that it leaves and adds it to those that it enters. old or next may
// be nil.
func (r *Resolver) movePod(old, next *pod) {
	type move struct{ remove, add []address }
	moves := map[*group]move{}
	if old != nil {
		old.eachGroup(func(g *group) { moves[g] = move{remove: g.of(old)} })
	}
	if next != nil {
		next.eachGroup(func(g *group) { moves[g] = move{remove: moves[g].remove, add: g.of(next)} })
	}
	for g, m := range moves {
		r.place(g, without(m.remove, m.add), without(m.add, m.remove), next)
	}
	// the new pod's numbers first, so that the count of a number that stays does not drop to 0 in between
	if next != nil {
		next.eachCount(func(c *nameCount, number uint16) {
			n := namespaceNumber{next.Key.Namespace, number}
			if c.numbers[n]++; c.numbers[n] == 1 {
				r.markStale(c)
			}
		})
	}
	if old != nil {
		old.eachCount(func(c *nameCount, number uint16) {
			n := namespaceNumber{old.Key.Namespace, number}
			if c.numbers[n]--; c.numbers[n] == 0 {
				delete(c.numbers, n)
				r.markStale(c)
			}
		})
	}
}

func (r *Resolver) markStale(c *nameCount) {
	for p := range c.users {
		r.stale[p] = struct{}{}
	}
}

// without returns the addresses of a that are not in b.
func without(a, b []address) []address {
	if len(b) == 0 {
		return a
	}
	var out []address
	for _, addr := range a {
		if !slices.Contains(b, addr) {
			out = append(out, addr)
		}
	}
	return out
}

func sortedPods(pods map[string]*pod) []*pod {
	return slices.SortedFunc(maps.Values(pods), func(a, b *pod) int { return compareNames(a.Key, b.Key) })
}
