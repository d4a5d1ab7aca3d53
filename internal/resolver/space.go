package resolver

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// space contains the slices of all namespaces: the addresses of the groups, each address once with all its
// groups. A class is a set of groups that addresses have in common.
//
// A slice is in a home: the namespace of the local groups of its addresses, or kidoban's own namespace. An
// address that enters a shared group is from then on in kidoban's own namespace, until it leaves its last
// group. It does not go back before, so that a shared group that comes and goes moves it once at most.
//
// Changes of memberships are collected (add, remove) and applied together (flush), so that a pod that leaves
// one group and enters another changes its slice once. An address stays in its slice while it is in any group;
// only its first shared group and a merge of two slices move it. It is in several slices while it has more
// groups than a slice may have, with some of its groups in each, and while pods of two namespaces have it.
//
// There may be hundreds of thousands of addresses, so nothing that exists once per address contains a
// pointer.
type space struct {
	limits limits
	shared string                    // kidoban's own namespace
	groups map[int32]*part           // by id
	ids    map[policy.GroupKey]int32 // of groups
	spare  []int32                   // ids that are free again
	nextID int32

	classes   map[int32]*class
	byGroups  map[string]int32 // ids of classes, by their key
	nextClass int32

	slices     map[int32]*slice // by number, of all homes
	nextNumber int32
	homes      map[string]*home // by namespace

	// seats are where the addresses are; further are the other seats of those that are in several slices.
	seats   map[address]seat
	further map[address][]seat
	// extra is the number of pods beyond the first that put an address into a group. For a moment two pods may
	// have the same address: one that ends and its successor.
	extra map[membership]int32

	pending map[address]pending
	arrived []address // the addresses of pending, in the order in which they became different
	doomed  []int32   // groups that flush removes
	// unlisted are groups that need a slice with their list; grown are slices whose lists got longer.
	unlisted, grown map[int32]struct{}
	// widened are slices that got a part of another group.
	widened map[int32]struct{}
	// adopting is true from adopt to the next flush: until then, pending has all memberships, and the seats are
	// those of the existing slices.
	adopting bool

	// dirty are the slices that became different; for the value see SliceChange.Structure. gone are those of
	// them that were deleted. links are pairs of them whose writes depend on each other.
	dirty map[int32]bool
	gone  map[int32]*slice
	links [][2]int32

	places int // seats of all addresses
}

// home is a namespace with slices, or with groups whose lists belong there.
type home struct {
	namespace string
	slices    []int32         // numbers, sorted
	named     map[int32]int32 // numbers of slices, by the suffix of their names
	// next is the suffix of the next slice's name. Suffixes are not used again: a reader may still have the old
	// slice of that name.
	next int32
	// last is the slice that the last new address went to, listing the one that the last list went to.
	last, listing int32
	groups        int // whose lists belong here
	places        int // seats in the slices
}

// limits of a slice. They bound its size, whatever the policies and pods are.
type limits struct {
	addresses int
	groups    int // that it has a part of
	members   int // groups of its addresses, added up
	lists     int // bytes of the lists of slices and of the selectors beside them, if there are several lists
}

// maxLists is the limit of the bytes of lists. An object of etcd's may have 1.5 MiB.
const maxLists = 256 << 10

// listTarget is the number of bytes of lists up to which a slice gets another one.
const listTarget = 6 << 10

// part is a group, with the slices that have a part of it.
type part struct {
	key      policy.GroupKey
	shared   bool
	home     *home // where the list belongs
	selector *v1alpha1.GroupSelector
	weight   int // bytes of the selector
	slices   []int32
	lister   int32 // the slice with the list, none at first
	size     int   // addresses
	used     bool  // by the resolver
}

const none = -1

type class struct {
	groups []int32
	slices []int32
}

// slice is one slice. Each group of lists has a part in it.
type slice struct {
	home      *home
	suffix    int32     // of its name
	addresses []address // sorted
	classes   map[int32]int32
	parts     map[int32]int32 // number of addresses by group
	lists     map[int32]struct{}
	sum       int // groups of the addresses, added up
	empty     int // parts without addresses
}

// seat is the slice that an address is in, and its class there.
type seat struct{ slice, class int32 }

type membership struct {
	a     address
	group int32
}

// pending are the groups that an address enters and leaves, sorted, and the first address of its pod.
type pending struct {
	enters, leaves []int32
	root           address
}

