package oracle

import (
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// endpoint is a PolicyEndpoint or a ClusterPolicyEndpoint, parsed.
type endpoint struct {
	namespace  string
	namespaces labels.Selector // of a ClusterPolicyEndpoint
	selector   labels.Selector
	policy     *policy.Policy
	groups     []policy.GroupKey
}

func parseEndpoint(pe *v1alpha1.PolicyEndpoint) (*endpoint, error) {
	selector, err := metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector)
	if err != nil {
		return nil, err
	}
	p, err := policy.FromPolicyEndpoint(pe, sharedNamespace)
	return &endpoint{namespace: pe.Namespace, selector: selector, policy: p, groups: groupsOf(pe.Namespace, pe.Spec.Ingress, pe.Spec.Egress)}, err
}

func parseClusterEndpoint(cpe *v1alpha1.ClusterPolicyEndpoint) (*endpoint, error) {
	namespaces, err := metav1.LabelSelectorAsSelector(&cpe.Spec.Subject.NamespaceSelector)
	if err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(&cpe.Spec.Subject.PodSelector)
	if err != nil {
		return nil, err
	}
	p, err := policy.FromClusterPolicyEndpoint(cpe, sharedNamespace)
	return &endpoint{namespaces: namespaces, selector: selector, policy: p, groups: groupsOf(clusterWide, cpe.Spec.Ingress, cpe.Spec.Egress)}, err
}

// groupsOf are the groups that the rules of an object in a namespace refer to.
func groupsOf(namespace string, rules ...[]v1alpha1.Rule) (out []policy.GroupKey) {
	for _, rule := range slices.Concat(rules...) {
		for _, p := range rule.Peers {
			if p.Group == nil {
				continue
			}
			key := policy.GroupKey{Namespace: namespace, Name: p.Group.Name}
			if p.Group.Shared {
				key.Namespace = sharedNamespace
			}
			out = append(out, key)
		}
	}
	return out
}

// selects reports whether an endpoint selects a pod of a namespace, by the labels of both.
func (e *endpoint) selects(namespace string, namespaceLabels, podLabels map[string]string) bool {
	if e.namespaces != nil {
		return e.namespaces.Matches(labels.Set(namespaceLabels)) && e.selector.Matches(labels.Set(podLabels))
	}
	return e.namespace == namespace && e.selector.Matches(labels.Set(podLabels))
}

// selecting returns the policies that select a pod, in the order of evaluation and with the pod's named ports.
func selecting(all []*endpoint, namespace string, namespaceLabels, podLabels map[string]string, ports []policy.NamedPort) []*policy.Policy {
	var out []*policy.Policy
	for _, e := range all {
		if e.selects(namespace, namespaceLabels, podLabels) {
			out = append(out, e.policy.ForPod(ports))
		}
	}
	slices.SortFunc(out, policy.Compare)
	return out
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
