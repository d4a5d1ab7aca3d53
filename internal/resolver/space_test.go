package resolver

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func addr(i int) address {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).As16()
}

// spaceTest is a space with the groups that it should contain.
type spaceTest struct {
	*space
	t    *testing.T
	ids  map[string]int32
	want map[string]map[address]int // number of pods by group
}

func newSpaceTest(t *testing.T, l limits) *spaceTest {
	return &spaceTest{newSpace(l), t, map[string]int32{}, map[string]map[address]int{}}
}

func (s *spaceTest) begin(group string) {
	s.ids[group] = s.use(group, &v1alpha1.GroupSelector{})
	s.want[group] = map[address]int{}
}

func (s *spaceTest) enter(a int, groups ...string) {
	for _, g := range groups {
		s.add(s.ids[g], addr(a), addr(a))
		s.want[g][addr(a)]++
	}
}

func (s *spaceTest) leave(a int, groups ...string) {
	for _, g := range groups {
		s.remove(s.ids[g], addr(a))
		if s.want[g][addr(a)]--; s.want[g][addr(a)] == 0 {
			delete(s.want[g], addr(a))
		}
	}
}

// written applies the changes and returns the numbers of the slices that became different.
func (s *spaceTest) written() []int32 {
	s.t.Helper()
	before := s.specs()
	clear(s.dirty)
	s.flush()
	after := s.specs()
	s.check(after)
	var out []int32
	for number := range union(before, after) {
		if !cmp.Equal(before[number], after[number]) {
			out = append(out, number)
			if _, ok := s.dirty[number]; !ok {
				s.t.Fatalf("slice %d became different and is not among %v", number, s.dirty)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (s *spaceTest) specs() map[int32]*v1alpha1.PolicyEndpointSliceSpec {
	out := map[int32]*v1alpha1.PolicyEndpointSliceSpec{}
	for n := range s.slices {
		spec, _ := s.spec(n)
		out[n] = &spec
	}
	return out
}

// check compares what readers see with the groups, and the slices with the limits.
func (s *spaceTest) check(specs map[int32]*v1alpha1.PolicyEndpointSliceSpec) {
	s.t.Helper()
	places := 0
	named := map[string]*v1alpha1.PolicyEndpointSliceSpec{}
	for n, spec := range specs {
		named[sliceName(n)] = spec
		members := 0
		for _, c := range spec.Classes {
			members += len(c.Groups) * int(c.Count)
		}
		places += len(spec.Addresses)
		if len(spec.Addresses) > s.limits.addresses || len(spec.Groups) > s.limits.groups || members > s.limits.members || len(spec.Groups) == 0 {
			s.t.Fatalf("slice %d has %d addresses, %d groups, %d memberships", n, len(spec.Addresses), len(spec.Groups), members)
		}
	}
	if places != s.places {
		s.t.Fatalf("%d places, the space counts %d", places, s.places)
	}
	for g, want := range s.want {
		got, complete := groupIn(named, g)
		if !complete {
			s.t.Fatalf("%s is not complete", g)
		}
		wanted := map[v1alpha1.CIDR]bool{}
		for a := range want {
			wanted[v1alpha1.CIDR(a.ip().String()+"/32")] = true
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			s.t.Fatalf("%s (-want +got):\n%s", g, diff)
		}
	}
	groups := map[string]bool{}
	for _, spec := range specs {
		for _, p := range spec.Groups {
			groups[p.Name] = true
		}
	}
	if len(groups) != len(s.want) {
		s.t.Fatalf("the slices have groups %v", groups)
	}
}

// groupIn returns what a reader finds of a group, by the definition in the API.
func groupIn(specs map[string]*v1alpha1.PolicyEndpointSliceSpec, group string) (members map[v1alpha1.CIDR]bool, complete bool) {
	named := map[string]bool{}
	for _, spec := range specs {
		for _, p := range spec.Groups {
			if p.Name == group {
				for _, name := range p.Slices {
					named[name] = true
				}
			}
		}
	}
	members, complete = map[v1alpha1.CIDR]bool{}, len(named) > 0
	for name := range named {
		spec := specs[name]
		at := -1
		if spec != nil {
			at = slices.IndexFunc(spec.Groups, func(p v1alpha1.GroupPart) bool { return p.Name == group })
		}
		if at < 0 {
			return members, false
		}
		rest := spec.Addresses
		for _, c := range spec.Classes {
			if slices.Contains(c.Groups, int32(at)) {
				for _, a := range rest[:c.Count] {
					members[a] = true
				}
			}
			rest = rest[c.Count:]
		}
	}
	return members, complete
}

// restarted is a space that adopts the slices and has the same groups.
func (s *spaceTest) restarted() *spaceTest {
	out := newSpaceTest(s.t, s.limits)
	out.adopt(s.specs())
	for _, g := range slices.Sorted(maps.Keys(s.want)) {
		out.begin(g)
	}
	for g, members := range s.want {
		for a, n := range members {
			for range n {
				out.add(out.ids[g], a, a)
			}
			out.want[g][a] = n
		}
	}
	out.flush()
	return out
}

func TestASpaceHasTheMembersOfEachGroup(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		l := []limits{{4, 1000, 1000, 1 << 20}, {4, 3, 100, 1 << 20}, {10, 5, 9, 1 << 20}, {6, 4, 5, 90}}[seed%4]
		s := newSpaceTest(t, l)
		for step := range 250 {
			for range 1 + rng.IntN(1+rng.IntN(12)) {
				switch g := fmt.Sprintf("g%d", rng.IntN(8)); {
				case s.want[g] == nil:
					s.begin(g)
				case rng.IntN(30) == 0 && len(s.pending) == 0:
					s.drop(s.ids[g])
					delete(s.want, g)
					s.written()
				default:
					n := 40
					if step/50%3 == 2 { // the space shrinks
						n = 5
					}
					a := rng.IntN(40)
					if count := s.want[g][addr(a)]; count > 0 && (a >= n || rng.IntN(2) == 0) {
						s.leave(a, g)
					} else if count < 2 && a < n {
						s.enter(a, g)
					}
				}
			}
			s.written()
			if step%20 == 19 {
				again := s.restarted()
				if diff := cmp.Diff(s.specs(), again.specs()); diff != "" {
					t.Fatalf("seed %d: a restart after step %d changes slices (-before +after):\n%s", seed, step, diff)
				}
				if rng.IntN(2) == 0 {
					s = again
				}
			}
		}
	}
}
