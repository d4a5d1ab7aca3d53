package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

var web = policy.GroupKey{Namespace: "shop", Name: "web"}

// desired is what the slices of namespace shop should be, by name, in the form of parse.
type desired map[string]string

func (d desired) Slices(key policy.GroupKey) (out []types.NamespacedName) {
	for name := range d {
		spec, _ := d.Slice(nameOf(key.Namespace, name))
		if slices.ContainsFunc(spec.Groups, func(p v1alpha1.GroupPart) bool { return p.Name == key.Name }) {
			out = append(out, nameOf(key.Namespace, name))
		}
	}
	return out
}

func (d desired) Slice(name types.NamespacedName) (v1alpha1.PolicyEndpointSliceSpec, bool) {
	text, ok := d[name.Name]
	if !ok {
		return v1alpha1.PolicyEndpointSliceSpec{}, false
	}
	return *parse(text), true
}

// parse reads a slice such as "web=0,1 db: 10.0.0.1 10.0.0.2": the groups web, of which it lists the slices 0
// and 1, and db; then the addresses, all in all groups.
func parse(text string) *v1alpha1.PolicyEndpointSliceSpec {
	spec := &v1alpha1.PolicyEndpointSliceSpec{}
	groups, addresses, _ := strings.Cut(text, ":")
	class := v1alpha1.AddressClass{}
	for i, g := range strings.Fields(groups) {
		name, list, lists := strings.Cut(g, "=")
		p := v1alpha1.GroupPart{Name: name}
		if lists {
			p.Slices = strings.Split(list, ",")
		}
		spec.Groups = append(spec.Groups, p)
		class.Groups = append(class.Groups, int32(i))
	}
	for _, a := range strings.Fields(addresses) {
		spec.Addresses = append(spec.Addresses, v1alpha1.CIDR(a))
	}
	if class.Count = int32(len(spec.Addresses)); class.Count > 0 {
		spec.Classes = []v1alpha1.AddressClass{class}
	}
	spec.Count = class.Count
	return spec
}

// format writes a slice as parse reads it.
func format(spec *v1alpha1.PolicyEndpointSliceSpec) string {
	var groups, addresses []string
	for _, p := range spec.Groups {
		if len(p.Slices) > 0 {
			p.Name += "=" + strings.Join(p.Slices, ",")
		}
		groups = append(groups, p.Name)
	}
	for _, a := range spec.Addresses {
		addresses = append(addresses, string(a))
	}
	return strings.TrimSpace(strings.Join(groups, " ") + ": " + strings.Join(addresses, " "))
}

