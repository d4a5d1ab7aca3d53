package oracle

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	netutils "k8s.io/utils/net"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// flows draws flows of one cluster: between its pods, and with the addresses at the edges of its blocks.
type flows struct {
	*dice
	pods, edges map[bool][]netip.Addr // by whether IPv6
	ports       []uint16
}

func newFlows(d *dice, c *reference.Cluster) *flows {
	f := &flows{dice: d, pods: map[bool][]netip.Addr{}, edges: map[bool][]netip.Addr{}, ports: []uint16{0, 1, 65535, uint16(d.IntN(65536))}}
	for i := range c.Pods {
		for _, a := range policy.PodAddresses(&c.Pods[i]) {
			f.pods[a.Is6()] = append(f.pods[a.Is6()], a)
		}
		for _, p := range policy.ContainerPorts(&c.Pods[i]) {
			f.ports = append(f.ports, p.Port)
		}
	}
	for _, a := range d.addresses {
		f.edges[a.Is6()] = append(f.edges[a.Is6()], a)
	}
	for i := range c.Policies {
		spec := &c.Policies[i].Spec
		for _, r := range spec.Ingress {
			f.rule(r.From, r.Ports)
		}
		for _, r := range spec.Egress {
			f.rule(r.To, r.Ports)
		}
	}
	for i := range c.ClusterPolicies {
		spec := &c.ClusterPolicies[i].Spec
		for _, r := range spec.Ingress {
			f.protocols(r.Protocols)
		}
		for _, r := range spec.Egress {
			f.protocols(r.Protocols)
			for _, p := range r.To {
				for _, cidr := range p.Networks {
					f.edgesOf(string(cidr))
				}
			}
		}
	}
	return f
}

func (f *flows) rule(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	for _, p := range peers {
		if p.IPBlock != nil {
			for _, cidr := range append([]string{p.IPBlock.CIDR}, p.IPBlock.Except...) {
				f.edgesOf(cidr)
			}
		}
	}
	for _, p := range ports {
		if p.Port != nil && p.Port.StrVal == "" {
			first, last := p.Port.IntVal, p.Port.IntVal
			if p.EndPort != nil {
				last = *p.EndPort
			}
			f.ports = append(f.ports, uint16(first-1), uint16(first), uint16(last), uint16(min(65535, last+1)))
		}
	}
}

func (f *flows) protocols(list []cnp.ClusterNetworkPolicyProtocol) {
	for _, p := range list {
		var port *cnp.Port
		switch {
		case p.TCP != nil:
			port = p.TCP.DestinationPort
		case p.UDP != nil:
			port = p.UDP.DestinationPort
		case p.SCTP != nil:
			port = p.SCTP.DestinationPort
		}
		if port == nil {
			continue
		}
		first, last := port.Number, port.Number
		if port.Range != nil {
			first, last = port.Range.Start, port.Range.End
		}
		f.ports = append(f.ports, uint16(first-1), uint16(first), uint16(last), uint16(min(65535, last+1)))
	}
}

// edgesOf adds the first and the last address of a block, and those just outside.
func (f *flows) edgesOf(cidr string) {
	p, err := parseCIDR(cidr)
	if err != nil {
		return
	}
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), end, end.Next()} {
		if a.IsValid() {
			f.edges[a.Is6()] = append(f.edges[a.Is6()], a)
		}
	}
}

// parseCIDR reads a block as the API server does.
func parseCIDR(s string) (netip.Prefix, error) {
	_, n, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(n.String()) // which writes IPv4-mapped blocks as IPv4
}

func (f *flows) flow() policy.Flow {
	ipv6 := len(f.pods[true]) > 0 && (len(f.pods[false]) == 0 || f.oneIn(2))
	out := policy.Flow{Source: f.end(ipv6), Destination: f.end(ipv6), Protocol: pick(f.dice, policy.TCP, policy.TCP, policy.TCP, policy.UDP, policy.UDP, policy.SCTP)}
	if f.oneIn(10) {
		out.Protocol = pick(f.dice, policy.ICMP, policy.ICMPv6, 0, 47, 255)
	}
	if out.Protocol.HasPorts() {
		out.Port = pick(f.dice, f.ports...)
	}
	return out
}

func (f *flows) end(ipv6 bool) netip.Addr {
	pods, edges := f.pods[ipv6], f.edges[ipv6]
	switch {
	case len(pods) > 0 && !f.oneIn(3):
		return pick(f.dice, pods...)
	case len(edges) > 0 && !f.oneIn(10):
		return pick(f.dice, edges...)
	}
	return f.address(ipv6)
}
