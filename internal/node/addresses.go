package node

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// PodName names a pod. Workload is nil while the pod's object is not known.
type PodName struct {
	Namespace, Name string
	Workload        *agentapi.Workload
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
	for _, other := range others {
		n.compilePod(other, n.pods[other])
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
			n.departed[addr] = departed{PodName{Namespace: key.Namespace, Name: key.Name, Workload: p.workload}, n.now}
		}
	}
}

// ForgetNames drops the names of pods that were deleted more than NamePatience ago.
func (n *Node) ForgetNames(now time.Time) {
	for addr, d := range n.departed {
		if now.Sub(d.since) > NamePatience {
			delete(n.departed, addr)
		}
	}
}

// PodAt returns the pod that has an address, or had it until lately.
func (n *Node) PodAt(addr netip.Addr) (PodName, bool) {
	if len(n.owners[addr]) > 0 {
		key := n.owner(addr)
		return PodName{Namespace: key.Namespace, Name: key.Name, Workload: n.pods[key].workload}, true
	}
	if ns := n.routed[addr]; ns != nil {
		if p := n.pods[ns.owner.pod]; p != nil {
			return PodName{Namespace: ns.owner.pod.Namespace, Name: ns.owner.pod.Name, Workload: p.workload}, true
		}
	}
	d, ok := n.departed[addr]
	return d.PodName, ok
}
