package oracle

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/policy/reference"
)

// quirk is a known fault of a judge, or something that it leaves to the API server. adapt rewrites a cluster, which is its own copy,
// into one that means the same and on which the fault cannot show; it reports whether it had to. A quirk without adapt is looked for by
// its judge, for each flow.
type quirk struct {
	name  string
	adapt func(*reference.Cluster) bool
}

// The quirks of each judge.
var (
	cyclonusQuirks = []*quirk{noDefaults, legacyBlocks, sidecars, notIn, emptyValue, onePortName}
	knpQuirks      = []*quirk{noDefaults, legacyBlocks, sidecars, emptyRules, portZero, closedRules, otherDirection, nodeTraffic}
)

var (
	// noDefaults: the API server writes policyTypes and protocols down. Without, cyclonus panics on no policy type, and
	// kube-network-policies does not isolate and panics on no protocol.
	noDefaults = &quirk{"the API server's defaults are missing", adaptDefaults}
	// legacyBlocks: leading zeros, which the API server lets pass. Cyclonus panics; kube-network-policies takes such a block for everyone.
	legacyBlocks = &quirk{"blocks in an old form cannot be read", adaptBlocks}
	// sidecars: neither knows the ports of init containers.
	sidecars = &quirk{"ports of sidecars are unknown", adaptSidecars}
	// notIn: cyclonus says that NotIn does not hold where the label is absent.
	notIn = &quirk{"NotIn does not hold where the label is absent", adaptNotIn}
	// emptyValue: cyclonus takes an absent label for one with an empty value.
	emptyValue = &quirk{"an absent label equals an empty one", adaptEmptyValues}
	// onePortName: cyclonus is asked with one name of the port; a port may have several.
	onePortName = &quirk{name: "a port has one name"}
	// emptyRules: kube-network-policies takes `ingress: []` for everyone.
	emptyRules = &quirk{"an empty list of rules allows all", adaptEmptyRules}
	// portZero: kube-network-policies takes a named port for number 0, besides what it stands for.
	portZero = &quirk{name: "a named port is port 0, too"}
	// closedRules: kube-network-policies skips a cluster policy's rule with a peer that it does not know, instead of failing closed, and
	// every rule of ingress for a source that is not a pod.
	closedRules = &quirk{"rules with unknown peers do not fail closed", adaptClosedRules}
	// otherDirection: kube-network-policies does not ask the Baseline tier about a pod that a NetworkPolicy isolates in the other direction.
	otherDirection = &quirk{name: "a pod that is isolated in one direction skips Baseline in both"}
	// nodeTraffic: kube-network-policies decides about traffic between a pod and its own node as about any other. In Kubernetes,
	// NetworkPolicies do not apply to it, and what the node opens is always allowed.
	nodeTraffic = &quirk{name: "traffic with the own node is like any other"}
)

// adapt rewrites a copy of the cluster, and returns those quirks that mattered.
func adapt(c *reference.Cluster, quirks []*quirk) (*reference.Cluster, []*quirk) {
	out := &reference.Cluster{}
	for i := range c.Namespaces {
		out.Namespaces = append(out.Namespaces, *c.Namespaces[i].DeepCopy())
	}
	for i := range c.Pods {
		out.Pods = append(out.Pods, *c.Pods[i].DeepCopy())
	}
	for i := range c.Policies {
		out.Policies = append(out.Policies, *c.Policies[i].DeepCopy())
	}
	for i := range c.Nodes {
		out.Nodes = append(out.Nodes, *c.Nodes[i].DeepCopy())
	}
	for i := range c.ClusterPolicies {
		out.ClusterPolicies = append(out.ClusterPolicies, *c.ClusterPolicies[i].DeepCopy())
	}
	var applied []*quirk
	for _, q := range quirks {
		if q.adapt != nil && q.adapt(out) {
			applied = append(applied, q)
		}
	}
	return out, applied
}

func adaptDefaults(c *reference.Cluster) (applied bool) {
	for i := range c.Policies {
		spec := &c.Policies[i].Spec
		if len(spec.PolicyTypes) == 0 {
			applied = true
			spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			if len(spec.Egress) > 0 {
				spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			}
		}
		eachPort(spec, func(p *networkingv1.NetworkPolicyPort) {
			if p.Protocol == nil {
				p.Protocol, applied = new(corev1.ProtocolTCP), true
			}
		})
	}
	for i := range c.Pods {
		for _, containers := range [...][]corev1.Container{c.Pods[i].Spec.Containers, c.Pods[i].Spec.InitContainers} {
			for j := range containers {
				for k := range containers[j].Ports {
					if p := &containers[j].Ports[k]; p.Protocol == "" {
						p.Protocol, applied = corev1.ProtocolTCP, true
					}
				}
			}
		}
	}
	return applied
}

