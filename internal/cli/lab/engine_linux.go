package lab

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// shared is the namespace of groups that cross namespaces.
const shared = "kidoban-system"

// bpffs is mounted in the lab's own mount namespace.
const bpffs = dataplane.DefaultBPFFS

// enforce puts the cluster's policies in force for these pods as a node does: resolver, compiler, dataplane.
func enforce(c *model.Cluster, hosts map[*model.Pod]*host) (*dataplane.Dataplane, error) {
	tables, err := compile(c, hosts)
	if err != nil {
		return nil, err
	}
	d, err := dataplane.New(dataplane.Options{BPFFS: bpffs})
	if err != nil {
		return nil, err
	}
	if err := d.Apply(tables.Commit()); err != nil {
		return d, err
	}
	return d, d.Attach()
}

func compile(c *model.Cluster, hosts map[*model.Pod]*host) (*compiler.Compiler, error) {
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
	changes := r.Start(resolver.Existing{})

	out := compiler.New()
	for _, key := range changes.Slices {
		slice, _ := r.Slice(key)
		var add []netip.Prefix
		for _, a := range slice.Addresses {
			p, err := policy.ParseCIDR(a)
			if err != nil {
				return nil, err
			}
			add = append(add, p)
		}
		out.UpdateGroup(key.Group, add, nil)
	}
	type inForce struct {
		namespace string
		selects   labels.Selector
		policy    *policy.Policy
	}
	var policies []inForce
	for _, name := range changes.Endpoints {
		e, ok := r.Endpoint(name)
		if !ok || e.Spec == nil {
			continue // lint tells why
		}
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Spec: *e.Spec}
		p, err := policy.FromPolicyEndpoint(pe, shared)
		if err != nil {
			return nil, fmt.Errorf("NetworkPolicy %s: %w", e.Policy, err)
		}
		selects, err := metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector)
		if err != nil {
			return nil, fmt.Errorf("NetworkPolicy %s: %w", e.Policy, err)
		}
		policies = append(policies, inForce{name.Namespace, selects, p})
	}
	for pod, h := range hosts {
		spec := compiler.PodSpec{Addresses: h.addresses, IfIndex: uint32(h.index)}
		for _, p := range policies {
			if p.namespace == pod.Namespace && p.selects.Matches(labels.Set(pod.Labels)) {
				spec.Policies = append(spec.Policies, p.policy.ForPod(policy.ContainerPorts(&pod.Pod)))
			}
		}
		slices.SortFunc(spec.Policies, policy.Compare)
		out.SetPod(pod.Key(), spec)
	}
	return out, nil
}
