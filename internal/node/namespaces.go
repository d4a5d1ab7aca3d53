package node

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// namespace is one that this node has pods in, or the shared one.
type namespace struct {
	pods      map[types.NamespacedName]*corev1.Pod // as last seen; also those without an address yet
	synced    bool                                 // all of its policies and groups are here
	idleSince time.Time                            // when its last pod left
	// terminating is true from the deletion of the namespace on. Its policies are deleted in any order then, while its pods still run.
	terminating bool
	// bereft is true if it was terminating when its policies arrived: some may have been deleted before, so its pods are isolated.
	bereft bool
	// enforcement is the value of its v1alpha1.LabelEnforcement.
	enforcement string
	labels      labels.Set
}

// IdlePatience is how long a namespace without pods stays wanted: the next run of a job finds its policies in place.
const IdlePatience = time.Minute

func newNamespace() *namespace { return &namespace{pods: map[types.NamespacedName]*corev1.Pod{}} }

// arrive records that a pod is on this node. A pod is scheduled some time before it has an address: its namespace's policies are known by
// then.
func (n *Node) arrive(key types.NamespacedName, obj *corev1.Pod) {
	ns := n.namespaces[key.Namespace]
	if ns == nil {
		ns = newNamespace()
		n.namespaces[key.Namespace] = ns
	}
	ns.pods[key] = obj
}

func (n *Node) leave(key types.NamespacedName) {
	if ns := n.namespaces[key.Namespace]; ns != nil && len(ns.pods) > 0 {
		if delete(ns.pods, key); len(ns.pods) == 0 {
			ns.idleSince = n.now
		}
	}
}

// WantedNamespaces are those whose PolicyEndpoints and slices this node needs: those with pods, those that had some until lately, and the
// shared one.
func (n *Node) WantedNamespaces(now time.Time) map[string]bool {
	wanted := map[string]bool{}
	for name, ns := range n.namespaces {
		if len(ns.pods) > 0 || name == n.opts.SharedNamespace || now.Sub(ns.idleSince) <= IdlePatience {
			wanted[name] = true
		}
	}
	return wanted
}

// Synced reports whether NamespaceSynced was called for every namespace, and ClusterSynced if it has to be.
func (n *Node) Synced() bool {
	if n.awaitsCluster {
		return false
	}
	for _, ns := range n.namespaces {
		if !ns.synced {
			return false
		}
	}
	return true
}

func (n *Node) synced(name string) bool {
	ns := n.namespaces[name]
	return ns != nil && ns.synced && !n.awaitsCluster
}

// NamespaceSynced takes in that all policies and groups of a namespace have arrived. Only then are its pods compiled.
func (n *Node) NamespaceSynced(now time.Time, name string) {
	n.begin(now)
	ns := n.namespaces[name]
	if ns == nil || ns.synced {
		return
	}
	ns.synced = true
	n.compileNamespace(name)
}

// ForgetNamespace drops a namespace that is not wanted any more, with its policies and groups.
func (n *Node) ForgetNamespace(now time.Time, name string) {
	n.begin(now)
	delete(n.namespaces, name)
	for key := range n.byNamespace[name] {
		n.move(key, removed, nil)
	}
	n.forgetSlices(name)
}

func (n *Node) compileNamespace(name string) {
	for key, p := range n.pods {
		if key.Namespace == name {
			n.compilePod(key, p)
		}
	}
}
