package model

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Evaluator finds at once what a question is about. The answers are reference.Cluster's, of a cluster that holds no more than that: a
// verdict depends on the pods at the two addresses, their namespaces and the policies there, and on nothing else.
type Evaluator struct {
	cluster    *Cluster
	byAddress  map[netip.Addr]*Pod
	shared     map[netip.Addr][]*Pod // older pods with the same address
	onHosts    map[netip.Addr]*Pod   // pods of the host network, by their nodes' addresses
	namespaces map[string]*corev1.Namespace
	policies   map[string][]networkingv1.NetworkPolicy
	nodes      []corev1.Node
	names      reference.Names
}

// WithNames is the evaluator for a time at which nodes have learned these names.
func (e *Evaluator) WithNames(names reference.Names) *Evaluator {
	out := *e
	out.names = names
	return &out
}

// NewEvaluator of a cluster that is not changed afterwards. Audited policies have no say.
func NewEvaluator(c *Cluster) *Evaluator {
	c = c.Enforced()
	e := &Evaluator{cluster: c, byAddress: make(map[netip.Addr]*Pod, len(c.Pods)), shared: map[netip.Addr][]*Pod{}, onHosts: map[netip.Addr]*Pod{},
		namespaces: map[string]*corev1.Namespace{}, policies: map[string][]networkingv1.NetworkPolicy{}, nodes: c.KnownNodes()}
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Spec.HostNetwork && !hasEnded(&p.Pod) {
			for _, addr := range policy.PodAddresses(&p.Pod) {
				e.onHosts[addr] = p
			}
		}
		if !policy.IsPeer(&p.Pod) {
			continue
		}
		for _, addr := range policy.PodAddresses(&p.Pod) {
			switch other := e.byAddress[addr]; {
			case other == nil:
				e.byAddress[addr] = p
			case other.CreationTimestamp.Before(&p.CreationTimestamp):
				e.byAddress[addr] = p
				e.shared[addr] = append(e.shared[addr], other)
			default:
				e.shared[addr] = append(e.shared[addr], p)
			}
		}
	}
	for i := range c.Namespaces {
		e.namespaces[c.Namespaces[i].Name] = &c.Namespaces[i]
	}
	for _, np := range c.Policies {
		e.policies[np.Namespace] = append(e.policies[np.Namespace], np)
	}
	return e
}

// Others are the pods that have an address too, beside the one that PodAt returns: of several the youngest counts, as for the agents.
func (e *Evaluator) Others(addr netip.Addr) []*Pod { return e.shared[addr] }

// OnHost is a pod of the host network at an address, or nil. No policy applies to it, and no selector selects it.
func (e *Evaluator) OnHost(addr netip.Addr) *Pod { return e.onHosts[addr] }

// IsNodeOf reports whether an address is one of the node that a pod runs on, by the node or by the pods there.
func (e *Evaluator) IsNodeOf(p *Pod, addr netip.Addr) bool {
	return p.Spec.NodeName == "" && slices.Contains(hostAddresses(&p.Pod), addr) ||
		slices.ContainsFunc(e.nodes, func(n corev1.Node) bool { return n.Name == p.Spec.NodeName && slices.Contains(allAddresses(&n), addr) })
}

// PodAt is the pod at an address, or nil.
func (e *Evaluator) PodAt(addr netip.Addr) *Pod { return e.byAddress[addr] }

// Cluster that it is about.
func (e *Evaluator) Cluster() *Cluster { return e.cluster }

// Namespace of that name, or nil.
func (e *Evaluator) Namespace(name string) *corev1.Namespace { return e.namespaces[name] }

// Policies of a namespace.
func (e *Evaluator) Policies(namespace string) []networkingv1.NetworkPolicy {
	return e.policies[namespace]
}

// Evaluate judges one direction of a flow by NetworkPolicies alone, as reference.NetworkPolicies does.
func (e *Evaluator) Evaluate(d policy.Direction, f policy.Flow) reference.Decision[networkingv1.NetworkPolicy] {
	return e.Narrow(f).NetworkPolicies.Evaluate(d, f)
}

// Decide judges one direction of a flow by the policies of all tiers, as reference.Cluster does.
func (e *Evaluator) Decide(d policy.Direction, f policy.Flow) reference.ClusterDecision {
	return e.Narrow(f).Evaluate(d, f)
}

// Allows reports whether a flow passes, as reference.Cluster does.
func (e *Evaluator) Allows(f policy.Flow) bool { return e.Narrow(f).Allows(f) }

// Narrow is the part of the cluster that a flow's verdict depends on.
func (e *Evaluator) Narrow(f policy.Flow) *reference.Cluster {
	out := &reference.Cluster{Nodes: e.nodes, ClusterPolicies: e.cluster.ClusterPolicies}
	out.Names = e.names
	for _, addr := range [...]netip.Addr{f.Source, f.Destination} {
		p := e.byAddress[addr]
		if p == nil || slices.ContainsFunc(out.Pods, func(q corev1.Pod) bool { return q.Namespace == p.Namespace && q.Name == p.Name }) {
			continue
		}
		known := slices.ContainsFunc(out.Namespaces, func(ns corev1.Namespace) bool { return ns.Name == p.Namespace })
		out.Pods = append(out.Pods, p.Pod)
		if known {
			continue
		}
		if ns := e.namespaces[p.Namespace]; ns != nil {
			out.Namespaces = append(out.Namespaces, *ns)
		}
		out.Policies = append(out.Policies, e.policies[p.Namespace]...)
	}
	return out
}