func newSpace(shared string, l limits) *space {
	return &space{
		limits: l, shared: shared, groups: map[int32]*part{}, ids: map[policy.GroupKey]int32{}, classes: map[int32]*class{}, byGroups: map[string]int32{},
		slices: map[int32]*slice{}, homes: map[string]*home{}, seats: map[address]seat{}, further: map[address][]seat{}, extra: map[membership]int32{},
		pending: map[address]pending{}, unlisted: map[int32]struct{}{}, grown: map[int32]struct{}{}, widened: map[int32]struct{}{}, dirty: map[int32]bool{}, gone: map[int32]*slice{},
	}
}

// home returns the home of a namespace, and adds it if the space does not have it.
func (s *space) home(namespace string) *home {
	h, ok := s.homes[namespace]
	if !ok {
		h = &home{namespace: namespace, named: map[int32]int32{}, last: none, listing: none}
		s.homes[namespace] = h
	}
	return h
}

// leave drops a home that has nothing any more.
func (s *space) leave(h *home) {
	if len(h.slices) == 0 && h.groups == 0 {
		delete(s.homes, h.namespace)
	}
}

// group returns the id of a group, and adds the group if the space does not have it.
func (s *space) group(key policy.GroupKey, shared bool) int32 {
	if id, ok := s.ids[key]; ok {
		return id
	}
	id := s.nextID
	if n := len(s.spare); n > 0 {
		id, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		s.nextID++
	}
	s.ids[key] = id
	h := s.home(key.Namespace)
	h.groups++
	s.groups[id] = &part{key: key, shared: shared, home: h, lister: none}
	s.unlisted[id] = struct{}{}
	return id
}

// use adds a group, or confirms one that was adopted.
func (s *space) use(key policy.GroupKey, shared bool, selector *v1alpha1.GroupSelector) int32 {
	id := s.group(key, shared)
	text, _ := json.Marshal(selector) // these types can be marshalled
	g := s.groups[id]
	g.shared, g.selector, g.weight, g.used = shared, selector, len(text), true
	return id
}

// drop removes a group from all slices.
func (s *space) drop(id int32) {
	s.groups[id].used = false
	s.doomed = append(s.doomed, id)
}

// has reports whether an address is in a group when the pending changes are applied.
func (s *space) has(id int32, a address) bool {
	p := s.pending[a]
	switch {
	case hasID(p.enters, id):
		return true
	case s.adopting || hasID(p.leaves, id):
		return false
	}
	return s.isSeated(id, a)
}

func (s *space) isSeated(id int32, a address) bool {
	at, ok := s.seats[a]
	if !ok {
		return false
	}
	return hasID(s.classes[at.class].groups, id) ||
		slices.ContainsFunc(s.further[a], func(at seat) bool { return hasID(s.classes[at.class].groups, id) })
}

// add adds a pod's address to a group. root is the first of the pod's addresses: new addresses with the same
// root go to one slice, so that the pod's deletion changes one.
func (s *space) add(id int32, a, root address) {
	if s.has(id, a) {
		s.extra[membership{a, id}]++
		return
	}
	p := s.changing(a)
	p.root = root
	if hasID(p.leaves, id) {
		p.leaves = withoutID(p.leaves, id)
	} else {
		p.enters = insert(p.enters, id)
	}
	s.pending[a] = p
	s.groups[id].size++
}

// remove removes a pod's address from a group.
func (s *space) remove(id int32, a address) {
	m := membership{a, id}
	switch n := s.extra[m]; {
	case n > 1:
		s.extra[m]--
		return
	case n == 1:
		delete(s.extra, m)
		return
	}
	p := s.changing(a)
	if hasID(p.enters, id) {
		p.enters = withoutID(p.enters, id)
	} else {
		p.leaves = insert(p.leaves, id)
	}
	s.pending[a] = p
	s.groups[id].size--
}

func (s *space) changing(a address) pending {
	p, ok := s.pending[a]
	if !ok {
		s.arrived = append(s.arrived, a)
	}
	return p
}

// flush applies the pending changes.
func (s *space) flush() {
	if len(s.arrived)+len(s.doomed)+len(s.unlisted) == 0 && !s.adopting {
		return
	}
	next, adopted := s.nextNumber, s.adopting
	if adopted {
		s.compareAdopted()
	}
	s.expel()
	fresh := map[*home][]arrival{}
	for _, a := range s.arrived {
		s.change(a, s.pending[a], fresh)
	}
	clear(s.pending)
	s.arrived = s.arrived[:0]
	if cap(s.arrived) > 4096 {
		s.pending, s.arrived = map[address]pending{}, nil // not as large as at the start
	}
	for _, h := range slices.SortedFunc(maps.Keys(fresh), compareHomes) {
		s.seatAll(h, fresh[h])
	}
	s.forget()
	s.listAll()
	s.merge()
	s.tidy()
	clear(s.widened)
	for number := next; number < s.nextNumber; number++ { // some of the new slices may have been merged at once
		if _, ok := s.slices[number]; !ok {
			delete(s.dirty, number)
		}
	}
	if adopted {
		for number := range s.slices { // which may have had something besides what was adopted
			s.touch(number, true)
		}
	}
}

