package recommend

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/replay"
)

// When outside addresses become a network, and networks become every public address.
const (
	manyAddresses = 4
	manyNetworks  = 64
)

// Ranges for ports: consecutive ones become a range from this number on, and this many of one peer a range with gaps.
const (
	consecutivePorts = 3
	mostPorts        = 16
)

// anywhere stands for every public address of a family.
var anywhere = map[bool]netip.Prefix{true: netip.MustParsePrefix("0.0.0.0/0"), false: netip.MustParsePrefix("::/0")}

// private networks are left out of anywhere (RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291).
var private = map[bool][]string{
	true:  {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"},
	false: {"fc00::/7", "fe80::/10"},
}

func isPrivate(a netip.Addr) bool {
	return slices.ContainsFunc(private[a.Is4()], func(n string) bool { return netip.MustParsePrefix(n).Contains(a) })
}

// outside is an address outside the cluster, as traffic of one unit has it.
type outside struct {
	side
	addr netip.Addr
}

// side is what outside addresses are put together by.
type side struct {
	unit      *unit
	direction policy.Direction
	protocol  policy.Protocol
	port      uint16
}

// outsideOf traffic, for the end that is outside.
func outsideOf(t *item, e *observerapi.End) outside {
	d := policy.Ingress
	if e == t.Destination {
		d = policy.Egress
	}
	return outside{side{direction: d, protocol: t.protocol, port: t.Port}, e.Address}
}

// networksOf the outside addresses of traffic: the network that stands for each.
func (w *writer) networksOf(items []*item) map[outside]netip.Prefix {
	bySide := map[side][]netip.Addr{}
	out := map[outside]netip.Prefix{}
	for _, t := range items {
		for _, e := range [...]*observerapi.End{t.Source, t.Destination} {
			if e.Namespace != "" && !e.IsNode || e == t.Destination && len(e.DomainNames) > 0 {
				continue
			}
			o := outsideOf(t, e)
			o.unit = w.unitOf(t.other(e))
			if _, ok := out[o]; !ok {
				out[o] = netip.PrefixFrom(e.Address, e.Address.BitLen())
				bySide[o.side] = append(bySide[o.side], e.Address)
			}
		}
	}
	if !w.widen {
		return out
	}
	for s, addresses := range bySide {
		for a, n := range w.widened(addresses) {
			out[outside{s, a}] = n
		}
	}
	return out
}

func (w *writer) unitOf(e *observerapi.End) *unit {
	if l := w.workloads[replay.PartyOf(e)]; l != nil && !e.IsNode {
		return l.unit
	}
	return nil
}

// widened are the networks that stand for addresses: the address itself, a /24 or /64 of which there are several, or every public address.
func (w *writer) widened(addresses []netip.Addr) map[netip.Addr]netip.Prefix {
	near := map[netip.Prefix]int{}
	for _, a := range addresses {
		near[nearby(a)]++
	}
	out := map[netip.Addr]netip.Prefix{}
	networks, public := map[bool]map[netip.Prefix]bool{true: {}, false: {}}, map[bool]bool{true: true, false: true}
	for _, a := range addresses {
		n := netip.PrefixFrom(a, a.BitLen())
		if net := nearby(a); near[net] >= manyAddresses && !w.isOwnNetwork(net) {
			n = net
		}
		out[a] = n
		networks[a.Is4()][nearby(a)] = true
		public[a.Is4()] = public[a.Is4()] && !isPrivate(a) && !w.own[a]
	}
	for _, a := range addresses {
		if is4 := a.Is4(); public[is4] && len(networks[is4]) >= manyNetworks {
			out[a] = anywhere[is4]
		}
	}
	return out
}

func nearby(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// isOwnNetwork reports whether a network has addresses of pods, nodes or Services.
func (w *writer) isOwnNetwork(n netip.Prefix) bool {
	for a := range w.own {
		if n.Contains(a) {
			return true
		}
	}
	return slices.ContainsFunc(w.in.PodCIDRs, n.Overlaps)
}

// joinNetworks puts networks together that are halves of another one, and leaves out those within others.
func joinNetworks(networks []netip.Prefix) []netip.Prefix {
	have := map[netip.Prefix]bool{}
	for _, n := range networks {
		have[n] = true
	}
	for changed := true; changed; {
		changed = false
		for _, n := range slices.SortedFunc(maps.Keys(have), netip.Prefix.Compare) {
			if !have[n] || n.Bits() == 0 {
				continue
			}
			parent := netip.PrefixFrom(n.Addr(), n.Bits()-1).Masked()
			if sibling := siblingOf(n); have[sibling] {
				delete(have, n)
				delete(have, sibling)
				have[parent], changed = true, true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(have), netip.Prefix.Compare)
}

// siblingOf a network is the other half of the network that both are in.
func siblingOf(n netip.Prefix) netip.Prefix {
	bytes := n.Addr().AsSlice()
	bit := n.Bits() - 1
	bytes[bit/8] ^= 1 << (7 - bit%8)
	a, _ := netip.AddrFromSlice(bytes)
	return netip.PrefixFrom(a, n.Bits())
}

// portsOf a peer, as a policy has them: consecutive ports are ranges, and very many ports are one range. gaps is set if that has ports that
// were not seen.
func portsOf(ports []policy.PortRange, widen bool) (out []policy.PortRange, gaps bool) {
	slices.SortFunc(ports, func(a, b policy.PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	ports = slices.Compact(ports)
	for i := 0; i < len(ports); {
		protocol := ports[i].Protocol
		j := i
		for j < len(ports) && ports[j].Protocol == protocol {
			j++
		}
		of := ranges(ports[i:j])
		if widen && len(of) > mostPorts {
			of = []policy.PortRange{{Protocol: protocol, First: ports[i].First, Last: ports[j-1].Last}}
			gaps = true
		}
		out = append(out, of...)
		i = j
	}
	return out, gaps
}

// ranges of ports of one protocol, which are sorted.
func ranges(ports []policy.PortRange) (out []policy.PortRange) {
	for i := 0; i < len(ports); {
		j := i + 1
		for j < len(ports) && ports[j].First == ports[j-1].First+1 {
			j++
		}
		if j-i >= consecutivePorts {
			out = append(out, policy.PortRange{Protocol: ports[i].Protocol, First: ports[i].First, Last: ports[j-1].First})
		} else {
			out = append(out, ports[i:j]...)
		}
		i = j
	}
	return out
}

func portText(ports []policy.PortRange) string {
	var out []string
	for _, p := range ports {
		if p.First == p.Last {
			out = append(out, fmt.Sprintf("%s %d", p.Protocol, p.First))
		} else {
			out = append(out, fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last))
		}
	}
	return strings.Join(out, ", ")
}

func networkPolicyPorts(ports []policy.PortRange) (out []networkingv1.NetworkPolicyPort) {
	for _, p := range ports {
		port := networkingv1.NetworkPolicyPort{Protocol: new(corev1.Protocol(p.Protocol.String())), Port: new(intstr.FromInt32(int32(p.First)))}
		if p.First != p.Last {
			port.EndPort = new(int32(p.Last))
		}
		out = append(out, port)
	}
	return out
}
