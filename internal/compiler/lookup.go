package compiler

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/policy"
)

// Lookup judges one direction of a flow as the BPF program does, in plain Go: isolated is false where the pod at that end, if there is
// one, is not isolated in that direction.
func (t *Tables) Lookup(d policy.Direction, f policy.Flow) (v Verdict, isolated bool) {
	self := f.Source
	if d == policy.Ingress {
		self = f.Destination
	}
	pod, ok := t.Pods[self]
	if !ok || pod.Sets[d] == 0 {
		return Verdict{Action: policy.Accept, Tier: policy.TierBaseline}, false
	}
	row, ok := t.Rows[RowKey{pod.Sets[d], t.class(f.Peer(d))}]
	if !ok {
		row, ok = t.Rows[RowKey{pod.Sets[d], 0}]
	}
	if !ok {
		return DefaultDeny, true
	}
	if row.Table != 0 && f.Protocol.HasPorts() {
		for bits := 16; bits >= 0; bits-- {
			key := PortKey{row.Table, f.Protocol, f.Port &^ uint16(1<<(16-bits)-1), uint8(bits)}
			if v, ok := t.Ports[key]; ok {
				return v, true
			}
		}
	}
	return row.Default, true
}

// DefaultDeny is the verdict of an isolated pod for what no rule decides.
var DefaultDeny = Verdict{Action: policy.Deny, Tier: policy.TierNetworkPolicy}

func (t *Tables) class(addr netip.Addr) ClassID {
	if c, ok := t.Addresses[addr]; ok {
		return c
	}
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if c, ok := t.Networks[netip.PrefixFrom(addr, bits).Masked()]; ok {
			return c
		}
	}
	return 0
}
