package controller

import (
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kidoban/kidoban/internal/stream"
)

// known is what the controller has to know of nodes, Services and agents to judge agents and their announcements.
type known struct {
	mu       sync.Mutex           // guards what follows
	agents   map[types.UID]string // nodes of the agents' pods
	nodes    map[string][]netip.Addr
	services map[types.NamespacedName][]netip.Addr
	reserved map[netip.Addr]int // number of nodes and Services that have an address
}

func newKnown() *known {
	return &known{agents: map[types.UID]string{}, nodes: map[string][]netip.Addr{}, services: map[types.NamespacedName][]netip.Addr{}, reserved: map[netip.Addr]int{}}
}

// IsAgent reports whether a pod of the agents with this UID runs on the node.
func (k *known) IsAgent(node, uid string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return node != "" && k.agents[types.UID(uid)] == node
}

// IsNodeAddress reports whether the node has the address.
func (k *known) IsNodeAddress(node string, addr netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.nodes[node] {
		if a == addr {
			return true
		}
	}
	return false
}

// isReserved reports whether a node or a Service has the address.
func (k *known) isReserved(addr netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reserved[addr] > 0
}

// hasNode reports whether a node exists.
func (k *known) hasNode(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.nodes[name]
	return ok
}

// setAgent records a pod of the agents: its node, or none if the pod is gone.
func (k *known) setAgent(uid types.UID, node string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if node == "" {
		delete(k.agents, uid)
	} else {
		k.agents[uid] = node
	}
}

// reserve replaces the addresses of a node or a Service. The caller holds mu.
func (k *known) reserve(old, now []netip.Addr) {
	for _, a := range now {
		k.reserved[a]++
	}
	for _, a := range old {
		if k.reserved[a]--; k.reserved[a] == 0 {
			delete(k.reserved, a)
		}
	}
}

// watchNodes keeps the addresses of nodes, and calls appearsOrGoes when a node appears or disappears.
func (k *known) watchNodes(appearsOrGoes func(node string)) handler.TypedEventHandler[*corev1.Node, request] {
	return changed(func(_ queue, old, now **corev1.Node) {
		k.mu.Lock()
		if now == nil {
			k.reserve(k.nodes[(*old).Name], nil)
			delete(k.nodes, (*old).Name)
		} else {
			addresses := nodeAddresses(*now)
			k.reserve(k.nodes[(*now).Name], addresses)
			k.nodes[(*now).Name] = addresses
		}
		k.mu.Unlock()
		switch {
		case now == nil:
			appearsOrGoes((*old).Name)
		case old == nil:
			appearsOrGoes((*now).Name)
		}
	})
}

func (k *known) watchServices() handler.TypedEventHandler[*corev1.Service, request] {
	return changed(func(_ queue, old, now **corev1.Service) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if now == nil {
			name := types.NamespacedName{Namespace: (*old).Namespace, Name: (*old).Name}
			k.reserve(k.services[name], nil)
			delete(k.services, name)
			return
		}
		name := types.NamespacedName{Namespace: (*now).Namespace, Name: (*now).Name}
		addresses := serviceAddresses(*now)
		k.reserve(k.services[name], addresses)
		if len(addresses) == 0 {
			delete(k.services, name)
		} else {
			k.services[name] = addresses
		}
	})
}

func nodeAddresses(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		out = appendAddress(out, a.Address) // names are among them
	}
	return out
}

func serviceAddresses(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, text := range s.Spec.ClusterIPs { // "None" for a headless one
		out = appendAddress(out, text)
	}
	for _, text := range s.Spec.ExternalIPs {
		out = appendAddress(out, text)
	}
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		out = appendAddress(out, ingress.IP)
	}
	return out
}

func appendAddress(to []netip.Addr, text string) []netip.Addr {
	if addr, err := netip.ParseAddr(text); err == nil {
		to = append(to, addr.Unmap())
	}
	return to
}

// isAgent reports whether a pod is one of the agents. The token of one that has ended, as an evicted pod, is valid
// until the pod is deleted.
func (c *Controller) isAgent(p *corev1.Pod) bool {
	return p.Namespace == c.shared && p.Spec.ServiceAccountName == stream.AgentServiceAccount &&
		p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}
