package resolver

import (
	"maps"
	"slices"
)

// merge merges the two slices with the fewest addresses, while at most half of all places are taken and a
// quarter stays free afterwards. So the next pods do not undo it.
func (s *space) merge() {
	for n := len(s.slices); n > 1 && 2*s.places <= n*s.limits.addresses && 4*s.places <= 3*(n-1)*s.limits.addresses; n-- {
		from, into := int32(none), int32(none)
		for _, number := range s.numbers {
			size := len(s.slices[number].addresses)
			switch {
			case from == none || size < len(s.slices[from].addresses):
				from, into = number, from
			case into == none || size < len(s.slices[into].addresses):
				into = number
			}
		}
		if !s.canMerge(from, into) {
			return
		}
		s.mergeInto(from, into)
	}
}

func (s *space) canMerge(from, into int32) bool {
	x, y := s.slices[from], s.slices[into]
	parts := len(y.parts)
	for id := range x.parts {
		if _, ok := y.parts[id]; !ok {
			parts++
		}
	}
	return len(x.addresses)+len(y.addresses) <= s.limits.addresses && parts <= s.limits.groups && x.sum+y.sum <= s.limits.members &&
		s.listBytes(x)+s.listBytes(y) <= s.limits.lists
}

func (s *space) mergeInto(from, into int32) {
	x := s.slices[from]
	for _, a := range slices.Clone(x.addresses) {
		var moved, there []int32
		for _, at := range s.seatsOf(a) {
			switch at.slice {
			case from:
				moved = s.classes[at.class].groups
			case into:
				there = s.classes[at.class].groups
			}
		}
		s.seat(a, into, join(there, moved))
		s.seat(a, from, nil)
	}
	s.touch(into, true)
	for _, id := range slices.Sorted(maps.Keys(x.lists)) {
		s.list(id, into)
	}
	for _, id := range slices.Sorted(maps.Keys(x.parts)) {
		s.dropPart(from, id)
	}
	s.deleteSlice(from)
}

// tidy drops parts without addresses: those of which both the slice and the group's list are written anyway,
// and those beyond a number. Others stay, because the next pod of the group would bring them back; a part that
// comes or goes costs a write of the list. A slice without any part is deleted.
func (s *space) tidy() {
	for _, number := range slices.Sorted(maps.Keys(s.dirty)) {
		x, ok := s.slices[number]
		if !ok {
			continue
		}
		if x.empty > 0 {
			for _, id := range slices.Sorted(maps.Keys(x.parts)) {
				if l := s.groups[id].lister; x.parts[id] == 0 && l != number {
					if _, written := s.dirty[l]; written {
						s.dropPart(number, id)
					}
				}
			}
			s.dropEmpty(number, x.droppable()-maxEmpty)
		}
		if len(x.parts) == 0 {
			s.deleteSlice(number)
		}
	}
}

// maxEmpty is the number of parts without addresses that a slice keeps.
const maxEmpty = 16
