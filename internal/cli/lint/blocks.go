package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
)

// usual are the blocks that most clusters give to pods (RFC 1918, RFC 4193).
var usual = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

// podBlocks are the blocks that pods whose addresses are not known have theirs of, and whether they are known.
func (l *linter) podBlocks() (blocks []netip.Prefix, known bool) {
	if cidrs := l.cluster.Addressing.PodCIDRs; len(cidrs) > 0 {
		return cidrs, true
	}
	return usual, false
}

// uncovered are the pods' blocks that an ipBlock holds wholly or in part, and does not except.
func (l *linter) uncovered(block *networkingv1.IPBlock) (out []string) {
	cidr, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return nil
	}
	blocks, _ := l.podBlocks()
	for _, b := range blocks {
		var set netipx.IPSetBuilder
		set.AddPrefix(b)
		var of netipx.IPSetBuilder
		of.AddPrefix(cidr.Masked())
		for _, text := range block.Except {
			if e, err := netip.ParsePrefix(text); err == nil {
				of.RemovePrefix(e.Masked())
			}
		}
		held, err := of.IPSet()
		if err != nil {
			continue
		}
		set.Intersect(held)
		if s, err := set.IPSet(); err == nil && len(s.Ranges()) > 0 {
			out = append(out, b.String())
		}
	}
	return out
}

func (l *linter) blockCoversCluster() {
	invented := slices.ContainsFunc(l.pods, func(p pod) bool { return p.isPeer && p.Invented })
	l.eachPeer(func(np *networkingv1.NetworkPolicy, at string, peer *networkingv1.NetworkPolicyPeer) {
		block := peer.IPBlock
		if block == nil {
			return
		}
		at += ".ipBlock"
		m := netpol.NewPeerMatcher(np.Namespace, peer)
		pods := l.podsWhere(func(p *pod) bool {
			return p.isPeer && !p.Invented && slices.ContainsFunc(p.addresses, func(a netip.Addr) bool { return m.Matches(a, nil, nil) })
		})
		everything := strings.HasSuffix(block.CIDR, "/0")
		_, known := l.podBlocks()
		switch ranges := l.uncovered(block); {
		case len(pods) > 0 && everything:
			l.found(Info, object(np), at, "If only addresses outside the cluster are meant, add the cluster's pod and node ranges to except.",
				"%s less its excepts holds the cluster's pods, such as %s", block.CIDR, pods[0].Key())
		case len(pods) > 0:
			l.found(Warning, object(np), at, "Select pods by labels: their addresses change. If others are meant, add the pods' range to except.",
				"%s holds pods, such as %s", block.CIDR, pods[0].Key())
		case !invented || len(ranges) == 0:
		case known && !everything:
			l.found(Warning, object(np), at, "Select pods by labels: their addresses change. If others are meant, add the pods' range to except.",
				"%s holds addresses of pods, which are of %s", block.CIDR, strings.Join(ranges, " and "))
		case known || everything:
			l.found(Info, object(np), at, fmt.Sprintf("If only addresses outside the cluster are meant, add the cluster's pod and node ranges to except, such as %s.", strings.Join(ranges, " and ")),
				"%s less its excepts holds addresses that pods may have", block.CIDR)
		}
		for n := range l.cluster.Nodes {
			node := &l.cluster.Nodes[n]
			if !everything && slices.ContainsFunc(model.NodeAddresses(node), func(a netip.Addr) bool { return m.Matches(a, nil, nil) }) {
				l.found(Info, object(np), at, "Nothing, if the nodes are meant, and with them pods of the host network and clients of NodePorts.",
					"%s holds nodes of the cluster, such as %s", block.CIDR, node.Name)
				break
			}
		}
	})
}

// serviceAddress finds blocks of Services' addresses: the kernel replaces these by the pods' before policies apply.
func (l *linter) serviceAddress() {
	l.eachPeer(func(np *networkingv1.NetworkPolicy, at string, peer *networkingv1.NetworkPolicyPeer) {
		if peer.IPBlock == nil {
			return
		}
		cidr, err := netip.ParsePrefix(peer.IPBlock.CIDR)
		if err != nil {
			return
		}
		const fix = "Select the Service's pods by their labels, and give the pods' port."
		for i := range l.cluster.Services {
			if s := &l.cluster.Services[i]; cidr.IsSingleIP() && model.HasAddress(s, cidr.Addr().Unmap()) {
				l.found(Warning, object(np), at+".ipBlock", fix, "%s is an address of Service %s/%s: policies see the pods that it sends to, so the block matches none of its connections",
					cidr.Addr(), s.Namespace, s.Name)
				return
			}
		}
		within := func(p netip.Prefix) bool { return p.Bits() <= cidr.Bits() && p.Contains(cidr.Addr()) }
		if slices.ContainsFunc(l.cluster.Addressing.ServiceCIDRs, within) {
			l.found(Warning, object(np), at+".ipBlock", fix, "%s is in --service-cidr: policies see the pods that Services send to, so the block matches nothing", cidr)
		}
	})
}
