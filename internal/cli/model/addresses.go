package model

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// Synthetic and Synthetic6 are the blocks that pods without an address are given one of, where the pods' own blocks are not known: those for
// benchmarks (RFC 2544, RFC 5180). No verdict depends on it.
var (
	Synthetic  = netip.MustParsePrefix("198.18.0.0/15")
	Synthetic6 = netip.MustParsePrefix("2001:2::/48")
)

// private are the blocks that pods may have addresses of, where nothing else is known: those of private networks (RFC 1918, RFC 6598, RFC 4193),
// the one for benchmarks, which some clouds give to pods, and of IPv6 all that is global.
var private = prefixes("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "2000::/3", "fc00::/7")

// anyIPv4 holds all IPv4 addresses, and noPods the blocks of which no pod has one: those of no network, of the host itself, of one link, and
// those that are not of a single host. Private IPv6 blocks are already all that there are.
var (
	anyIPv4 = prefixes("0.0.0.0/0")
	noPods  = prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// Addressing is what is known of the addresses that a cluster gives to pods and Services.
type Addressing struct {
	// PodCIDRs that pods without a known address have theirs of; none: any private address.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs hold the Services' cluster IPs.
	ServiceCIDRs []netip.Prefix
	// IPv4 and IPv6 are the pods' families; neither: those that the input shows.
	IPv4, IPv6 bool
}

// addressPods gives addresses to each pod that has none and could have one. They identify the pod, and no more: see Possible.
func (c *Cluster) addressPods(a Addressing) error {
	c.Addressing = a
	taken := map[netip.Addr]bool{}
	for i := range c.Pods {
		for _, addr := range policy.PodAddresses(&c.Pods[i].Pod) {
			taken[addr] = true
		}
	}
	c.findFamilies(taken)
	pools := [2]*pool{newPool(c.podCIDRs(true), Synthetic), newPool(c.podCIDRs(false), Synthetic6)}
	hosts := [2]*pool{newPool(nil, Synthetic), newPool(nil, Synthetic6)}
	for i := range c.Pods {
		p := &c.Pods[i]
		if hasEnded(&p.Pod) || len(policy.PodAddresses(&p.Pod)) > 0 {
			continue
		}
		from := pools
		if p.Spec.HostNetwork {
			if c.onKnownNode(p) {
				continue
			}
			from = hosts
		}
		p.Invented = true
		p.Status.PodIP, p.Status.PodIPs = "", nil
		for f, wanted := range [2]bool{c.Addressing.IPv4, c.Addressing.IPv6} {
			if !wanted {
				continue
			}
			addr, err := from[f].next(taken)
			if err != nil {
				return err
			}
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: addr.String()})
		}
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	return nil
}

// onKnownNode gives a pod of the host's network the addresses of its node, if that is known.
func (c *Cluster) onKnownNode(p *Pod) bool {
	for i := range c.Nodes {
		if n := &c.Nodes[i]; n.Name == p.Spec.NodeName {
			for _, a := range NodeAddresses(n) {
				p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
			}
		}
	}
	if len(p.Status.PodIPs) == 0 {
		return false
	}
	p.Status.PodIP = p.Status.PodIPs[0].IP
	return true
}

// NodeAddresses are a node's addresses inside the cluster.
func NodeAddresses(n *corev1.Node) (out []netip.Addr) {
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// findFamilies that pods have: those asked for, those of the pods that have addresses, or those that Services and nodes show. Where nothing
// shows any, pods have IPv4 addresses among themselves, and of IPv6 too for addresses outside.
func (c *Cluster) findFamilies(known map[netip.Addr]bool) {
	a := &c.Addressing
	if a.IPv4 || a.IPv6 {
		return
	}
	show := func(addr netip.Addr) {
		a.IPv4, a.IPv6 = a.IPv4 || addr.Is4(), a.IPv6 || addr.Is6()
	}
	for _, p := range a.PodCIDRs {
		show(p.Addr())
	}
	if !a.IPv4 && !a.IPv6 {
		for addr := range known {
			show(addr)
		}
	}
	if a.IPv4 || a.IPv6 {
		return
	}
	for i := range c.Services {
		for _, ip := range c.Services[i].Spec.ClusterIPs {
			if addr, err := netip.ParseAddr(ip); err == nil {
				show(addr)
			}
		}
	}
	for i := range c.Nodes {
		for _, cidr := range c.Nodes[i].Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(cidr); err == nil {
				show(p.Addr())
			}
		}
	}
	if !a.IPv6 {
		a.IPv4, a.IPv6, c.assumed6 = true, true, true
	}
}

func (c *Cluster) podCIDRs(is4 bool) (out []netip.Prefix) {
	for _, p := range c.Addressing.PodCIDRs {
		if p.Addr().Is4() == is4 {
			out = append(out, p)
		}
	}
	return out
}

// pool of addresses to give.
type pool struct {
	blocks []netip.Prefix
	at     netip.Addr
}

func newPool(blocks []netip.Prefix, otherwise netip.Prefix) *pool {
	if len(blocks) == 0 {
		blocks = []netip.Prefix{otherwise}
	}
	return &pool{blocks: blocks, at: blocks[0].Masked().Addr()}
}

func (p *pool) next(taken map[netip.Addr]bool) (netip.Addr, error) {
	for len(p.blocks) > 0 {
		p.at = p.at.Next()
		if p.blocks[0].Contains(p.at) {
			if !taken[p.at] {
				taken[p.at] = true
				return p.at, nil
			}
			continue
		}
		full := p.blocks[0]
		if p.blocks = p.blocks[1:]; len(p.blocks) == 0 {
			return p.at, fmt.Errorf("there are more pods than %s has addresses: give a larger --pod-cidr, or one more", full)
		}
		p.at = p.blocks[0].Masked().Addr()
	}
	return p.at, nil
}

// FixAddresses takes the addresses that pods were given for those that they have.
func (c *Cluster) FixAddresses() {
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Invented && c.assumed6 {
			p.Status.PodIPs = p.Status.PodIPs[:1]
		}
		p.Invented = false
	}
	c.Addressing.IPv6 = c.Addressing.IPv6 && !c.assumed6
	c.assumed6 = false
}

