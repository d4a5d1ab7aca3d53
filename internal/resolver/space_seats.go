package resolver

import (
	"maps"
	"slices"
)

// seatsOf lists the seats of an address.
func (s *space) seatsOf(a address) []seat {
	at, ok := s.seats[a]
	if !ok {
		return nil
	}
	return append([]seat{at}, s.further[a]...)
}

// seat puts an address into a class in a slice, or removes it from the slice if there are no groups.
func (s *space) seat(a address, into int32, groups []int32) {
	all := s.seatsOf(a)
	i := slices.IndexFunc(all, func(at seat) bool { return at.slice == into })
	x := s.slices[into]
	var was []int32
	if i >= 0 {
		was = s.classes[all[i].class].groups
		s.leaveClass(into, all[i].class)
	}
	for _, existing := range []bool{true, false} { // those first, so that they are not dropped to make room
		for _, id := range groups {
			if _, ok := x.parts[id]; ok == existing && !hasID(was, id) {
				s.addPart(into, id)
				if x.parts[id]++; x.parts[id] == 1 {
					x.empty--
				}
			}
		}
	}
	for _, id := range was {
		if !hasID(groups, id) {
			if x.parts[id]--; x.parts[id] == 0 {
				x.empty++
			}
		}
	}
	x.sum += len(groups) - len(was)
	at, _ := slices.BinarySearchFunc(x.addresses, a, address.compare)
	switch {
	case len(groups) == 0:
		x.addresses = slices.Delete(x.addresses, at, at+1)
		all = slices.Delete(all, i, i+1)
		s.places--
		x.home.places--
	case i >= 0:
		all[i].class = s.enterClass(into, groups)
	default:
		x.addresses = slices.Insert(x.addresses, at, a)
		all = append(all, seat{into, s.enterClass(into, groups)})
		s.places++
		x.home.places++
	}
	switch len(all) {
	case 0:
		delete(s.seats, a)
		delete(s.further, a)
	case 1:
		s.seats[a] = all[0]
		delete(s.further, a)
	default:
		s.seats[a] = all[0]
		s.further[a] = all[1:]
	}
	s.touch(into, false)
}

func (s *space) touch(number int32, structure bool) { s.dirty[number] = s.dirty[number] || structure }

// link records that the writes of two slices depend on each other.
func (s *space) link(a, b int32) {
	s.touch(a, true)
	s.touch(b, true)
	if a != b {
		s.links = append(s.links, [2]int32{a, b})
	}
}

// enterClass counts an address in a class of a slice.
func (s *space) enterClass(number int32, groups []int32) int32 {
	key := keyOf(groups)
	id, ok := s.byGroups[key]
	if !ok {
		id = s.nextClass
		s.nextClass++
		s.byGroups[key] = id
		s.classes[id] = &class{groups: groups}
	}
	x := s.slices[number]
	if x.classes[id]++; x.classes[id] == 1 {
		s.classes[id].slices = insert(s.classes[id].slices, number)
	}
	return id
}

func (s *space) leaveClass(number, id int32) {
	x, c := s.slices[number], s.classes[id]
	if x.classes[id]--; x.classes[id] > 0 {
		return
	}
	delete(x.classes, id)
	if c.slices = withoutID(c.slices, number); len(c.slices) == 0 {
		delete(s.classes, id)
		delete(s.byGroups, keyOf(c.groups))
	}
}

// addPart makes a slice have a part of a group.
func (s *space) addPart(number, id int32) {
	x, g := s.slices[number], s.groups[id]
	if _, ok := x.parts[id]; ok {
		return
	}
	if len(x.parts) >= s.limits.groups {
		s.dropEmpty(number, 1)
	}
	x.parts[id] = 0
	x.empty++
	s.widened[number] = struct{}{}
	g.slices = insert(g.slices, number)
	s.touchList(number, g)
	if g.lister != none {
		s.grown[g.lister] = struct{}{}
	}
}

func (s *space) dropPart(number, id int32) {
	x, g := s.slices[number], s.groups[id]
	delete(x.parts, id)
	x.empty--
	g.slices = withoutID(g.slices, number)
	s.touchList(number, g)
}

// touchList records that the list of a group's slices changed, because of one of them.
func (s *space) touchList(number int32, g *part) {
	s.touch(number, true)
	if g.lister != none {
		s.link(number, g.lister)
	}
}

// dropEmpty drops up to n parts without addresses.
func (s *space) dropEmpty(number int32, n int) {
	x := s.slices[number]
	for _, id := range slices.Sorted(maps.Keys(x.parts)) {
		if n == 0 {
			return
		}
		if _, lists := x.lists[id]; x.parts[id] == 0 && !lists {
			s.dropPart(number, id)
			n--
		}
	}
}
