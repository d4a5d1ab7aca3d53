package clusterproof

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// Terms are what one policy asks about flows of one direction.
type Terms struct {
	Direction policy.Direction
	// Subject selects the pods that the policy is about.
	Subject Selector
	// Pods and Nodes are the selectors of peers, Networks their networks and Names their domain names.
	Pods, Nodes []Selector
	Networks    []netip.Prefix
	Names       []string
	Ports       []Port
}

// Port is a range of ports, or a name.
type Port struct {
	Protocol    policy.Protocol // 0 with a name
	First, Last uint16
	Name        string
}

func (p Port) matches(t *traffic) bool {
	if p.Name != "" {
		return slices.Contains(t.names, p.Name)
	}
	return p.Protocol == t.protocol && p.First <= t.port && t.port <= p.Last
}

// AddNetwork adds a network. One that cannot be read contains no address.
func (t *Terms) AddNetwork(cidr string) {
	_, block, err := netutils.ParseCIDRSloppy(cidr)
	if err != nil {
		return
	}
	addr, _ := netip.AddrFromSlice(block.IP)
	ones, _ := block.Mask.Size()
	t.Networks = append(t.Networks, netip.PrefixFrom(addr, ones))
}

// ClusterTerms are those of ClusterNetworkPolicies.
func ClusterTerms(policies []cnp.ClusterNetworkPolicy) ([]Terms, error) {
	var out []Terms
	for i := range policies {
		p := &policies[i]
		subject, err := clusterSelector(p.Spec.Subject.Namespaces, p.Spec.Subject.Pods)
		if err != nil {
			return nil, err
		}
		in, eg := Terms{Direction: policy.Ingress, Subject: subject}, Terms{Direction: policy.Egress, Subject: subject}
		for _, r := range p.Spec.Ingress {
			for _, peer := range r.From {
				err = in.addClusterPeer(&cnp.ClusterNetworkPolicyEgressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
				if err != nil {
					return nil, err
				}
			}
			in.addProtocols(r.Protocols)
		}
		for _, r := range p.Spec.Egress {
			for _, peer := range r.To {
				if err := eg.addClusterPeer(&peer); err != nil {
					return nil, err
				}
			}
			eg.addProtocols(r.Protocols)
		}
		out = append(out, in, eg)
	}
	return out, nil
}

func clusterSelector(namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod) (Selector, error) {
	if pods != nil {
		return Select(&pods.NamespaceSelector, &pods.PodSelector)
	}
	return Select(namespaces, nil)
}

func (t *Terms) addClusterPeer(p *cnp.ClusterNetworkPolicyEgressPeer) error {
	switch {
	case p.Namespaces != nil || p.Pods != nil:
		s, err := clusterSelector(p.Namespaces, p.Pods)
		t.Pods = append(t.Pods, s)
		return err
	case p.Nodes != nil:
		s, err := Select(nil, p.Nodes)
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

func (t *Terms) addProtocols(list []cnp.ClusterNetworkPolicyProtocol) {
	for _, p := range list {
		var port *cnp.Port
		var protocol policy.Protocol
		switch {
		case p.TCP != nil:
			protocol, port = policy.TCP, p.TCP.DestinationPort
		case p.UDP != nil:
			protocol, port = policy.UDP, p.UDP.DestinationPort
		case p.SCTP != nil:
			protocol, port = policy.SCTP, p.SCTP.DestinationPort
		default:
			t.Ports = append(t.Ports, Port{Name: p.DestinationNamedPort})
			continue
		}
		out := Port{Protocol: protocol, Last: 65535}
		switch {
		case port == nil:
		case port.Range != nil:
			out.First, out.Last = uint16(port.Range.Start), uint16(port.Range.End) //nolint:gosec // validated by the API
		default:
			out.First, out.Last = uint16(port.Number), uint16(port.Number) //nolint:gosec // validated by the API
		}
		t.Ports = append(t.Ports, out)
	}
}

// NetworkPolicyTerms are those of NetworkPolicies.
func NetworkPolicyTerms(policies []networkingv1.NetworkPolicy) ([]Terms, error) {
	var out []Terms
	for i := range policies {
		np := &policies[i]
		subject, err := Select(nil, &np.Spec.PodSelector)
		if err == nil {
			subject, err = subject.inNamespace(np.Namespace)
		}
		if err != nil {
			return nil, err
		}
		for _, d := range policy.Directions {
			if !netpol.PolicyTypes(np)[d] {
				continue
			}
			t := Terms{Direction: d, Subject: subject}
			for _, r := range netpol.Rules(d, np) {
				for _, peer := range r.Peers {
					if err := t.AddPeer(np.Namespace, &peer); err != nil {
						return nil, err
					}
				}
				t.AddPorts(r.Ports)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// AddPeer adds a peer of a NetworkPolicy of a namespace.
func (t *Terms) AddPeer(namespace string, p *networkingv1.NetworkPolicyPeer) error {
	if b := p.IPBlock; b != nil {
		for _, cidr := range append([]string{b.CIDR}, b.Except...) {
			t.AddNetwork(cidr)
		}
		return nil
	}
	s, err := Select(p.NamespaceSelector, p.PodSelector)
	if err == nil && p.NamespaceSelector == nil {
		s, err = s.inNamespace(namespace)
	}
	t.Pods = append(t.Pods, s)
	return err
}

// AddPorts adds ports of a NetworkPolicy.
func (t *Terms) AddPorts(ports []networkingv1.NetworkPolicyPort) {
	for _, p := range ports {
		out := Port{Protocol: policy.ProtocolOf(p.Protocol), Last: 65535}
		switch {
		case p.Port == nil:
		case p.Port.StrVal != "":
			out.Name = p.Port.StrVal
		default:
			out.First = uint16(p.Port.IntVal) //nolint:gosec // validated by the API
			out.Last = out.First
			if p.EndPort != nil {
				out.Last = uint16(*p.EndPort) //nolint:gosec // validated by the API
			}
		}
		t.Ports = append(t.Ports, out)
		if out.Name != "" { // of this protocol alone
			t.Ports = append(t.Ports, Port{Protocol: out.Protocol, Last: 65535})
		}
	}
}