func compareHomes(a, b *home) int { return strings.Compare(a.namespace, b.namespace) }

// expel makes the addresses of the groups that are removed leave them.
func (s *space) expel() {
	for _, id := range s.doomed {
		g := s.groups[id]
		for _, n := range g.slices {
			for _, a := range s.slices[n].addresses {
				if s.isSeated(id, a) {
					p := s.changing(a)
					p.leaves = insert(p.leaves, id)
					s.pending[a] = p
				}
			}
		}
		for _, a := range s.arrived {
			if p, ok := s.pending[a]; ok {
				p.enters = withoutID(p.enters, id)
				s.pending[a] = p
			}
		}
		g.size = 0
		maps.DeleteFunc(s.extra, func(m membership, _ int32) bool { return m.group == id })
	}
}

// forget forgets the groups that are removed.
func (s *space) forget() {
	for _, id := range s.doomed {
		g := s.groups[id]
		if g.lister != none {
			delete(s.slices[g.lister].lists, id)
			g.lister = none
		}
		for _, n := range slices.Clone(g.slices) {
			s.dropPart(n, id)
		}
		delete(s.groups, id)
		delete(s.ids, g.key)
		s.spare = append(s.spare, id)
		g.home.groups--
		s.leave(g.home)
	}
	s.doomed = s.doomed[:0]
}

// change moves an address between classes in the slices that it is in, and adds it to those that need another
// slice, for the groups that have no place there.
func (s *space) change(a address, p pending, fresh map[*home][]arrival) {
	if len(p.enters)+len(p.leaves) == 0 && len(s.further[a]) == 0 {
		return
	}
	seats := s.seatsOf(a)
	isShared := func(at seat) bool { return s.slices[at.slice].home.namespace == s.shared }
	shares := slices.ContainsFunc(seats, isShared) ||
		slices.ContainsFunc(p.enters, func(id int32) bool { return s.groups[id].home.namespace == s.shared })
	slices.SortStableFunc(seats, func(x, y seat) int { return compareBools(isShared(x), isShared(y)) }) // those that it leaves first
	rest := p.enters
	var from []int32 // slices that the address leaves for one of kidoban's own namespace
	for _, at := range seats {
		x, was := s.slices[at.slice], s.classes[at.class].groups
		now := slices.DeleteFunc(slices.Clone(was), func(id int32) bool { return hasID(p.leaves, id) })
		if shares && x.home.namespace != s.shared {
			rest = join(rest, now)
			s.seat(a, at.slice, nil)
			from = append(from, at.slice)
			continue
		}
		var others []int32 // groups with another home
		if !shares {
			here := make([]int32, 0, len(rest))
			for _, id := range rest {
				if s.groups[id].home == x.home {
					here = append(here, id)
				} else {
					others = append(others, id)
				}
			}
			rest = here
		}
		var more []int32
		more, rest = s.split(x, rest, len(was)-len(now))
		rest = join(rest, others)
		if now = join(now, more); !slices.Equal(was, now) {
			s.seat(a, at.slice, now)
			for _, left := range from {
				s.link(left, at.slice)
			}
		}
	}
	if shares && len(rest) > 0 {
		h := s.home(s.shared)
		fresh[h] = append(fresh[h], arrival{a, p.root, rest, from})
		return
	}
	for len(rest) > 0 {
		h := s.groups[rest[0]].home
		var here, others []int32
		for _, id := range rest {
			if s.groups[id].home == h {
				here = append(here, id)
			} else {
				others = append(others, id)
			}
		}
		fresh[h], rest = append(fresh[h], arrival{a, p.root, here, nil}), others
	}
}

// split divides groups into those that a slice has room for and the others; freed is the number of
// memberships that end in the slice.
func (s *space) split(x *slice, groups []int32, freed int) (fit, rest []int32) {
	members, parts := s.limits.members-x.sum+freed, s.limits.groups-len(x.parts)+x.droppable()
	for _, id := range groups {
		_, lists := x.lists[id]
		has := lists || x.parts[id] > 0 // a part that could be dropped does not count
		if members <= 0 || !has && parts <= 0 {
			rest = append(rest, id)
			continue
		}
		members--
		if !has {
			parts--
		}
		fit = append(fit, id)
	}
	return fit, rest
}
