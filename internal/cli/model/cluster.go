package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Cluster is the objects that answers depend on.
type Cluster struct {
	Namespaces []corev1.Namespace
	Pods       []Pod
	Services   []corev1.Service
	// EndpointSlices of the Services; empty offline, where Services are resolved by their selectors.
	EndpointSlices []discoveryv1.EndpointSlice
	Nodes          []corev1.Node
	Policies       []networkingv1.NetworkPolicy
	// ClusterPolicies are those of policy.networking.k8s.io/v1alpha2.
	ClusterPolicies []cnp.ClusterNetworkPolicy
	// AdminPolicies are the AdminNetworkPolicies and BaselineAdminNetworkPolicies, as "Kind name". Nothing enforces them.
	AdminPolicies []string
	// Offline is set where the cluster was read from manifests: what is not in them may still be in the cluster.
	Offline bool
	// Addressing of the pods. After a cluster was read it has the families that they have.
	Addressing Addressing
	// Notes are remarks for the user, such as which objects were not evaluated.
	Notes []string

	sources map[string]source // of policies and namespaces, by Describe

	// assumed6: IPv6 addresses were given to pods although nothing shows that they have any, for what is outside.
	assumed6 bool
}

// Pod is a pod and what it belongs to.
type Pod struct {
	corev1.Pod
	Workload Workload
	// Invented addresses only identify the pod: it has none yet, or it was made from a template.
	Invented bool
}

// Workload is what a person calls a set of equal pods: a Deployment, a StatefulSet …, or a Pod that has no owner.
type Workload struct {
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
}

// String is "namespace/name".
func (w Workload) String() string {
	if w.Namespace == "" {
		return w.Name
	}
	return w.Namespace + "/" + w.Name
}

// Compare orders workloads by namespace, name and kind.
func (w Workload) Compare(other Workload) int {
	return cmp.Or(cmp.Compare(w.Namespace, other.Namespace), cmp.Compare(w.Name, other.Name), cmp.Compare(w.Kind, other.Kind))
}

// Key is "namespace/name".
func (p *Pod) Key() string { return p.Namespace + "/" + p.Name }

// Describe is "namespace/name", with the workload where the name does not say it.
func (p *Pod) Describe() string {
	if p.Workload.Kind == "Pod" || p.Workload.Name == p.Name {
		return p.Key()
	}
	return fmt.Sprintf("%s (%s %s)", p.Key(), p.Workload.Kind, p.Workload.Name)
}

// Complete adds what follows from the rest: namespaces that are only mentioned, the label that every namespace has, workloads,
// and the order that makes answers the same each time.
func (c *Cluster) Complete() {
	have := map[string]bool{}
	for i := range c.Namespaces {
		label(&c.Namespaces[i])
		have[c.Namespaces[i].Name] = true
	}
	mention := func(name string) {
		if name != "" && !have[name] {
			have[name] = true
			ns := corev1.Namespace{}
			ns.Name = name
			label(&ns)
			c.Namespaces = append(c.Namespaces, ns)
		}
	}
	for i := range c.Pods {
		mention(c.Pods[i].Namespace)
		if c.Pods[i].Workload == (Workload{}) {
			c.Pods[i].Workload = WorkloadOf(&c.Pods[i].Pod)
		}
	}
	for i := range c.Policies {
		mention(c.Policies[i].Namespace)
	}
	slices.SortFunc(c.Namespaces, func(a, b corev1.Namespace) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Pods, func(a, b Pod) int {
		return cmp.Or(a.Workload.Compare(b.Workload), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(c.Policies, func(a, b networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(c.ClusterPolicies, func(a, b cnp.ClusterNetworkPolicy) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Services, func(a, b corev1.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// label gives a namespace the label that the API server gives each.
func label(ns *corev1.Namespace) {
	if ns.Labels[corev1.LabelMetadataName] == ns.Name {
		return
	}
	with := map[string]string{corev1.LabelMetadataName: ns.Name}
	for k, v := range ns.Labels {
		if k != corev1.LabelMetadataName {
			with[k] = v
		}
	}
	ns.Labels = with
}

// AssumesIPv6 reports whether an address is IPv6 and was given to a pod although nothing shows that pods have any: for what is outside only.
func (c *Cluster) AssumesIPv6(addr netip.Addr) bool { return c.assumed6 && addr.Is6() }

// Namespace of that name, or nil.
func (c *Cluster) Namespace(name string) *corev1.Namespace {
	for i := range c.Namespaces {
		if c.Namespaces[i].Name == name {
			return &c.Namespaces[i]
		}
	}
	return nil
}

// Workloads that have pods which policies can be about, in order.
func (c *Cluster) Workloads() []Workload {
	var out []Workload
	for i := range c.Pods {
		if policy.IsPeer(&c.Pods[i].Pod) {
			out = append(out, c.Pods[i].Workload)
		}
	}
	slices.SortFunc(out, Workload.Compare)
	return slices.Compact(out)
}

// Reference is the cluster as the reference evaluator has it.
func (c *Cluster) Reference() *reference.Cluster {
	r := &reference.Cluster{ClusterPolicies: c.ClusterPolicies, Nodes: c.KnownNodes()}
	r.Namespaces, r.Policies = c.Namespaces, c.Policies
	for i := range c.Pods {
		r.Pods = append(r.Pods, c.Pods[i].Pod)
	}
	return r
}

// KnownNodes are the nodes, with the addresses that pods on them show. Nodes that were not read have no labels.
func (c *Cluster) KnownNodes() []corev1.Node {
	out := slices.Clone(c.Nodes)
	at := map[string]int{}
	for i := range out {
		at[out[i].Name] = i
	}
	show := func(name string, addr netip.Addr) {
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			out = append(out, corev1.Node{})
			out[i].Name = name
		}
		if n := &out[i]; !slices.Contains(allAddresses(n), addr) {
			n.Status.Addresses = append(slices.Clip(n.Status.Addresses), corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: addr.String()})
		}
	}
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Spec.NodeName == "" {
			continue
		}
		addresses := hostAddresses(&p.Pod)
		if p.Spec.HostNetwork && !p.Invented {
			addresses = append(addresses, policy.PodAddresses(&p.Pod)...)
		}
		for _, addr := range addresses {
			show(p.Spec.NodeName, addr)
		}
	}
	return out
}

// hostAddresses are the addresses of a pod's node, by the pod's status.
func hostAddresses(p *corev1.Pod) (out []netip.Addr) {
	texts := []string{p.Status.HostIP}
	for _, h := range p.Status.HostIPs {
		texts = append(texts, h.IP)
	}
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, addr.Unmap()) {
			out = append(out, addr.Unmap())
		}
	}
	return out
}
