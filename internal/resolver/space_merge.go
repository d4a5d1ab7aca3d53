package resolver

import (
	"maps"
	"slices"
)

// merge merges slices in the homes that changed.
func (s *space) merge() {
	homes := map[*home]struct{}{}
	for number := range s.dirty {
		if x, ok := s.slices[number]; ok {
			homes[x.home] = struct{}{}
		}
	}
	for _, h := range slices.SortedFunc(maps.Keys(homes), compareHomes) {
		s.mergeIn(h)
	}
}

// mergeIn merges the two slices of a home with the fewest addresses, while at most half of all places are taken
// and a quarter stays free afterwards. So the next pods do not undo it.
func (s *space) mergeIn(h *home) {
	for n := len(h.slices); n > 1 && 2*h.places <= n*s.limits.addresses && 4*h.places <= 3*(n-1)*s.limits.addresses; n-- {
		from, into := int32(none), int32(none)
		for _, number := range h.slices {
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
	s.link(from, into)
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
// comes or goes costs a write of the list. A slice that got a part keeps them too, because it has to be written
// before the lists, and a slice that loses one afterwards. A slice without any part is deleted.
func (s *space) tidy() {
	for _, number := range slices.Sorted(maps.Keys(s.dirty)) {
		x, ok := s.slices[number]
		if !ok {
			continue
		}
		if _, got := s.widened[number]; x.empty > 0 && !got {
			for _, id := range slices.Sorted(maps.Keys(x.parts)) {
				if l := s.groups[id].lister; x.parts[id] == 0 && l != number {
					if _, written := s.dirty[l]; written {
						s.dropPart(number, id)
					}
				}
			}
		}
		s.dropEmpty(number, x.droppable()-maxEmpty)
		if len(x.parts) == 0 {
			s.deleteSlice(number)
		}
	}
}

// maxEmpty is the number of parts without addresses that a slice keeps.
const maxEmpty = 16
