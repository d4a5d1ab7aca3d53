package lab

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// shared is the namespace of groups that cross namespaces.
const shared = "kidoban-system"

// bpffs is mounted in the lab's own mount namespace.
const bpffs = dataplane.DefaultBPFFS

// enforce puts the cluster's policies in force for these pods by the steps of a cluster: resolver, node, dataplane.
func enforce(c *model.Cluster, hosts map[*model.Pod]*host, trusted []netip.AddrPort) (*dataplane.Dataplane, error) {
	n, err := feed(c, hosts, trusted)
	if err != nil {
		return nil, err
	}
	d, err := dataplane.New(dataplane.Options{BPFFS: bpffs, Names: dataplane.NameOptions{On: trusted != nil, MinTTL: namesLast}})
	if err != nil {
		return nil, err
	}
	changes, _ := n.Commit()
	if err := d.Apply(changes); err != nil {
		return d, err
	}
	return d, d.Attach()
}

// feed gives a node what the controller and the API server would: the objects that the resolver makes, and the pods.
func feed(c *model.Cluster, hosts map[*model.Pod]*host, trusted []netip.AddrPort) (*node.Node, error) {
	r := resolver.New(resolver.Options{SharedNamespace: shared, MaxAddresses: 250})
	for i := range c.Namespaces {
		r.SetNamespace(c.Namespaces[i].Name, c.Namespaces[i].Labels)
	}
	for i := range c.Pods {
		r.SetPod(resolver.PodOf(&c.Pods[i].Pod))
	}
	for i := range c.Policies {
		r.SetPolicy(&c.Policies[i])
	}
	for _, n := range c.KnownNodes() {
		r.SetNode(resolver.NodeOf(&n))
	}
	for i := range c.ClusterPolicies {
		r.SetClusterPolicy(&c.ClusterPolicies[i])
	}
	if trusted != nil {
		r.SetTrustedResolvers(trusted)
	}
	changes := r.Start(resolver.Existing{})

	now := time.Now()
	n := node.New(node.Options{SharedNamespace: shared, DomainNames: true})
	interfaces := node.Interfaces{Routed: map[uint32][]netip.Addr{}}
	for pod, h := range hosts {
		n.SetPod(now, onHost(pod, h))
		interfaces.Routed[uint32(h.index)] = h.addresses
	}
	n.SetInterfaces(now, interfaces)
	for i := range c.Namespaces { // known since their pods are
		labels := maps.Clone(c.Namespaces[i].Labels)
		delete(labels, v1alpha1.LabelEnforcement) // in audit mode all packets would pass
		n.SetNamespace(now, c.Namespaces[i].Name, labels, false)
	}
	for _, s := range changes.Slices {
		spec, _ := r.Slice(s.Name)
		slice := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.Name.Namespace, Name: s.Name.Name}, Spec: spec}
		if err := n.SetSlice(now, policy.ReadSlice(slice)); err != nil {
			return nil, fmt.Errorf("slice %s: %w", s.Name, err)
		}
	}
	for _, name := range changes.Endpoints {
		e, ok := r.Endpoint(name)
		if !ok {
			continue // its policy is gone
		}
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Spec: *e.Spec}
		if err := n.SetPolicyEndpoint(now, policy.ReadEndpoint(pe, shared)); err != nil {
			return nil, fmt.Errorf("NetworkPolicy %s: %w", e.Policy, err)
		}
	}
	for _, name := range changes.ClusterEndpoints {
		e, ok := r.ClusterEndpoint(name)
		if !ok {
			continue // its policy is gone
		}
		cpe := &v1alpha1.ClusterPolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *e.Spec}
		if err := n.SetClusterPolicyEndpoint(now, cpe); err != nil {
			return nil, fmt.Errorf("%s %s: %w", model.ClusterPolicyKind, e.Policy, err)
		}
	}
	n.ClusterSynced(now)
	for namespace := range n.WantedNamespaces(now) {
		n.NamespaceSynced(now, namespace)
	}
	return n, nil
}

// onHost is the pod with the addresses that the lab gave it.
func onHost(pod *model.Pod, h *host) *corev1.Pod {
	obj := pod.DeepCopy()
	obj.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	for _, addr := range h.addresses {
		obj.Status.PodIPs = append(obj.Status.PodIPs, corev1.PodIP{IP: addr.String()})
	}
	return obj
}
