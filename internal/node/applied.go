package node

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// unapplied is what the compiler received and the kernel's maps may not hold yet.
type unapplied struct {
	versions []*version
	pods     map[types.NamespacedName]*pod // new ones
}

// Applied records that the kernel's maps hold everything up to a revision. It returns, for each new pod among that, the time since its
// address was first seen.
func (n *Node) Applied(now time.Time, revision Revision) (pods []time.Duration) {
	n.unapplied.versions = slices.DeleteFunc(n.unapplied.versions, func(v *version) bool {
		if v.revision > revision {
			return false
		}
		v.inForce = now
		return true
	})
	for key := range n.unapplied.pods {
		p := n.pods[key]
		if n.synced(key.Namespace) && p.revision <= revision {
			delete(n.unapplied.pods, key)
			pods = append(pods, now.Sub(p.seen))
		}
	}
	return pods
}

// PodRevision is the revision at which the compiler last received a pod, its addresses and policies. It is 0 while they are not known: the
// pod is not, or its namespace's policies are not, or another pod that claims one of the addresses is in such a namespace.
func (n *Node) PodRevision(key types.NamespacedName) Revision {
	p := n.pods[key]
	if p == nil || !n.synced(key.Namespace) {
		return 0
	}
	revision := p.revision
	for _, addr := range p.addresses {
		owner := n.pods[n.owner(addr)]
		if !n.synced(n.owner(addr).Namespace) {
			return 0
		}
		revision = max(revision, owner.revision)
	}
	return revision
}

// decides reports whether the compiler has an entry for each of a pod's addresses.
func (n *Node) decides(key types.NamespacedName) bool {
	p := n.pods[key]
	return p != nil && !slices.ContainsFunc(p.addresses, func(addr netip.Addr) bool {
		_, ok := n.compiler.Maps().Pods[addr]
		return !ok
	})
}
