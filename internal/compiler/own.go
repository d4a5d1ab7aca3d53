package compiler

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/policy"
)

// OwnAddress is the address under which Maps.Pods has a pod's second entry, if it has one: for its traffic to its own node and to itself
// through a Service, which NetworkPolicies never judge. It is the pod's address with the first byte inverted, IPv4 as IPv4-mapped IPv6:
// unicast addresses of 2000::/3 and fc00::/7 become unassigned ones, and IPv4 ones become multicast. So it is no other pod's.
func OwnAddress(a netip.Addr) netip.Addr {
	b := a.As16()
	b[0] ^= 0xff
	return netip.AddrFrom16(b)
}

// LookupOwn decides one direction of a flow of a pod to its own node or to itself as the BPF program does. The peer's address was learned
// under no pattern.
func (t *Maps) LookupOwn(d policy.Direction, f policy.Flow) (v Decision, isolated bool) {
	return t.LookupOwnNamed(d, f, nil)
}

// LookupOwnNamed is LookupOwn where the peer's address was learned under these patterns.
func (t *Maps) LookupOwnNamed(d policy.Direction, f policy.Flow, patterns []PatternID) (v Decision, isolated bool) {
	set := t.Pods[OwnAddress(f.Self(d))].Sets[d]
	v, isolated = t.lookup(set, d, f)
	return t.byNames(set, f, v, patterns), isolated
}

// LookupOwnAudit is LookupAudit for a flow of a pod to its own node or to itself.
func (t *Maps) LookupOwnAudit(d policy.Direction, f policy.Flow) (v Decision, audited bool) {
	return t.lookup(t.Pods[OwnAddress(f.Self(d))].AuditSets[d], d, f)
}
