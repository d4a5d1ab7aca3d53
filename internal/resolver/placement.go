package resolver

import (
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// address is an IP address, IPv4 as IPv4-mapped IPv6. It contains no pointer, because there may be millions.
type address [16]byte

func (a address) ip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

func (a address) compare(b address) int { return a.ip().Compare(b.ip()) }

// placement distributes the addresses of one group over slices of at most max addresses. An address stays in
// its first slice until it leaves the group, or until two slices are merged.
type placement struct {
	max     int
	members map[address]place
	// slices are sorted by address, each of them. There is always a first one, because it contains the number
	// of slices.
	slices [][]address
	// waiting are addresses to place after adoption, when it is clear which places are free; see adopt.
	adopting bool
	waiting  [][]address
}

// place is the slice of an address, and the number of pods that have the address. For a moment there may be
// two: one that ends and its successor.
type place struct {
	slice int32
	refs  int32
}

func newPlacement(max int) *placement {
	return &placement{max: max, members: map[address]place{}, slices: make([][]address, 1)}
}

// adopt gives the placement the existing slices: an address that is added before endAdoption keeps its place.
// A slice of more than max addresses, from a time when max was larger, gets no more addresses, and none of
// its addresses moves.
func (p *placement) adopt(existing [][]address) {
	p.adopting = true
	if len(existing) > 0 {
		p.slices = make([][]address, len(existing))
	}
	for i, addresses := range existing {
		for _, a := range addresses {
			if _, ok := p.members[a]; !ok {
				p.members[a] = place{slice: int32(i)}
				p.insert(int32(i), a)
			}
		}
	}
}

// endAdoption removes the adopted addresses that were not added again, and places the waiting ones.
func (p *placement) endAdoption() {
	p.adopting = false
	for i := range p.slices {
		p.slices[i] = slices.DeleteFunc(p.slices[i], func(a address) bool {
			gone := p.members[a].refs == 0
			if gone {
				delete(p.members, a)
			}
			return gone
		})
	}
	ignore := func(int32) {}
	for _, addresses := range p.waiting {
		p.update(nil, addresses, ignore)
	}
	p.waiting = nil
	p.merge(ignore)
}

// update removes and adds addresses of one pod, and calls touched with the index of each slice that becomes
// different, appears or disappears; possibly more than once for one slice.
func (p *placement) update(remove, add []address, touched func(int32)) {
	freed := int32(-1)
	for _, a := range remove {
		m := p.members[a]
		if m.refs--; m.refs > 0 {
			p.members[a] = m
			continue
		}
		delete(p.members, a)
		at, _ := slices.BinarySearchFunc(p.slices[m.slice], a, address.compare)
		p.slices[m.slice] = slices.Delete(p.slices[m.slice], at, at+1)
		touched(m.slice)
		freed = m.slice
	}
	var fresh []address
	for _, a := range add {
		if m, ok := p.members[a]; ok {
			m.refs++
			p.members[a] = m
			continue
		}
		fresh = append(fresh, a)
	}
	if p.adopting {
		if len(fresh) > 0 {
			p.waiting = append(p.waiting, fresh)
		}
		return
	}
	for together := range slices.Chunk(fresh, p.max) {
		p.put(p.room(len(together), freed, touched), together, touched)
	}
	if len(remove) > 0 {
		p.merge(touched)
	}
}

// room returns a slice with n free places: the preferred one, or the first, or a new one. A pod's addresses
// go to one slice, so that its deletion changes one slice.
func (p *placement) room(n int, preferred int32, touched func(int32)) int32 {
	if preferred >= 0 && len(p.slices[preferred])+n <= p.max {
		return preferred
	}
	for i := range p.slices {
		if len(p.slices[i])+n <= p.max {
			return int32(i)
		}
	}
	p.slices = append(p.slices, nil)
	touched(0) // it contains the number of slices
	return int32(len(p.slices) - 1)
}

func (p *placement) put(slice int32, addresses []address, touched func(int32)) {
	for _, a := range addresses {
		m := p.members[a] // an address that moves has a place already
		m.slice = slice
		if m.refs == 0 {
			m.refs = 1
		}
		p.members[a] = m
		p.insert(slice, a)
	}
	touched(slice)
}

func (p *placement) insert(slice int32, a address) {
	at, _ := slices.BinarySearchFunc(p.slices[slice], a, address.compare)
	p.slices[slice] = slices.Insert(p.slices[slice], at, a)
}

// merge merges the two emptiest slices and moves the last one to the free index, while at most half of all
// places are taken and a quarter stays free afterwards. So the next pods do not undo it.
func (p *placement) merge(touched func(int32)) {
	for n := len(p.slices); n > 1 && 2*len(p.members) <= n*p.max && 4*len(p.members) <= 3*(n-1)*p.max; n-- {
		i, j := 0, 1
		if len(p.slices[j]) < len(p.slices[i]) {
			i, j = j, i
		}
		for k := 2; k < n; k++ {
			switch size := len(p.slices[k]); {
			case size < len(p.slices[i]):
				i, j = k, i
			case size < len(p.slices[j]):
				j = k
			}
		}
		i, j = min(i, j), max(i, j)
		if len(p.slices[j]) > 0 {
			p.put(int32(i), p.slices[j], touched)
		}
		if last := n - 1; j != last {
			p.slices[j] = nil
			p.put(int32(j), p.slices[last], touched)
		}
		p.slices[n-1] = nil
		p.slices = p.slices[:n-1]
		touched(int32(n - 1))
		touched(0)
	}
}

// addresses returns those of one slice, sorted, in the form of the API.
func (p *placement) addresses(slice int32) []v1alpha1.CIDR {
	out := make([]v1alpha1.CIDR, len(p.slices[slice]))
	for i, a := range p.slices[slice] {
		ip := a.ip()
		out[i] = v1alpha1.CIDR(netip.PrefixFrom(ip, ip.BitLen()).String())
	}
	return out
}
