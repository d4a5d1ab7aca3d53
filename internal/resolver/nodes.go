package resolver

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// nodesNamespace has the nodes as if they were pods: so groups of nodes are maintained as groups of pods are. No namespace has
// an empty name, and none of the selectors of namespaces selects it.
const nodesNamespace = ""

// Node contains the fields of a node that the resolver needs.
type Node struct {
	Name      string
	Labels    map[string]string
	Addresses []netip.Addr
}

// NodeOf returns the fields of a node that the resolver needs. It shares the labels with the node.
func NodeOf(n *corev1.Node) Node {
	out := Node{Name: n.Name, Labels: n.Labels}
	for _, a := range n.Status.Addresses { // host names are among them
		addr, err := netip.ParseAddr(a.Address)
		if addr = addr.Unmap().WithZone(""); err == nil && !slices.Contains(out.Addresses, addr) {
			out.Addresses = append(out.Addresses, addr)
		}
	}
	return out
}

// SetNode adds a node or replaces it.
func (r *Resolver) SetNode(n Node) Changes {
	p := &pod{Pod: Pod{Key: types.NamespacedName{Namespace: nodesNamespace, Name: n.Name}, Labels: n.Labels, Addresses: n.Addresses}}
	p.addresses = p.status()
	r.setNode(n.Name, p)
	return r.takeChanges()
}

// DeleteNode removes a node, if the Resolver has it.
func (r *Resolver) DeleteNode(name string) Changes {
	r.setNode(name, nil)
	return r.takeChanges()
}

func (r *Resolver) setNode(name string, next *pod) {
	ns := r.namespace(nodesNamespace)
	old := ns.pods[name]
	switch {
	case next == nil:
		delete(ns.pods, name)
	case old != nil && maps.Equal(old.Labels, next.Labels) && slices.Equal(old.addresses, next.addresses):
		return
	default:
		ns.pods[name] = next
	}
	if r.started {
		if next != nil {
			next.in = ns.matchers(next)
		}
		r.movePod(old, next)
	}
	r.dropNamespace(ns)
}

// isNodes reports whether the scope has nodes instead of pods.
func (s *scope) isNodes() bool {
	if s.selector != nil {
		return false
	}
	for ns := range s.namespaces {
		return ns.name == nodesNamespace
	}
	return false
}