// possible are the blocks that the address of a pod may be of, where it is not known.
func (c *Cluster) possible(is4, onHost bool) []netip.Prefix {
	var out []netip.Prefix
	if onHost {
		for i := range c.Nodes {
			for _, a := range NodeAddresses(&c.Nodes[i]) {
				if a.Is4() == is4 {
					out = append(out, netip.PrefixFrom(a, a.BitLen()))
				}
			}
		}
	} else {
		out = c.podCIDRs(is4)
	}
	if len(out) > 0 {
		return out
	}
	for _, p := range private {
		if p.Addr().Is4() == is4 {
			out = append(out, p)
		}
	}
	return out
}

// A Part is a range of addresses that no ipBlock tells apart.
type Part struct{ First, Last netip.Addr }

// Count of its addresses.
func (p Part) Count() *big.Int {
	first, last := new(big.Int).SetBytes(p.First.AsSlice()), new(big.Int).SetBytes(p.Last.AsSlice())
	return last.Add(last.Sub(last, first), big.NewInt(1))
}

// String is a CIDR where the part is one, an address or "first-last".
func (p Part) String() string {
	if p.First == p.Last {
		return p.First.String()
	}
	for bits := range p.First.BitLen() {
		if cidr := netip.PrefixFrom(p.First, bits); cidr.Masked().Addr() == p.First && netipx.PrefixLastIP(cidr) == p.Last {
			return cidr.String()
		}
	}
	return p.First.String() + "-" + p.Last.String()
}

// MarshalText makes a Part a string in JSON.
func (p Part) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Parts are the pieces into which blocks cut a space, in order.
func Parts(space, blocks []netip.Prefix) []Part {
	var out []Part
	for _, s := range merge(space) {
		starts := []netip.Addr{s.First}
		add := func(a netip.Addr) {
			if a.IsValid() && a.Is4() == s.First.Is4() && s.First.Less(a) && !s.Last.Less(a) {
				starts = append(starts, a)
			}
		}
		for _, b := range blocks {
			add(b.Masked().Addr())
			add(netipx.PrefixLastIP(b).Next())
		}
		slices.SortFunc(starts, netip.Addr.Compare)
		starts = slices.Compact(starts)
		for i, first := range starts {
			last := s.Last
			if i+1 < len(starts) {
				last = starts[i+1].Prev()
			}
			out = append(out, Part{first, last})
		}
	}
	return out
}

// merge blocks into disjoint ranges, in order.
func merge(blocks []netip.Prefix) []Part {
	var parts []Part
	for _, b := range blocks {
		parts = append(parts, Part{b.Masked().Addr(), netipx.PrefixLastIP(b)})
	}
	return union(parts)
}

// union of ranges, as disjoint ones, in order.
func union(parts []Part) []Part {
	var out []Part
	for _, p := range slices.SortedFunc(slices.Values(parts), func(a, b Part) int { return a.First.Compare(b.First) }) {
		if n := len(out); n > 0 && out[n-1].First.Is4() == p.First.Is4() && !out[n-1].Last.Less(p.First) {
			if out[n-1].Last.Less(p.Last) {
				out[n-1].Last = p.Last
			}
			continue
		}
		out = append(out, p)
	}
	return out
}

// blocksOf clusters' policies: each ipBlock, except, network and address of a node that a peer selects, once.
func blocksOf(clusters ...*Cluster) []netip.Prefix {
	seen := map[netip.Prefix]bool{}
	var out []netip.Prefix
	add := func(blocks []netip.Prefix) {
		for _, p := range blocks {
			if !seen[p] {
				seen[p] = true
				out = append(out, p)
			}
		}
	}
	for _, c := range clusters {
		for _, d := range policy.Directions {
			for i := range c.Policies {
				for _, r := range netpol.Rules(d, &c.Policies[i]) {
					add(blocksOfRule(&r))
				}
			}
			for i := range c.ClusterPolicies {
				for _, r := range ClusterRules(d, &c.ClusterPolicies[i]) {
					for j := range r.Peers {
						add(newClusterPeer(&r.Peers[j], c).blocks())
					}
				}
			}
		}
	}
	return out
}

func blocksOfRule(r *netpol.Rule) (out []netip.Prefix) {
	for i := range r.Peers {
		if b := r.Peers[i].IPBlock; b != nil {
			for _, text := range append([]string{b.CIDR}, b.Except...) {
				if p, ok := parseBlock(text); ok {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// parseBlock reads a block as netpol.PeerMatcher does.
func parseBlock(text string) (netip.Prefix, bool) {
	_, n, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 128 && addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits).Masked(), true
}
