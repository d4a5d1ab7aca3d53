package node

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// PodName names a pod. Workload is nil while the pod's object is not known.
type PodName struct {
	Namespace, Name string
	UID             types.UID
	Workload        *agentapi.Workload
}

func (p PodName) key() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// NamePatience is how long an address keeps a deleted pod's name, unless another pod gets it: the last flows of a pod are logged when it is
// gone.
const NamePatience = time.Minute

// departed is a pod that had an address until lately.
type departed struct {
	PodName
	since time.Time
}

// claim records which pods claim an address. Two may for a moment: one that ends and one that starts.
func (n *Node) claim(key types.NamespacedName, old, now *pod) {
	var others []types.NamespacedName
	if old != nil {
		for _, addr := range old.addresses {
			n.owners[addr] = slices.DeleteFunc(n.owners[addr], func(k types.NamespacedName) bool { return k == key })
			others = append(others, n.owners[addr]...)
			if len(n.owners[addr]) == 0 {
				delete(n.owners, addr)
			}
		}
	}
	if now != nil {
		for _, addr := range now.addresses {
			others = append(others, n.owners[addr]...)
			n.owners[addr] = append(n.owners[addr], key)
		}
	}
	if old != nil {
		n.reassign(old.addresses)
	}
	if now != nil {
		n.reassign(now.addresses)
	}
	for _, p := range []*pod{old, now} {
		if p != nil {
			n.recordOwners(p.addresses)
		}
	}
	for _, other := range others {
		n.compilePod(other, n.pods[other])
	}
}

// recordOwners keeps the name of the pod that had an address until now, if it has become another's: what is reported about a packet is read
// some seconds after the packet.
func (n *Node) recordOwners(addrs []netip.Addr) {
	for _, addr := range addrs {
		before, had := n.named[addr]
		if len(n.owners[addr]) == 0 {
			delete(n.named, addr)
		} else {
			key := n.owner(addr)
			n.named[addr] = PodName{Namespace: key.Namespace, Name: key.Name, UID: n.pods[key].uid, Workload: n.pods[key].workload}
		}
		if now := n.named[addr]; had && (now.key() != before.key() || now.UID != before.UID) {
			n.former[addr] = departed{before, n.now}
		}
	}
}

// owner returns the pod that has an address, of those that claim it. A pod whose sandbox has the address comes first, because a status may
// describe a former sandbox; then the youngest. The address must be claimed.
func (n *Node) owner(addr netip.Addr) types.NamespacedName {
	return slices.MaxFunc(n.owners[addr], func(a, b types.NamespacedName) int {
		p, q := n.pods[a], n.pods[b]
		switch has := slices.Contains(p.sandboxed, addr); {
		case has == slices.Contains(q.sandboxed, addr):
			return p.compareAge(q)
		case has:
			return 1
		}
		return -1
	})
}

// depart remembers the name of a pod whose addresses no other pod claims.
func (n *Node) depart(key types.NamespacedName, p *pod) {
	for _, addr := range p.addresses {
		if len(n.owners[addr]) == 0 {
			n.departed[addr] = departed{PodName{Namespace: key.Namespace, Name: key.Name, UID: p.uid, Workload: p.workload}, n.now}
		}
	}
}

// ForgetNames drops the names of pods that were deleted more than NamePatience ago.
func (n *Node) ForgetNames(now time.Time) {
	for _, names := range []map[netip.Addr]departed{n.departed, n.former} {
		maps.DeleteFunc(names, func(_ netip.Addr, d departed) bool { return now.Sub(d.since) > NamePatience })
	}
}

// PodThen returns the pod that had an address at a time, not more than NamePatience ago.
func (n *Node) PodThen(addr netip.Addr, at time.Time) (PodName, bool) {
	if f, ok := n.former[addr]; ok && at.Before(f.since) {
		return f.PodName, true
	}
	return n.PodAt(addr)
}

// PodAt returns the pod that has an address, or had it until lately.
func (n *Node) PodAt(addr netip.Addr) (PodName, bool) {
	if name, ok := n.named[addr]; ok {
		return name, true
	}
	if ns := n.routed[addr]; ns != nil {
		if p := n.pods[ns.owner.pod]; p != nil {
			return PodName{Namespace: ns.owner.pod.Namespace, Name: ns.owner.pod.Name, UID: p.uid, Workload: p.workload}, true
		}
	}
	d, ok := n.departed[addr]
	return d.PodName, ok
}