func adaptBlocks(c *reference.Cluster) (applied bool) {
	canonical := func(s *string) {
		if p, err := parseCIDR(*s); err == nil && p.Masked().String() != *s {
			*s, applied = p.Masked().String(), true
		}
	}
	eachPeer(c, func(p *networkingv1.NetworkPolicyPeer) {
		if p.IPBlock != nil {
			canonical(&p.IPBlock.CIDR)
			for i := range p.IPBlock.Except {
				canonical(&p.IPBlock.Except[i])
			}
		}
	})
	return applied
}

func adaptSidecars(c *reference.Cluster) (applied bool) {
	for i := range c.Pods {
		spec := &c.Pods[i].Spec
		for _, ic := range spec.InitContainers {
			if ic.RestartPolicy != nil && *ic.RestartPolicy == corev1.ContainerRestartPolicyAlways && len(ic.Ports) > 0 {
				spec.Containers, applied = append(spec.Containers, ic), true
			}
		}
	}
	return applied
}

// adaptNotIn asks about another label, which every object has.
func adaptNotIn(c *reference.Cluster) (applied bool) {
	const suffix, absent = "?", "absent, which is no value that a selector names"
	keys := map[string]bool{}
	eachSelector(c, func(s *metav1.LabelSelector) {
		for i := range s.MatchExpressions {
			if e := &s.MatchExpressions[i]; e.Operator == metav1.LabelSelectorOpNotIn {
				keys[e.Key] = true
				e.Key += suffix
			}
		}
	})
	mark := func(m *metav1.ObjectMeta) {
		for k := range keys {
			v, ok := m.Labels[k]
			if !ok {
				v = absent
			}
			m.Labels = merge(m.Labels, k+suffix, v)
		}
	}
	for i := range c.Namespaces {
		mark(&c.Namespaces[i].ObjectMeta)
	}
	for i := range c.Pods {
		mark(&c.Pods[i].ObjectMeta)
	}
	return len(keys) > 0
}

func adaptEmptyValues(c *reference.Cluster) (applied bool) {
	eachSelector(c, func(s *metav1.LabelSelector) {
		for k, v := range s.MatchLabels {
			if v == "" {
				applied = true
				delete(s.MatchLabels, k)
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpIn, Values: []string{""}})
			}
		}
	})
	return applied
}

func adaptEmptyRules(c *reference.Cluster) (applied bool) {
	for i := range c.Policies {
		spec := &c.Policies[i].Spec
		if spec.Ingress != nil && len(spec.Ingress) == 0 {
			spec.Ingress, applied = nil, true
		}
		if spec.Egress != nil && len(spec.Egress) == 0 {
			spec.Egress, applied = nil, true
		}
	}
	return applied
}

func eachPort(spec *networkingv1.NetworkPolicySpec, yield func(*networkingv1.NetworkPolicyPort)) {
	for i := range spec.Ingress {
		for j := range spec.Ingress[i].Ports {
			yield(&spec.Ingress[i].Ports[j])
		}
	}
	for i := range spec.Egress {
		for j := range spec.Egress[i].Ports {
			yield(&spec.Egress[i].Ports[j])
		}
	}
}

func eachPeer(c *reference.Cluster, yield func(*networkingv1.NetworkPolicyPeer)) {
	for i := range c.Policies {
		spec := &c.Policies[i].Spec
		for j := range spec.Ingress {
			for k := range spec.Ingress[j].From {
				yield(&spec.Ingress[j].From[k])
			}
		}
		for j := range spec.Egress {
			for k := range spec.Egress[j].To {
				yield(&spec.Egress[j].To[k])
			}
		}
	}
}

func eachSelector(c *reference.Cluster, yield func(*metav1.LabelSelector)) {
	for i := range c.Policies {
		yield(&c.Policies[i].Spec.PodSelector)
	}
	eachPeer(c, func(p *networkingv1.NetworkPolicyPeer) {
		if p.PodSelector != nil {
			yield(p.PodSelector)
		}
		if p.NamespaceSelector != nil {
			yield(p.NamespaceSelector)
		}
	})
}
