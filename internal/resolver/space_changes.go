package resolver

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// takeChanges returns the slices that became different since the last call.
func (s *space) takeChanges() (changed []SliceChange) {
	if len(s.dirty) == 0 {
		return nil
	}
	sets := s.linkedSets()
	numbers := slices.SortedFunc(maps.Keys(s.dirty), func(a, b int32) int {
		x, y := s.sliceOrGone(a), s.sliceOrGone(b)
		return cmp.Or(strings.Compare(x.home.namespace, y.home.namespace), cmp.Compare(x.suffix, y.suffix))
	})
	for _, number := range numbers {
		changed = append(changed, SliceChange{s.sliceOrGone(number).name(), s.dirty[number], sets[number]})
	}
	clear(s.dirty)
	clear(s.gone)
	s.links = s.links[:0]
	return changed
}

func (s *space) sliceOrGone(number int32) *slice {
	if x, ok := s.slices[number]; ok {
		return x
	}
	return s.gone[number]
}

// linkedSets numbers the sets of slices that links connect, from 1.
func (s *space) linkedSets() map[int32]int {
	parent := map[int32]int32{} // none for the root of a set
	root := func(number int32) int32 {
		for {
			p, ok := parent[number]
			if !ok {
				return number
			}
			if above, ok := parent[p]; ok {
				parent[number] = above
			}
			number = p
		}
	}
	for _, l := range s.links {
		if a, b := root(l[0]), root(l[1]); a != b {
			parent[a] = b
		}
	}
	sets, ofRoot := map[int32]int{}, map[int32]int{}
	for _, l := range s.links {
		for _, number := range l {
			r := root(number)
			if ofRoot[r] == 0 {
				ofRoot[r] = len(ofRoot) + 1
			}
			sets[number] = ofRoot[r]
		}
	}
	return sets
}
