package resolver

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

func addr(i int) address {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).As16()
}

// spaceTest is a space with the groups that it should contain. A group whose name begins with s is shared, any
// other one is of the namespace that its name begins with.
type spaceTest struct {
	*space
	t    *testing.T
	ids  map[string]int32
	want map[string]map[address]int // number of pods by group
}

func newSpaceTest(t *testing.T, l limits) *spaceTest {
	return &spaceTest{newSpace("kidoban", l), t, map[string]int32{}, map[string]map[address]int{}}
}

func keyOfTest(group string) (key policy.GroupKey, shared bool) {
	if shared = group[0] == 's'; shared {
		return policy.GroupKey{Namespace: "kidoban", Name: group}, true
	}
	return policy.GroupKey{Namespace: map[byte]string{'a': "a", 'b': "b", 'c': "c", 'k': "kidoban"}[group[0]], Name: group}, false
}

func (s *spaceTest) begin(group string) {
	key, shared := keyOfTest(group)
	s.ids[group] = s.use(key, shared, &v1alpha1.GroupSelector{})
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

// written applies the changes and returns the names of the slices that became different.
func (s *spaceTest) written() []string {
	s.t.Helper()
	before := s.specs()
	s.takeChanges()
	s.flush()
	after := s.specs()
	s.check(after)
	changes := map[types.NamespacedName]SliceChange{}
	for _, c := range s.takeChanges() {
		changes[c.Name] = c
	}
	var out []string
	for name := range union(before, after) {
		if !cmp.Equal(before[name], after[name]) {
			out = append(out, name.String())
			if _, ok := changes[name]; !ok {
				s.t.Fatalf("slice %s became different and is not among %v", name, changes)
			}
		}
	}
	s.checkSets(before, after, changes)
	slices.Sort(out)
	return out
}

// checkSets expects slices in one set if one of them lists groups that enter or leave the other, or has an
// address that the other had.
func (s *spaceTest) checkSets(before, after specs, changes map[types.NamespacedName]SliceChange) {
	s.t.Helper()
	differ := func(a, b types.NamespacedName, why string) {
		if x, y := changes[a], changes[b]; a != b && (x.Set == 0 || x.Set != y.Set || !x.Structure || !y.Structure) {
			s.t.Fatalf("%s: %s is %+v, %s is %+v", why, a, x, b, y)
		}
	}
	for name := range union(before, after) {
		for key := range union(parts(before, name), parts(after, name)) {
			_, had := parts(before, name)[key]
			if _, has := parts(after, name)[key]; had == has {
				continue
			}
			for other := range after {
				if list, ok := parts(after, other)[key]; ok && list && parts(before, other)[key] {
					differ(name, other, fmt.Sprintf("a part of %s appears or disappears", key))
				}
			}
		}
	}
	was, is := before.members(), after.members()
	for m, names := range was {
		for name := range names {
			for other := range is[m] {
				if !is[m][name] && !names[other] {
					differ(name, other, fmt.Sprintf("%v moves", m))
				}
			}
		}
	}
}

// specs are slices by their names.
type specs map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec

func (s *spaceTest) specs() specs {
	out := specs{}
	for id, x := range s.slices {
		spec := s.spec(id)
		out[x.name()] = &spec
	}
	return out
}

// keyIn is the group of a part of a slice.
func keyIn(slice types.NamespacedName, p *v1alpha1.GroupPart) policy.GroupKey {
	if p.Namespace != "" {
		return policy.GroupKey{Namespace: p.Namespace, Name: p.Name}
	}
	return policy.GroupKey{Namespace: slice.Namespace, Name: p.Name}
}

// parts are the groups of a slice, and whether it has the list of the group's slices.
func parts(s specs, name types.NamespacedName) map[policy.GroupKey]bool {
	out := map[policy.GroupKey]bool{}
	if spec := s[name]; spec != nil {
		for i := range spec.Groups {
			out[keyIn(name, &spec.Groups[i])] = len(spec.Groups[i].Slices) > 0
		}
	}
	return out
}

type member struct {
	a   v1alpha1.CIDR
	key policy.GroupKey
}

// members are the slices of each member of a group.
func (s specs) members() map[member]map[types.NamespacedName]bool {
	out := map[member]map[types.NamespacedName]bool{}
	for name, spec := range s {
		rest := spec.Addresses
		for _, c := range spec.Classes {
			for _, g := range c.Groups {
				for _, a := range rest[:c.Count] {
					m := member{a, keyIn(name, &spec.Groups[g])}
					if out[m] == nil {
						out[m] = map[types.NamespacedName]bool{}
					}
					out[m][name] = true
				}
			}
			rest = rest[c.Count:]
		}
	}
	return out
}

// group returns what a reader finds of a group, by the definition in the API.
func (s specs) group(key policy.GroupKey, shared string) (members map[v1alpha1.CIDR]bool, complete bool) {
	listed := map[types.NamespacedName]bool{}
	for name, spec := range s {
		for i := range spec.Groups {
			p := &spec.Groups[i]
			if keyIn(name, p) != key {
				continue
			}
			for _, n := range p.Slices {
				listed[types.NamespacedName{Namespace: name.Namespace, Name: n}] = true
			}
			for _, n := range p.SharedSlices {
				listed[types.NamespacedName{Namespace: shared, Name: n}] = true
			}
		}
	}
	members, complete = map[v1alpha1.CIDR]bool{}, len(listed) > 0
	for name, spec := range s {
		at := slices.IndexFunc(spec.Groups, func(p v1alpha1.GroupPart) bool { return keyIn(name, &p) == key })
		rest := spec.Addresses
		for _, c := range spec.Classes {
			if at >= 0 && slices.Contains(c.Groups, int32(at)) {
				complete = complete && listed[name] // agents count others too, and the resolver wants none
				for _, a := range rest[:c.Count] {
					members[a] = true
				}
			}
			rest = rest[c.Count:]
		}
	}
	for name := range listed {
		if _, ok := parts(s, name)[key]; !ok {
			complete = false
		}
	}
	return members, complete
}

// check compares what readers see with the groups, and the slices with the limits.
func (s *spaceTest) check(all specs) {
	s.t.Helper()
	places := 0
	groups := map[policy.GroupKey]bool{}
	for name, spec := range all {
		members := 0
		for _, c := range spec.Classes {
			members += len(c.Groups) * int(c.Count)
		}
		places += len(spec.Addresses)
		if len(spec.Addresses) > s.limits.addresses || len(spec.Groups) > s.limits.groups || members > s.limits.members || len(spec.Groups) == 0 {
			s.t.Fatalf("slice %s has %d addresses, %d groups, %d memberships", name, len(spec.Addresses), len(spec.Groups), members)
		}
		for i := range spec.Groups {
			p := &spec.Groups[i]
			groups[keyIn(name, p)] = true
			if _, shared := keyOfTest(p.Name); (p.Namespace != "") != (!shared && name.Namespace == "kidoban") {
				s.t.Fatalf("slice %s has group %q of namespace %q", name, p.Name, p.Namespace)
			}
		}
	}
	if places != s.places {
		s.t.Fatalf("%d places, the space counts %d", places, s.places)
	}
	sharing := map[address]bool{}
	for g, want := range s.want {
		key, shared := keyOfTest(g)
		got, complete := all.group(key, "kidoban")
		if !complete {
			s.t.Fatalf("%s is not complete", g)
		}
		wanted := map[v1alpha1.CIDR]bool{}
		for a := range want {
			wanted[v1alpha1.CIDR(a.ip().String()+"/32")] = true
			sharing[a] = sharing[a] || shared
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			s.t.Fatalf("%s (-want +got):\n%s", g, diff)
		}
	}
	for a := range sharing {
		for _, at := range s.seatsOf(a) {
			if home := s.slices[at.slice].home.namespace; sharing[a] && home != "kidoban" {
				s.t.Fatalf("%s is in a shared group and in namespace %s", a.ip(), home)
			}
		}
	}
	if len(groups) != len(s.want) {
		s.t.Fatalf("the slices have groups %v", groups)
	}
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
				switch g := fmt.Sprintf("%c%d", "aabbkssc"[rng.IntN(8)], rng.IntN(2)); {
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
