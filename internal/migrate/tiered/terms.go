package tiered

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
	"github.com/kidoban/kidoban/internal/policy"
)

// Terms of the policies, for a comparison.
func Terms(policies []Policy) (out []clusterproof.Terms, err error) {
	for i := range policies {
		p := &policies[i]
		subject, err := selector(p.Subject.Namespaces, p.Subject.Pods)
		if err != nil {
			return nil, err
		}
		for _, d := range policy.Directions {
			t := clusterproof.Terms{Direction: d, Subject: subject}
			for _, r := range p.Rules[d] {
				for _, peer := range r.Peers {
					if err := addPeer(&t, &peer); err != nil {
						return nil, err
					}
				}
				addPorts(&t, r.Ports)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

func selector(namespaces *metav1.LabelSelector, pods *anp.NamespacedPod) (clusterproof.Selector, error) {
	if pods != nil {
		return clusterproof.Select(&pods.NamespaceSelector, &pods.PodSelector)
	}
	return clusterproof.Select(namespaces, nil)
}

func addPeer(t *clusterproof.Terms, p *anp.AdminNetworkPolicyEgressPeer) error {
	switch {
	case p.Namespaces != nil || p.Pods != nil:
		s, err := selector(p.Namespaces, p.Pods)
		t.Pods = append(t.Pods, s)
		return err
	case p.Nodes != nil:
		s, err := clusterproof.Select(nil, p.Nodes)
		t.Nodes = append(t.Nodes, s)
		return err
	}
	for _, n := range p.Networks {
		t.AddNetwork(string(n))
	}
	for _, n := range p.DomainNames {
		t.Names = append(t.Names, string(n))
	}
	return nil
}

func addPorts(t *clusterproof.Terms, ports *[]anp.AdminNetworkPolicyPort) {
	if ports == nil {
		return
	}
	for _, p := range *ports {
		switch {
		case p.NamedPort != nil:
			t.Ports = append(t.Ports, clusterproof.Port{Name: *p.NamedPort})
		case p.PortNumber != nil:
			t.Ports = append(t.Ports, portRange(p.PortNumber.Protocol, p.PortNumber.Port, p.PortNumber.Port))
		case p.PortRange != nil:
			t.Ports = append(t.Ports, portRange(p.PortRange.Protocol, p.PortRange.Start, p.PortRange.End))
		}
	}
}

func portRange(protocol corev1.Protocol, first, last int32) clusterproof.Port {
	return clusterproof.Port{Protocol: policy.ProtocolOf(&protocol), First: uint16(first), Last: uint16(last)} //nolint:gosec // checked to be ports
}
