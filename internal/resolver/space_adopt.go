package resolver

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// sliceStem begins the names of slices.
const sliceStem = "ips-"

// maxNumber bounds the numbers of adopted slices, so that enough numbers are left above them.
const maxNumber = 1 << 30

// sliceName is the name of the slice with this number.
func sliceName(number int32) string { return sliceStem + strconv.Itoa(int(number)) }

// sliceNumber is the number of the slice with this name, or false if it is not the name of a slice.
func sliceNumber(name string) (int32, bool) {
	n, err := strconv.ParseInt(strings.TrimPrefix(name, sliceStem), 10, 32)
	return int32(n), err == nil && n >= 0 && n <= maxNumber && name == sliceName(int32(n))
}

// IsSliceName reports whether a resolver may want a slice with this name.
func IsSliceName(name string) bool {
	_, ok := sliceNumber(name)
	return ok
}

// spec returns a slice in the form of the API, or false if there is none with this number.
func (s *space) spec(number int32) (v1alpha1.PolicyEndpointSliceSpec, bool) {
	x, ok := s.slices[number]
	if !ok {
		return v1alpha1.PolicyEndpointSliceSpec{}, false
	}
	out := v1alpha1.PolicyEndpointSliceSpec{Count: int32(len(x.addresses))}
	ids := slices.SortedFunc(maps.Keys(x.parts), func(a, b int32) int { return strings.Compare(s.groups[a].name, s.groups[b].name) })
	index := make(map[int32]int32, len(ids))
	for i, id := range ids {
		g := s.groups[id]
		index[id] = int32(i)
		p := v1alpha1.GroupPart{Name: g.name}
		if _, ok := x.lists[id]; ok {
			p.Selector = g.selector.DeepCopy()
			for _, n := range g.slices {
				p.Slices = append(p.Slices, sliceName(n))
			}
			slices.Sort(p.Slices)
		}
		out.Groups = append(out.Groups, p)
	}
	type run struct {
		groups    []int32
		addresses []address
	}
	runs := map[int32]*run{}
	for id := range x.classes {
		r := &run{}
		for _, g := range s.classes[id].groups {
			r.groups = append(r.groups, index[g])
		}
		slices.Sort(r.groups)
		runs[id] = r
	}
	for _, a := range x.addresses {
		for _, at := range s.seatsOf(a) {
			if at.slice == number {
				runs[at.class].addresses = append(runs[at.class].addresses, a)
			}
		}
	}
	for _, r := range slices.SortedFunc(maps.Values(runs), func(a, b *run) int { return slices.Compare(a.groups, b.groups) }) {
		out.Classes = append(out.Classes, v1alpha1.AddressClass{Groups: r.groups, Count: int32(len(r.addresses))})
		for _, a := range r.addresses {
			ip := a.ip()
			out.Addresses = append(out.Addresses, v1alpha1.CIDR(netip.PrefixFrom(ip, ip.BitLen()).String()))
		}
	}
	return out, true
}

// adopt gives the space the existing slices. Until the next flush, their addresses keep their places. Any
// client may have written a slice, so nothing of its content is certain. A slice with more addresses than the
// limit, from a time when that was larger, gets no more, and none of its addresses moves.
func (s *space) adopt(existing map[int32]*v1alpha1.PolicyEndpointSliceSpec) {
	s.adopting = true
	numbers := slices.Sorted(maps.Keys(existing))
	listed := map[int32]map[int32]bool{} // by the group's id and the slice's number
	for _, number := range numbers {
		s.next = number
		s.newSlice()
	}
	for _, number := range numbers {
		for _, p := range existing[number].Groups {
			id := s.group(p.Name)
			s.addPart(number, id)
			if len(p.Slices) == 0 || s.groups[id].lister != none {
				continue
			}
			s.groups[id].lister = number
			s.slices[number].lists[id] = struct{}{}
			listed[id] = map[int32]bool{}
			for _, name := range p.Slices {
				if n, ok := sliceNumber(name); ok {
					listed[id][n] = true
				}
			}
		}
	}
	// While slices are merged, an address may be in two of them. The one that readers use now keeps it.
	for _, counted := range []bool{true, false} {
		for _, number := range numbers {
			s.adoptSlice(number, existing[number], func(id int32) bool { return listed[id][number] == counted })
		}
	}
	for id, g := range s.groups {
		for _, number := range slices.Clone(g.slices) {
			if s.slices[number].parts[id] == 0 && !listed[id][number] && g.lister != number {
				s.dropPart(number, id)
			}
		}
	}
	clear(s.grown)
}

// adoptSlice seats the addresses of an existing slice in those of its groups that are counted, unless another
// slice has them already.
func (s *space) adoptSlice(number int32, spec *v1alpha1.PolicyEndpointSliceSpec, counted func(id int32) bool) {
	rest := spec.Addresses
	for _, c := range spec.Classes {
		n := min(max(0, int(c.Count)), len(rest))
		var groups []int32
		for _, i := range c.Groups {
			if i < 0 || int(i) >= len(spec.Groups) {
				continue
			}
			if id := s.group(spec.Groups[i].Name); counted(id) {
				groups = insert(groups, id)
			}
		}
		for _, text := range rest[:n] {
			p, err := parsePrefix(string(text))
			if err != nil || !p.IsSingleIP() {
				continue
			}
			a := address(p.Addr().As16())
			var have []int32
			for _, at := range s.seatsOf(a) {
				if at.slice == number {
					have = s.classes[at.class].groups
				}
			}
			more := slices.DeleteFunc(slices.Clone(groups), func(id int32) bool { return s.isSeated(id, a) })
			if len(more) > 0 {
				s.seat(a, number, join(have, more))
			}
		}
		rest = rest[n:]
	}
}

// compareAdopted turns pending, which has all memberships after an adoption, into the difference from the
// adopted ones, and drops the groups that are not in use.
func (s *space) compareAdopted() {
	s.adopting = false
	for _, a := range slices.SortedFunc(maps.Keys(s.seats), address.compare) {
		p := s.changing(a)
		enters := p.enters
		var have []int32
		for _, at := range s.seatsOf(a) {
			have = join(have, s.classes[at.class].groups)
		}
		p.enters = slices.DeleteFunc(slices.Clone(enters), func(id int32) bool { return hasID(have, id) })
		p.leaves = slices.DeleteFunc(have, func(id int32) bool { return hasID(enters, id) })
		s.pending[a] = p
	}
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		if !s.groups[id].used {
			s.doomed = append(s.doomed, id)
		}
	}
}
