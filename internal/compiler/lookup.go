package compiler

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/policy"
)

// Lookup decides one direction of a flow as the BPF program does, in plain Go: isolated is false where the pod at that end, if there is
// one, is not isolated in that direction. The peer's address was learned under no pattern.
func (t *Maps) Lookup(d policy.Direction, f policy.Flow) (v Decision, isolated bool) {
	return t.LookupNamed(d, f, nil)
}

// LookupNamed is Lookup where the peer's address was learned under these patterns.
func (t *Maps) LookupNamed(d policy.Direction, f policy.Flow, patterns []PatternID) (v Decision, isolated bool) {
	set := t.Pods[f.Self(d)].Sets[d]
	v, isolated = t.lookup(set, d, f)
	return t.byNames(set, f, v, patterns), isolated
}

// LookupSet decides one direction of a flow by a set that some pod has, where the peer's address was learned under these patterns.
func (t *Maps) LookupSet(set SetID, d policy.Direction, f policy.Flow, patterns []PatternID) Decision {
	v, _ := t.lookup(set, d, f)
	return t.byNames(set, f, v, patterns)
}

// HasPattern reports whether a rule of a set has one of these patterns.
func (t *Maps) HasPattern(set SetID, patterns []PatternID) bool {
	for _, id := range patterns {
		for _, tier := range namedTiers {
			if _, ok := t.Rows[RowKey{set, NameClass(id, tier)}]; ok {
				return true
			}
		}
	}
	return false
}

// LookupAudit returns what would become of one direction of a flow if audited policies were enforced, as the BPF program finds it out. It
// reports false where no audited policy has a say.
func (t *Maps) LookupAudit(d policy.Direction, f policy.Flow) (v Decision, audited bool) {
	return t.lookup(t.Pods[f.Self(d)].AuditSets[d], d, f)
}

func (t *Maps) lookup(set SetID, d policy.Direction, f policy.Flow) (v Decision, isolated bool) {
	if set == 0 {
		return Decision{Action: policy.Allow, Tier: policy.TierBaseline}, false
	}
	peer := f.Peer(d)
	row, ok := t.Row(set, t.Class(netip.PrefixFrom(peer, peer.BitLen())))
	if !ok {
		return DefaultDeny, true
	}
	return t.decide(row, f), true
}

// decide is the decision of a row about the ports of a flow.
func (t *Maps) decide(row Row, f policy.Flow) Decision {
	if row.PortList != 0 && f.Protocol.HasPorts() {
		for bits := 16; bits >= 0; bits-- {
			key := PortKey{row.PortList, f.Protocol, f.Port &^ uint16(1<<(16-bits)-1), uint8(bits)}
			if v, ok := t.Ports[key]; ok {
				return v
			}
		}
	}
	return row.Default
}

// DefaultDeny is the decision of an isolated pod for what no rule decides.
var DefaultDeny = Decision{Action: policy.Deny, Tier: policy.TierNetworkPolicy}

// Class is the class of an address, or of those addresses in a prefix for which the maps have nothing longer.
func (t *Maps) Class(p netip.Prefix) ClassID {
	if p.IsSingleIP() {
		if c, ok := t.Addresses[p.Addr()]; ok {
			return c
		}
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if c, ok := t.Networks[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return c
		}
	}
	return 0
}

// Row is what a set decides about a class. Without one it is DefaultDeny.
func (t *Maps) Row(set SetID, class ClassID) (Row, bool) {
	row, ok := t.Rows[RowKey{set, class}]
	if !ok && !isNameClass(class) {
		row, ok = t.Rows[RowKey{set, 0}]
	}
	return row, ok
}
