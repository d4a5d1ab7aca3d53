package resolver

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// arrival is an address that needs a place for some groups; root is the first address of its pod, and from are
// the slices that it leaves for that.
type arrival struct {
	a, root address
	groups  []int32
	from    []int32
}

// tried is the number of slices that are considered for one address, of each way to find some.
const tried = 64

// seatAll places new addresses in a home. Many at a time are placed with classes next to each other that have
// large groups in common, and a tenth of each slice stays free for the pods to come.
func (s *space) seatAll(h *home, fresh []arrival) {
	limit := s.limits.addresses
	many := len(fresh) > limit/2
	if many {
		limit = max(1, limit*9/10)
		s.sortByLargeGroups(fresh)
	}
	together := map[address]int{}
	for _, f := range fresh {
		together[f.root]++
	}
	for _, f := range fresh {
		for rest := f.groups; len(rest) > 0; {
			n := min(len(rest), s.limits.groups, s.limits.members)
			groups := rest[:n:n]
			rest = rest[n:]
			into := s.place(h, f, groups, together[f.root], limit, many)
			s.seat(f.a, into, groups)
			for _, from := range f.from {
				s.link(from, into)
			}
		}
		together[f.root]--
	}
}

// sortByLargeGroups sorts addresses by their groups, the largest group first. Addresses with local groups are next
// to others of their namespace, whose lists are then the shortest.
func (s *space) sortByLargeGroups(fresh []arrival) {
	bySize := slices.SortedFunc(maps.Keys(s.groups), func(x, y int32) int {
		return cmp.Or(cmp.Compare(s.groups[y].size, s.groups[x].size), compareGroups(s.groups[x].key, s.groups[y].key))
	})
	slices.SortStableFunc(bySize, func(x, y int32) int { // local groups first
		if s.groups[x].shared || s.groups[y].shared {
			return compareBools(s.groups[x].shared, s.groups[y].shared)
		}
		return strings.Compare(s.groups[x].key.Namespace, s.groups[y].key.Namespace)
	})
	rank := map[int32]int32{}
	for i, id := range bySize {
		rank[id] = int32(i)
	}
	type order struct {
		ranks []int32 // of the class's groups, sorted
		at    int     // among the classes
	}
	orders := map[string]*order{}
	byClass := make(map[address]*order, len(fresh))
	for _, f := range fresh {
		key := keyOf(f.groups)
		o, ok := orders[key]
		if !ok {
			o = &order{}
			for _, id := range f.groups {
				o.ranks = insert(o.ranks, rank[id])
			}
			orders[key] = o
		}
		byClass[f.a] = o
	}
	for i, o := range slices.SortedFunc(maps.Values(orders), func(x, y *order) int { return slices.Compare(x.ranks, y.ranks) }) {
		o.at = i
	}
	slices.SortFunc(fresh, func(x, y arrival) int {
		return cmp.Or(cmp.Compare(byClass[x.a].at, byClass[y.a].at), x.a.compare(y.a))
	})
}

// place finds the slice for a new address in which it causes the fewest writes, with room for as many
// addresses as its pod needs. It makes a new one if there is none.
func (s *space) place(h *home, f arrival, groups []int32, need, limit int, many bool) int32 {
	except := s.seatsOf(f.a)
	best, least := int32(none), 0
	consider := func(number int32, room int) (perfect bool) {
		x, ok := s.slices[number]
		if !ok || x.home != h || len(x.addresses)+room > limit || !s.fits(x, groups) ||
			slices.ContainsFunc(except, func(at seat) bool { return at.slice == number }) {
			return false
		}
		if cost := s.cost(number, groups); best == none || cost < least || cost == least && number < best {
			best, least = number, cost
		}
		return least == 0
	}
	if at, ok := s.seats[f.root]; ok && f.root != f.a && consider(at.slice, 1) || best != none {
		return best
	}
	if many && consider(h.last, need) {
		return best
	}
	if len(s.dirty) < tried {
		for number := range s.dirty {
			consider(number, need)
		}
	}
	search := func(numbers []int32) {
		for i, found := 0, 0; i < len(numbers) && found < tried; i++ {
			number := numbers[i]
			if many { // the first ones are full
				if number = numbers[len(numbers)-1-i]; i > 4*tried {
					return
				}
			}
			if x := s.slices[number]; x.home == h && len(x.addresses) < limit {
				consider(number, need)
				found++
			}
		}
	}
	if id, ok := s.byGroups[keyOf(groups)]; ok {
		search(s.classes[id].slices)
	}
	rare := slices.SortedFunc(slices.Values(groups), func(x, y int32) int {
		return cmp.Or(cmp.Compare(len(s.groups[x].slices), len(s.groups[y].slices)), cmp.Compare(x, y))
	})
	for _, id := range rare[:min(len(rare), 4)] {
		search(s.groups[id].slices)
	}
	for i := 0; i < len(h.slices) && best == none && !many; i++ {
		consider(h.slices[i], need)
	}
	if best == none {
		best = s.newSlice(h)
	}
	h.last = best
	return best
}