func TestOrderOfASlicesWrites(t *testing.T) {
	for _, c := range []struct {
		name       string
		have, want desired
		phases     []string
	}{
		{"a new group", nil, desired{"0": "web=0: a"}, []string{"write 0 web=0: a"}},
		{"a new group in two slices: the one with the list last", nil, desired{"0": "web=0,1: a", "1": "web: b"},
			[]string{"write 1 web: b", "write 0 web=0,1: a"}},
		{"an address is added", desired{"0": "web=0: a"}, desired{"0": "web=0: a b"}, []string{"write 0 web=0: a b"}},
		{"addresses of two slices change", desired{"0": "web=0,1: a", "1": "web: c"}, desired{"0": "web=0,1: a b", "1": "web: d"},
			[]string{"write 0 web=0,1: a b, write 1 web: d"}},
		{"a slice gets a part", desired{"0": "web=0: a", "1": "db=1: b"}, desired{"0": "web=0,1: a", "1": "db=1 web: b"},
			[]string{"write 1 db=1 web: b", "write 0 web=0,1: a"}},
		{"a slice loses a part", desired{"0": "web=0,1: a", "1": "db=1 web: b"}, desired{"0": "web=0: a", "1": "db=1: b"},
			[]string{"write 0 web=0: a", "write 1 db=1: b"}},
		{"a slice is merged into one without lists", desired{"0": "web=0,1,2: a", "1": "web: b", "2": "web: c"}, desired{"0": "web=0,1: a", "1": "web: b c"},
			[]string{"write 1 web: b c", "write 0 web=0,1: a", "delete 2"}},
		{"a slice is merged into the one with the list", desired{"0": "web=0,1: a", "1": "web: b"}, desired{"0": "web=0: a b"},
			[]string{"write 0 web=0: a b", "delete 1"}},
		{"the slice with the list is merged", desired{"0": "web=0,1: a", "1": "web: b"}, desired{"1": "web=1: a b"},
			[]string{"write 1 web=1: a b", "delete 0"}},
		{"two merges, and both targets have lists of the merged slices",
			desired{"0": "web=0,2 db: a", "1": "db=0,1,2,3: b", "2": "web db: c", "3": "db: d"}, desired{"0": "web=0 db: a c", "1": "db=0,1: b d"},
			[]string{"write 0 web=0,2 db: a c (lists stay), write 1 db=0,1,2,3: b d (lists stay)", "write 0 web=0 db: a c, write 1 db=0,1: b d", "delete 2, delete 3"}},
		{"an address that is in both slices of a merge with different groups",
			desired{"0": "web=0,1,2: a", "1": "db=1: b", "2": "web: b"}, desired{"0": "web=0,1: a", "1": "db=1 web: b"},
			[]string{"write 1 db=1 web: b", "write 0 web=0,1: a", "delete 2"}},
		{"another slice lists the group", desired{"0": "web=0,1: a", "1": "web: b"}, desired{"0": "web: a", "1": "web=0,1: b"},
			[]string{"write 0 web: a, write 1 web=0,1: b"}},
		{"another client deleted the slice with the list", desired{"1": "web: b"}, desired{"0": "web=0,1: a", "1": "web: b"},
			[]string{"write 1 web: b", "write 0 web=0,1: a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewSlices(0)
			have := map[string]*v1alpha1.PolicyEndpointSliceSpec{}
			for name, text := range c.have {
				have[name] = parse(text)
				s.Touch(resolver.SliceChange{Name: nameOf("shop", name), Structure: true}, time.Time{}, time.Time{})
			}
			for name := range c.want {
				s.Touch(resolver.SliceChange{Name: nameOf("shop", name), Structure: true}, time.Time{}, time.Time{})
			}
			b, _ := s.Take("shop", c.want, false, time.Time{})
			var got []string
			for _, phase := range b.Phases(have) {
				var writes []string
				for _, w := range phase {
					writes = append(writes, describe(w))
				}
				got = append(got, strings.Join(writes, ", "))
			}
			if !slices.Equal(got, c.phases) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.phases, "\n"))
			}
		})
	}
}

func describe(w SliceWrite) string {
	switch {
	case w.Spec == nil:
		return "delete " + w.Name
	case !w.Last:
		return fmt.Sprintf("write %s %s (lists stay)", w.Name, format(w.Spec))
	}
	return fmt.Sprintf("write %s %s", w.Name, format(w.Spec))
}

func change(name string, structure bool) resolver.SliceChange {
	return resolver.SliceChange{Name: nameOf("shop", name), Structure: structure}
}

func allWritten(b *Batch) map[string]bool {
	out := map[string]bool{}
	for _, name := range b.Names() {
		out[name] = true
	}
	return out
}

func TestAGroupIsPresentWhenItsSlicesAreWritten(t *testing.T) {
	now := time.Time{}
	d := desired{"0": "web=0,1: a", "1": "web: b"}
	s := NewSlices(0)
	if s.Present(policy.GroupKey{Namespace: "shop", Name: "db"}, d) {
		t.Error("a group without slices is present")
	}
	s.Touch(change("0", true), now, now)
	s.Touch(change("1", true), now, now)
	if s.Present(web, d) {
		t.Error("present before it was written")
	}
	b, _ := s.Take("shop", d, false, now)
	if s.Present(web, d) {
		t.Error("present while it is written")
	}
	s.Done(&b, map[string]bool{"0": true})
	if s.Present(web, d) {
		t.Error("present when one write has failed")
	}
	if b, _ = s.Take("shop", d, false, now); !slices.Equal(b.Names(), []string{"1"}) {
		t.Errorf("after a failure %v are written", b.Names())
	}
	s.Done(&b, allWritten(&b))
	if !s.Present(web, d) {
		t.Error("not present after it was written")
	}
	s.Touch(change("1", true), now, now) // another group's part
	if !s.Present(web, d) {
		t.Error("not present because of a later change")
	}

	s.Gone(nameOf("shop", "1"), parse(d["1"]), now)
	if s.Present(web, d) {
		t.Error("present without one of its slices")
	}
	b, _ = s.Take("shop", d, false, now)
	s.Done(&b, allWritten(&b))
	if !s.Present(web, d) {
		t.Error("not present after the slice was written again")
	}
	s.Forgotten(web)
	delete(d, "0")
	delete(d, "1")
	s.Touch(change("0", true), now, now)
	s.Touch(change("1", true), now, now)
	if s.Present(web, d) {
		t.Error("present after it was forgotten")
	}
	b, _ = s.Take("shop", d, false, now)
	if s.Done(&b, allWritten(&b)); len(s.namespaces)+len(s.present) > 0 {
		t.Errorf("%d namespaces and %d groups are remembered", len(s.namespaces), len(s.present))
	}
}

