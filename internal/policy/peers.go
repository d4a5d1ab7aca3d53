package policy

import (
	"iter"
	"net/netip"
)

// Peers is a list of peers that takes 5 bytes for an IPv4 block and 17 for an IPv6 block: a policy may have many thousands. The
// zero value is an empty list. Lists with the same peers in the same order are equal.
type Peers struct {
	// packed is how many peers there are, then each: a block as packer.prefix writes it, or one of the markers and what is
	// said there.
	packed string
}

// Markers are no lengths of prefixes.
const (
	blockWithExcepts = 200 + iota // the block, then how many excepts, then each
	groupPeer                     // namespace and name
	namesPeer                     // how many names, then each
)

// ListPeers returns a list of these peers. Each is as Peer describes it.
func ListPeers(peers ...Peer) Peers {
	out := newPeerPacker(len(peers))
	for i := range peers {
		out.peer(&peers[i])
	}
	return out.list()
}

// Len returns how many peers there are.
func (p Peers) Len() int {
	if p.packed == "" {
		return 0
	}
	in := unpacker(p.packed)
	return in.number()
}

// All yields the peers in their order.
func (p Peers) All() iter.Seq[Peer] {
	return func(yield func(Peer) bool) {
		if p.packed == "" {
			return
		}
		in := unpacker(p.packed)
		for range in.number() {
			if !yield(in.peer()) {
				return
			}
		}
	}
}

// Packed returns the list as bytes, which are the same for equal lists only.
func (p Peers) Packed() string { return p.packed }

// A peerPacker makes a list of peers.
type peerPacker struct{ packer }

func newPeerPacker(count int) *peerPacker {
	p := &peerPacker{}
	if count > 0 {
		p.number(count)
	}
	return p
}

func (p *peerPacker) peer(peer *Peer) {
	switch {
	case len(peer.DomainNames) > 0:
		p.packer = append(p.packer, namesPeer)
		p.texts(peer.DomainNames)
	case !peer.CIDR.IsValid():
		p.packer = append(p.packer, groupPeer)
		p.text(peer.Group.Namespace)
		p.text(peer.Group.Name)
	case len(peer.Except) == 0:
		p.prefix(peer.CIDR)
	default:
		p.packer = append(p.packer, blockWithExcepts)
		p.prefix(peer.CIDR)
		p.number(len(peer.Except))
		for _, e := range peer.Except {
			p.prefix(e)
		}
	}
}

func (p *peerPacker) list() Peers { return Peers{string(p.packer)} }

// peer returns the next one. Its texts keep the list in memory.
func (u *unpacker) peer() (out Peer) {
	switch (*u)[0] {
	case namesPeer:
		u.bytes(1)
		out.DomainNames = u.texts()
	case groupPeer:
		u.bytes(1)
		out.Group = GroupKey{Namespace: u.text(), Name: u.text()}
	case blockWithExcepts:
		u.bytes(1)
		out.CIDR = u.prefix()
		out.Except = make([]netip.Prefix, u.number())
		for i := range out.Except {
			out.Except[i] = u.prefix()
		}
	default:
		out.CIDR = u.prefix()
	}
	return out
}
