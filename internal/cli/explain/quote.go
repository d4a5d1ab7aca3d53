package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// mostQuoted is how many peers, ports and excepts a quotation for a person has.
const mostQuoted = 6

// quote a rule as a manifest has it. The short form has the peer with this address.
func quote(d policy.Direction, np *networkingv1.NetworkPolicy, i int, peer netip.Addr) Rule {
	out := Rule{Policy: np.Namespace + "/" + np.Name}
	if d == policy.Ingress {
		out.Path = fmt.Sprintf("spec.ingress[%d]", i)
	} else {
		out.Path = fmt.Sprintf("spec.egress[%d]", i)
	}
	r := netpol.Rules(d, np)[i]
	out.Quote = text(d, r)
	short, left := shorten(r, peer)
	if out.short = out.Quote; left != "" {
		out.short = text(d, short) + "# less " + left + ", which -o json has\n"
	}
	return out
}

func text(d policy.Direction, r netpol.Rule) string {
	var out []byte
	if d == policy.Ingress {
		out, _ = yaml.Marshal([]networkingv1.NetworkPolicyIngressRule{{From: r.Peers, Ports: r.Ports}})
	} else {
		out, _ = yaml.Marshal([]networkingv1.NetworkPolicyEgressRule{{To: r.Peers, Ports: r.Ports}})
	}
	return string(out)
}

// shorten a rule to the peers and ports that fit on a screen, and describe the rest.
func shorten(r netpol.Rule, peer netip.Addr) (netpol.Rule, string) {
	var left []string
	if n := len(r.Peers) - mostQuoted; n > 0 {
		peers := slices.Clone(r.Peers)
		slices.SortStableFunc(peers, func(a, b networkingv1.NetworkPolicyPeer) int { return rank(&a, peer) - rank(&b, peer) })
		r.Peers = peers[:mostQuoted]
		left = append(left, fmt.Sprintf("%d more peers", n))
	}
	if n := len(r.Ports) - mostQuoted; n > 0 {
		r.Ports = r.Ports[:mostQuoted]
		left = append(left, fmt.Sprintf("%d more ports", n))
	}
	excepts := 0
	peers := slices.Clone(r.Peers)
	for i := range peers {
		if b := peers[i].IPBlock; b != nil && len(b.Except) > mostQuoted {
			excepts += len(b.Except) - mostQuoted
			peers[i].IPBlock = &networkingv1.IPBlock{CIDR: b.CIDR, Except: b.Except[:mostQuoted]}
		}
	}
	r.Peers = peers
	if excepts > 0 {
		left = append(left, fmt.Sprintf("%d more excepts", excepts))
	}
	return r, strings.Join(left, " and ")
}

// rank puts an ipBlock that has the address first.
func rank(p *networkingv1.NetworkPolicyPeer, addr netip.Addr) int {
	if p.IPBlock != nil && netpol.NewPeerMatcher("", p).Matches(addr, nil, nil) {
		return 0
	}
	return 1
}