// fits reports whether a slice has room for an address that is not in it, with these groups.
func (s *space) fits(x *slice, groups []int32) bool {
	_, rest := s.split(x, groups, 0)
	return len(rest) == 0
}

// droppable is the number of parts without addresses that could be dropped.
func (x *slice) droppable() int {
	n := x.empty
	for id := range x.lists {
		if x.parts[id] == 0 {
			n--
		}
	}
	return n
}

// cost estimates what an address with these groups costs in a slice: the writes of other slices, which are
// those with lists that change, then new parts, then a new class.
func (s *space) cost(number int32, groups []int32) int {
	x := s.slices[number]
	cost := 0
	var listers []int32
	for _, id := range groups {
		if _, ok := x.parts[id]; ok {
			continue
		}
		cost += 10
		if l := s.groups[id].lister; l != none && l != number && !slices.Contains(listers, l) {
			listers = append(listers, l)
			if _, writtenAnyway := s.dirty[l]; !writtenAnyway {
				cost += 1000
			}
		}
	}
	if _, writtenAnyway := s.dirty[number]; !writtenAnyway {
		cost += 1000
	}
	if id, ok := s.byGroups[keyOf(groups)]; !ok || x.classes[id] == 0 {
		cost++
	}
	return cost
}

func (s *space) newSlice(h *home) int32 {
	number := s.nextNumber
	s.nextNumber++
	s.slices[number] = &slice{home: h, suffix: h.next, classes: map[int32]int32{}, parts: map[int32]int32{}, lists: map[int32]struct{}{}}
	h.named[h.next] = number
	h.next++
	h.slices = append(h.slices, number)
	s.touch(number, true)
	return number
}

func (s *space) deleteSlice(number int32) {
	x := s.slices[number]
	delete(s.slices, number)
	delete(x.home.named, x.suffix)
	x.home.slices = withoutID(x.home.slices, number)
	s.leave(x.home)
	s.touch(number, true)
	s.gone[number] = x
}

// nameBytes is about the size of one slice's name in a list.
const nameBytes = 10

// listBytes is about the size of the lists in a slice, with the selectors beside them.
func (s *space) listBytes(x *slice) int {
	n := 0
	for id := range x.lists {
		n += s.groups[id].listBytes()
	}
	return n
}

func (g *part) listBytes() int { return nameBytes*len(g.slices) + g.weight }

// listAll gives each group a slice with the list of its slices.
func (s *space) listAll() {
	for _, id := range slices.Sorted(maps.Keys(s.unlisted)) {
		if g, ok := s.groups[id]; ok && g.lister == none {
			s.list(id, s.listerFor(id))
		}
	}
	clear(s.unlisted)
	for _, number := range slices.Sorted(maps.Keys(s.grown)) {
		x, ok := s.slices[number]
		for ok && len(x.lists) > 1 && s.listBytes(x) > s.limits.lists {
			id := slices.MaxFunc(slices.Sorted(maps.Keys(x.lists)), func(a, b int32) int {
				return cmp.Compare(s.groups[a].listBytes(), s.groups[b].listBytes())
			})
			s.list(id, s.listerFor(id))
		}
	}
	clear(s.grown)
}

// list moves the list of a group's slices to a slice.
func (s *space) list(id, number int32) {
	g := s.groups[id]
	if g.lister != none {
		delete(s.slices[g.lister].lists, id)
		s.link(g.lister, number)
	}
	g.lister = number
	s.slices[number].lists[id] = struct{}{}
	s.addPart(number, id)
	s.touch(number, true)
}

// listerFor chooses the slice in the group's home that gets the list of its slices. Lists are together in as few slices as
// listTarget allows, so that a pod that enters several groups changes the lists of one slice. Such a slice may
// have no addresses of the group.
func (s *space) listerFor(id int32) int32 {
	g := s.groups[id]
	best, most := int32(none), -1
	consider := func(number int32, limit int) {
		x := s.slices[number]
		bytes := s.listBytes(x)
		if x.home != g.home || number == g.lister || len(x.lists) > 0 && bytes+g.listBytes() > limit || !s.hasRoomForPart(x, id) {
			return
		}
		if bytes > most {
			best, most = number, bytes
		}
	}
	target := min(listTarget, s.limits.lists)
	if _, ok := s.slices[g.home.listing]; ok {
		consider(g.home.listing, target)
	}
	for _, limit := range []int{target, s.limits.lists} {
		for _, numbers := range [][]int32{g.slices, g.home.slices} {
			for i := 0; i < len(numbers) && best == none; i++ {
				consider(numbers[i], limit)
			}
		}
	}
	if best == none {
		best = s.newSlice(g.home)
	}
	g.home.listing = best
	return best
}

// hasRoomForPart reports whether a slice has a part of a group or may get one.
func (s *space) hasRoomForPart(x *slice, id int32) bool {
	_, has := x.parts[id]
	return has || len(x.parts)-x.droppable() < s.limits.groups
}
