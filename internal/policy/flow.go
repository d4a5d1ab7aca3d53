package policy

import (
	"net/netip"
)

// Flow is the first packet of a connection as its client sent it and as the server will receive it: after DNAT, before SNAT.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            Protocol
	// Port is the destination port; 0 where the protocol has none.
	Port uint16
}

// Self returns the address of the pod whose rules of direction d match: the destination for Ingress, the source for Egress.
func (f Flow) Self(d Direction) netip.Addr {
	if d == Ingress {
		return f.Destination
	}
	return f.Source
}

// Peer returns the address that rules of direction d match: the source for Ingress, the destination for Egress.
func (f Flow) Peer(d Direction) netip.Addr {
	if d == Ingress {
		return f.Source
	}
	return f.Destination
}
