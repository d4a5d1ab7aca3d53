package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// node compiles what the controller wrote for the pods of one node, each time from what it was before.
type node struct {
	name     string
	compiler *compiler.Compiler
	told     map[resolver.SliceKey][]netip.Prefix
	pods     map[types.NamespacedName]bool
	read     map[*v1alpha1.PolicyEndpoint]*endpoint
	syncs    int
}

// endpoint is a PolicyEndpoint as agents have it.
type endpoint struct {
	namespace string
	selector  labels.Selector
	policy    *policy.Policy
}

func newNode(name string) *node {
	return &node{
		name: name, compiler: compiler.New(), told: map[resolver.SliceKey][]netip.Prefix{}, pods: map[types.NamespacedName]bool{},
		read: map[*v1alpha1.PolicyEndpoint]*endpoint{},
	}
}

func (n *node) sync(k *kidoban) error {
	if err := n.syncGroups(k); err != nil {
		return err
	}
	endpoints, err := n.endpoints(k)
	if err != nil {
		return err
	}
	for key := range n.pods {
		n.compiler.DeletePod(key.String())
		delete(n.pods, key)
	}
	taken := map[netip.Addr]bool{} // in the middle of a scenario two pods may have one address
	for _, key := range sortedNames(k.objects.pods) {
		pod := k.objects.pods[key]
		if pod.Spec.NodeName != n.name || !policy.IsPeer(pod) {
			continue
		}
		spec := compiler.PodSpec{Policies: selecting(endpoints, pod.Namespace, pod.Labels, policy.ContainerPorts(pod))}
		for _, a := range policy.PodAddresses(pod) {
			if !taken[a] {
				taken[a] = true
				spec.Addresses = append(spec.Addresses, a)
			}
		}
		n.pods[key] = true
		n.compiler.SetPod(key.String(), spec)
	}
	n.compiler.Commit()
	if n.syncs++; n.syncs%2 == 0 {
		n.compiler.Collect()
	}
	return nil
}

func (n *node) syncGroups(k *kidoban) error {
	for key, old := range n.told {
		if _, ok := k.slices[key]; !ok {
			n.compiler.UpdateGroup(key.Group, nil, old)
			delete(n.told, key)
		}
	}
	for key, s := range k.slices {
		now, err := prefixes(s.Addresses)
		if err != nil {
			return fmt.Errorf("slice %v: %w", key, err)
		}
		n.compiler.UpdateGroup(key.Group, now, n.told[key])
		n.told[key] = now
	}
	return nil
}

func prefixes(cidrs []v1alpha1.CIDR) (out []netip.Prefix, err error) {
	for _, c := range cidrs {
		p, err := policy.ParseCIDR(c)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// endpoints reads the PolicyEndpoints that are new.
func (n *node) endpoints(k *kidoban) ([]*endpoint, error) {
	read := map[*v1alpha1.PolicyEndpoint]*endpoint{}
	var out []*endpoint
	for _, name := range sortedNames(k.endpoints) {
		pe := k.endpoints[name]
		e := n.read[pe]
		if e == nil {
			var err error
			if e, err = k.endpoint(pe); err != nil {
				return nil, fmt.Errorf("PolicyEndpoint %s: %w", name, err)
			}
		}
		read[pe] = e
		out = append(out, e)
	}
	n.read = read
	return out, nil
}

func (k *kidoban) endpoint(pe *v1alpha1.PolicyEndpoint) (*endpoint, error) {
	selector, err := metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector)
	if err != nil {
		return nil, err
	}
	p, err := policy.FromPolicyEndpoint(pe, sharedNamespace)
	return &endpoint{pe.Namespace, selector, p}, err
}

// selecting returns the policies that select a pod as the evaluators want them.
func selecting(all []*endpoint, namespace string, set map[string]string, ports []policy.NamedPort) []*policy.Policy {
	var out []*policy.Policy
	for _, e := range all {
		if e.namespace == namespace && e.selector.Matches(labels.Set(set)) {
			out = append(out, e.policy.ForPod(ports))
		}
	}
	slices.SortFunc(out, policy.Compare)
	return out
}
