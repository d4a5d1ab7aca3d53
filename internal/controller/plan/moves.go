package plan

import (
	"maps"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// moves are the memberships that leave one slice of a batch for another.
type moves struct {
	from   map[membership][]int
	to     map[int][]int                        // slices that get memberships, by the one that has them now
	groups map[int]map[policy.GroupKey]struct{} // of the memberships that leave a slice
	into   map[int]bool                         // slices that get memberships of others
	gained map[membership]bool                  // of those in from
	gains  map[int]bool                         // slices that get memberships
}

func (m *moves) lose(i int, l membership) {
	if m.from == nil {
		*m = moves{
			from: map[membership][]int{}, to: map[int][]int{}, groups: map[int]map[policy.GroupKey]struct{}{}, into: map[int]bool{},
			gained: map[membership]bool{}, gains: map[int]bool{},
		}
	}
	m.from[l] = append(m.from[l], i)
}

func (m *moves) gain(to int, g membership) {
	m.gains[to] = true
	for _, from := range m.from[g] {
		m.gained[g] = m.gained[g] || from != to
		if from == to {
			continue
		}
		m.into[to] = true
		if !slices.Contains(m.to[from], to) {
			m.to[from] = append(m.to[from], to)
		}
		if m.groups[from] == nil {
			m.groups[from] = map[policy.GroupKey]struct{}{}
		}
		m.groups[from][g.group] = struct{}{}
	}
}

// changeOtherwise are the slices that get memberships, or lose some that no other slice of the batch gets.
func (m *moves) changeOtherwise() map[int]bool {
	out := maps.Clone(m.gains)
	for l, from := range m.from {
		if m.gained[l] {
			continue
		}
		for _, i := range from {
			out[i] = true
		}
	}
	return out
}
