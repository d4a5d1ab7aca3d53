package model

import (
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// anyIPv6 holds all IPv6 addresses that hosts on the internet may have.
var anyIPv6 = prefixes("2000::/3", "64:ff9b::/96", "fc00::/7")

// outsideSpace are the addresses that hosts outside the cluster may have.
func outsideSpace(is4 bool) []netip.Prefix {
	if is4 {
		return anyIPv4
	}
	return anyIPv6
}

// JudgeName decides about egress to the addresses of one family that a DNS name may have outside the cluster, if the pod's node has learned them
// for the name. The destination of f only gives the family. Alternatives are by the rules that decide.
func (e *Evaluator) JudgeName(f policy.Flow, name string) (out []Alternative) {
	_, blocks := e.selfOf(policy.Egress, f, e.Evaluate(policy.Egress, f).Isolating)
	for _, part := range e.partsOf(outsideSpace(f.Destination.Is4()), blocks, noPods...).list {
		f.Destination = part.First
		c := e.Narrow(f)
		c.Names = reference.Names{name: {part.First}}
		is := c.Evaluate(policy.Egress, f)
		k := slices.IndexFunc(out, func(a Alternative) bool { return sameNamedRules(&a.ClusterDecision, &is) })
		if k < 0 {
			k = len(out)
			out = append(out, Alternative{ClusterDecision: is})
		}
		out[k].Parts = append(out[k].Parts, part)
	}
	for i := range out {
		if out[i].Parts = join(out[i].Parts); len(out) == 1 {
			out[i].Parts = nil
		}
	}
	return out
}

// sameNamedRules reports whether the same rules decided, in decisions of different copies of a cluster.
func sameNamedRules(a, b *reference.ClusterDecision) bool {
	x, y := *a, *b
	if x.NetworkPolicy == nil || y.NetworkPolicy == nil {
		return x.NetworkPolicy == y.NetworkPolicy && sameRules(a, b)
	}
	p, q := x.NetworkPolicy, y.NetworkPolicy
	if p.Rule != q.Rule || (p.Policy == nil) != (q.Policy == nil) || p.Policy != nil && (p.Policy.Namespace != q.Policy.Namespace || p.Policy.Name != q.Policy.Name) {
		return false
	}
	x.NetworkPolicy, y.NetworkPolicy = nil, nil
	return sameRules(&x, &y)
}

// PlaceholderOf is an address of a family that stands for one outside the cluster that is not known (RFC 5737, RFC 3849).
func PlaceholderOf(is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	return netip.MustParseAddr("2001:db8::1")
}
