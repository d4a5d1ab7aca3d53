package resolver

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// sliceStem begins the names of slices.
const sliceStem = "ips-"

// maxSuffix bounds the suffixes of adopted slices, so that enough are left above them.
const maxSuffix = 1 << 30

// sliceName is the name of the slice with this suffix.
func sliceName(suffix int32) string { return sliceStem + strconv.Itoa(int(suffix)) }

// sliceSuffix is the suffix of the name of a slice, or false if it is not the name of a slice.
func sliceSuffix(name string) (int32, bool) {
	n, err := strconv.ParseInt(strings.TrimPrefix(name, sliceStem), 10, 32)
	return int32(n), err == nil && n >= 0 && n <= maxSuffix && name == sliceName(int32(n))
}

// IsSliceName reports whether a resolver may want a slice with this name.
func IsSliceName(name string) bool {
	_, ok := sliceSuffix(name)
	return ok
}

// find returns the number of the slice with this name, or false if there is none.
func (s *space) find(name types.NamespacedName) (int32, bool) {
	h, ok := s.homes[name.Namespace]
	suffix, is := sliceSuffix(name.Name)
	if !ok || !is {
		return 0, false
	}
	number, ok := h.named[suffix]
	return number, ok
}

func (x *slice) name() types.NamespacedName {
	return types.NamespacedName{Namespace: x.home.namespace, Name: sliceName(x.suffix)}
}

// spec returns a slice in the form of the API.
func (s *space) spec(number int32) v1alpha1.PolicyEndpointSliceSpec {
	x := s.slices[number]
	out := v1alpha1.PolicyEndpointSliceSpec{Count: int32(len(x.addresses))}
	ids := slices.SortedFunc(maps.Keys(x.parts), func(a, b int32) int {
		return cmp.Or(compareBools(s.groups[b].shared, s.groups[a].shared), compareGroups(s.groups[a].key, s.groups[b].key))
	})
	index := make(map[int32]int32, len(ids))
	for i, id := range ids {
		g := s.groups[id]
		index[id] = int32(i)
		p := v1alpha1.GroupPart{Name: g.key.Name}
		if !g.shared && x.home.namespace == s.shared {
			p.Namespace = g.key.Namespace
		}
		if _, ok := x.lists[id]; ok {
			p.Selector = g.selector.DeepCopy()
			for _, n := range g.slices {
				if y := s.slices[n]; y.home == x.home {
					p.Slices = append(p.Slices, sliceName(y.suffix))
				} else {
					p.SharedSlices = append(p.SharedSlices, sliceName(y.suffix))
				}
			}
			slices.Sort(p.Slices)
			slices.Sort(p.SharedSlices)
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
	return out
}

// GroupOf returns the group that a slice in this namespace has a part of.
func GroupOf(namespace string, p *v1alpha1.GroupPart) policy.GroupKey {
	if p.Namespace != "" {
		namespace = p.Namespace
	}
	return policy.GroupKey{Namespace: namespace, Name: p.Name}
}

// groupOf returns the group that a slice in this namespace has a part of, and whether it is a shared one. It
// returns false if only slices in kidoban's own namespace may have such a part.
func (s *space) groupOf(namespace string, p *v1alpha1.GroupPart) (key policy.GroupKey, shared, ok bool) {
	isShared := namespace == s.shared
	return GroupOf(namespace, p), isShared && p.Namespace == "", isShared || p.Namespace == ""
}

// adopt gives the space the existing slices. Until the next flush, their addresses keep their places. Any
// client may have written a slice, so nothing of its content is certain. A slice with more addresses than the
// limit, from a time when that was larger, gets no more, and none of its addresses moves.
func (s *space) adopt(existing map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec) {
	s.adopting = true
	type adopted struct {
		name   types.NamespacedName
		suffix int32
	}
	var all []adopted
	for name := range existing {
		if suffix, ok := sliceSuffix(name.Name); ok {
			all = append(all, adopted{name, suffix})
		}
	}
	slices.SortFunc(all, func(a, b adopted) int {
		return cmp.Or(strings.Compare(a.name.Namespace, b.name.Namespace), cmp.Compare(a.suffix, b.suffix))
	})
	numbers := make([]int32, len(all))
	for i, x := range all {
		h := s.home(x.name.Namespace)
		h.next = x.suffix
		numbers[i] = s.newSlice(h)
	}
	listed := map[int32]map[int32]bool{} // by the group's id and the slice's number
	for i, x := range all {
		for j := range existing[x.name].Groups {
			p := &existing[x.name].Groups[j]
			key, shared, ok := s.groupOf(x.name.Namespace, p)
			if !ok {
				continue
			}
			id := s.group(key, shared)
			s.addPart(numbers[i], id)
			g := s.groups[id]
			if len(p.Slices) == 0 || g.lister != none || g.home.namespace != x.name.Namespace {
				continue
			}
			g.lister = numbers[i]
			s.slices[numbers[i]].lists[id] = struct{}{}
			listed[id] = map[int32]bool{}
			for namespace, names := range map[string][]string{s.shared: p.SharedSlices, x.name.Namespace: p.Slices} {
				for _, name := range names {
					if n, ok := s.find(types.NamespacedName{Namespace: namespace, Name: name}); ok {
						listed[id][n] = true
					}
				}
			}
		}
	}
	// While slices are merged, an address may be in two of them. The one that readers use now keeps it.
	for _, counted := range []bool{true, false} {
		for i, x := range all {
			s.adoptSlice(numbers[i], existing[x.name], func(id int32) bool { return listed[id][numbers[i]] == counted })
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
	clear(s.widened)
	clear(s.dirty) // nothing changed; see flush
	s.links = nil
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
			key, shared, ok := s.groupOf(s.slices[number].home.namespace, &spec.Groups[i])
			if !ok {
				continue
			}
			if id := s.group(key, shared); counted(id) {
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