func TestReferences(t *testing.T) {
	endpoint, other := nameOf("shop", "db"), nameOf("shop", "cache")
	r := newReferences()
	r.Set(other, []policy.GroupKey{web})
	r.Add(endpoint, []policy.GroupKey{web})
	if unused := r.Set(endpoint, nil); len(unused) > 0 || !r.Has(web) {
		t.Errorf("unused groups %v", unused)
	}
	if unused := r.Set(other, nil); !slices.Equal(unused, []policy.GroupKey{web}) || r.Has(web) {
		t.Errorf("unused groups %v", unused)
	}
}

func TestWritesOfASliceAreAWindowApart(t *testing.T) {
	const window = 100 * time.Millisecond
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	d := desired{"0": "web=0: a", "1": "db=1: b", "2": "dns=2: c"}
	s := NewSlices(window)
	take := func(ms int, all bool, want string, next time.Duration) Batch {
		t.Helper()
		b, wait := s.Take("shop", d, all, at(ms))
		if got := strings.Join(b.Names(), " "); got != want || wait != next {
			t.Fatalf("after %d ms %q are taken and the next ones in %s, want %q and %s", ms, got, wait, want, next)
		}
		return b
	}
	if wait := s.Touch(change("0", false), start, start); wait > 0 {
		t.Errorf("the first change waits %s", wait)
	}
	b := take(0, false, "0", 0)
	if seen := s.Done(&b, allWritten(&b)); len(seen) != 1 || !seen[0].Equal(start) {
		t.Errorf("seen %s", seen)
	}
	if wait := s.Touch(change("0", false), time.Time{}, at(30)); wait != 70*time.Millisecond {
		t.Errorf("the second change waits %s", wait)
	}
	if wait := s.Touch(change("0", false), at(50), at(50)); wait != 50*time.Millisecond {
		t.Errorf("the third change waits %s", wait)
	}
	if wait := s.Touch(change("1", false), time.Time{}, at(50)); wait > 0 {
		t.Errorf("another slice waits %s", wait)
	}
	b = take(50, false, "1", 50*time.Millisecond)
	s.Done(&b, allWritten(&b))
	b = take(100, false, "0", 0)
	s.Done(&b, nil)
	b = take(200, false, "0", 0)
	if seen := s.Done(&b, allWritten(&b)); len(seen) != 1 || !seen[0].Equal(at(50)) {
		t.Errorf("a failure loses when the address was seen: %s", seen)
	}

	// slices whose structure changed go out together
	s.Touch(change("0", true), time.Time{}, at(210))
	s.Touch(change("1", false), time.Time{}, at(210))
	b = take(210, false, "1", 90*time.Millisecond)
	s.Done(&b, allWritten(&b))
	s.Touch(change("2", true), time.Time{}, at(220))
	b = take(220, false, "0 2", 0)
	s.Done(&b, allWritten(&b))
	// and a PolicyEndpoint does not wait for them
	s.Touch(change("0", true), time.Time{}, at(230))
	s.Touch(change("2", false), time.Time{}, at(230))
	b = take(230, true, "0", 90*time.Millisecond)
	s.Done(&b, allWritten(&b))
}

func TestASliceOfAnotherClientIsTakenOver(t *testing.T) {
	spec := parse("web=0: 10.0.0.1/32")
	pes := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "0", UID: "1"}, Spec: *parse("by-hand=0: 10.0.0.2/32")}
	if !SetSlice(pes, spec) || !IsOurs(pes) || !IsSlice(pes, spec) {
		t.Errorf("it is %+v", pes)
	}
	if SetSlice(pes, spec) {
		t.Error("the second time changes it")
	}
	if pes.Spec.Groups[0].Name = "edited"; spec.Groups[0].Name != "web" {
		t.Error("it shares memory with what it should be")
	}
}
