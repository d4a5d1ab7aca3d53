package oracle

import (
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// endpoint is a PolicyEndpoint, parsed.
type endpoint struct {
	namespace string
	selector  labels.Selector
	policy    *policy.Policy
}

func parseEndpoint(pe *v1alpha1.PolicyEndpoint) (*endpoint, error) {
	selector, err := metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector)
	if err != nil {
		return nil, err
	}
	p, err := policy.FromPolicyEndpoint(pe, sharedNamespace)
	return &endpoint{pe.Namespace, selector, p}, err
}

// selecting returns the policies that select a pod, in the order of evaluation and with the pod's named ports.
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
