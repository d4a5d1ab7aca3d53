package store

import (
	"cmp"
	"encoding/json"
	"slices"
)

// maxIntervals bounds what is kept of one generation. The lowest gap counts as stored if there are more.
const maxIntervals = 256

// Sequences is a set of sequence numbers of one generation, as intervals in ascending order.
type Sequences struct {
	intervals [][2]uint64 // first and last
}

// Has reports whether the set contains a number.
func (s *Sequences) Has(n uint64) bool {
	i, found := s.find(n)
	return found || i > 0 && s.intervals[i-1][1] >= n
}

// find returns where an interval that begins with n is or would be.
func (s *Sequences) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s.intervals, n, func(interval [2]uint64, n uint64) int { return cmp.Compare(interval[0], n) })
}

// Add adds a number.
func (s *Sequences) Add(n uint64) { s.add(n, n) }

// Union adds all numbers of another set.
func (s *Sequences) Union(o Sequences) {
	for _, interval := range o.intervals {
		s.add(interval[0], interval[1])
	}
}

func (s *Sequences) add(first, last uint64) {
	i, _ := s.find(first)
	if i > 0 && touch(s.intervals[i-1][1], first) {
		i--
		first = s.intervals[i][0]
	}
	j := i
	for j < len(s.intervals) && touch(last, s.intervals[j][0]) {
		last = max(last, s.intervals[j][1])
		j++
	}
	s.intervals = slices.Replace(s.intervals, i, j, [2]uint64{first, last})
	if len(s.intervals) > maxIntervals {
		s.intervals = slices.Replace(s.intervals, 0, 2, [2]uint64{s.intervals[0][0], s.intervals[1][1]})
	}
}

// touch reports whether an interval that ends with last has no gap before one that begins with first.
func touch(last, first uint64) bool { return last >= first || last+1 == first }

// MarshalJSON writes the intervals.
func (s Sequences) MarshalJSON() ([]byte, error) { return json.Marshal(s.intervals) }

// UnmarshalJSON reads what MarshalJSON has written.
func (s *Sequences) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &s.intervals) }
