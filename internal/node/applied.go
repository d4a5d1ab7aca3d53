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
	pods     map[types.NamespacedName]bool // whether they are new
}

// Applied records that the kernel's maps hold what the last Commit or Step returned; all is whether that reaches its revision. It returns, for
// each new pod among that, the time since its address was first seen.
func (n *Node) Applied(now time.Time, revision Revision, all bool) (started []time.Duration) {
	n.unapplied.versions = slices.DeleteFunc(n.unapplied.versions, func(v *version) bool {
		if v.revision > revision || !all {
			return false
		}
		v.inForce = now
		return true
	})
	for key, isNew := range n.unapplied.pods {
		p := n.pods[key]
		if !n.synced(key.Namespace) || p.revision > revision || !all && (n.compiler.Pending(key.String()) || n.compiler.Pending(ownKey(key))) {
			continue
		}
		p.applied = p.revision
		delete(n.unapplied.pods, key)
		if isNew {
			started = append(started, now.Sub(p.seen))
		}
	}
	return started
}

// PodRevision is the revision at which the compiler last received a pod, its addresses and policies. It is 0 while they are not known: the
// pod is not, or its namespace's policies are not, or another pod that claims one of the addresses is in such a namespace.
func (n *Node) PodRevision(key types.NamespacedName) Revision {
	if n.pods[key] == nil {
		return 0
	}
	revision := Revision(0)
	for owner := range n.ownersOf(key) {
		if !n.synced(owner.Namespace) {
			return 0
		}
		revision = max(revision, n.pods[owner].revision)
	}
	return revision
}

// PodApplied reports whether the kernel's maps hold a pod as it was at a revision that PodRevision has returned, or later.
func (n *Node) PodApplied(key types.NamespacedName, revision Revision) bool {
	if n.pods[key] == nil {
		return false
	}
	for owner := range n.ownersOf(key) {
		if p := n.pods[owner]; p.applied < min(p.revision, revision) {
			return false
		}
	}
	return true
}

// ownersOf are the pod and those that have its addresses.
func (n *Node) ownersOf(key types.NamespacedName) map[types.NamespacedName]struct{} {
	out := map[types.NamespacedName]struct{}{key: {}}
	for _, addr := range n.pods[key].addresses {
		out[n.owner(addr)] = struct{}{}
	}
	return out
}

// decides reports whether the compiler has an entry for each of a pod's addresses.
func (n *Node) decides(key types.NamespacedName) bool {
	p := n.pods[key]
	return p != nil && !slices.ContainsFunc(p.addresses, func(addr netip.Addr) bool {
		_, ok := n.compiler.Maps().Pods[addr]
		return !ok
	})
}
