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

// desired is what the slices should be, by their names such as shop/0, in the form of parse.
type desired map[string]string

func (d desired) Slices(key policy.GroupKey) (out []types.NamespacedName) {
	for text := range d {
		name := parseName(text)
		spec, _ := d.Slice(name)
		if slices.ContainsFunc(spec.Groups, func(p v1alpha1.GroupPart) bool { return resolver.GroupOf(name.Namespace, &p) == key }) {
			out = append(out, name)
		}
	}
	return out
}

func (d desired) Slice(name types.NamespacedName) (v1alpha1.PolicyEndpointSliceSpec, bool) {
	text, ok := d[name.String()]
	if !ok {
		return v1alpha1.PolicyEndpointSliceSpec{}, false
	}
	return *parse(text), true
}

func parseName(text string) types.NamespacedName {
	namespace, name, _ := strings.Cut(text, "/")
	return nameOf(namespace, name)
}

// parse reads a slice such as "web=0,1+2 shop.db: 10.0.0.1 10.0.0.2": the groups web, of which it lists the slices 0
// and 1 and the shared slice 2, and db of namespace shop; then the addresses, all in all groups.
func parse(text string) *v1alpha1.PolicyEndpointSliceSpec {
	spec := &v1alpha1.PolicyEndpointSliceSpec{}
	groups, addresses, _ := strings.Cut(text, ":")
	class := v1alpha1.AddressClass{}
	for i, g := range strings.Fields(groups) {
		name, list, lists := strings.Cut(g, "=")
		p := v1alpha1.GroupPart{Name: name}
		if namespace, local, ok := strings.Cut(name, "."); ok {
			p = v1alpha1.GroupPart{Name: local, Namespace: namespace}
		}
		if lists {
			list, shared, ok := strings.Cut(list, "+")
			p.Slices = strings.Split(list, ",")
			if ok {
				p.SharedSlices = strings.Split(shared, ",")
			}
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

func TestOrderOfASlicesWrites(t *testing.T) {
	for _, c := range []struct {
		name       string
		have, want desired
		writes     string // with those that must come first
	}{
		{"a new group", nil, desired{"shop/0": "web=0: a"}, "shop/0"},
		{"a new group in two slices: the one with the list last", nil, desired{"shop/0": "web=0,1: a", "shop/1": "web: b"},
			"shop/1, shop/0 after shop/1"},
		{"addresses of two slices change", desired{"shop/0": "web=0,1: a", "shop/1": "web: c"}, desired{"shop/0": "web=0,1: a b", "shop/1": "web: d"},
			"shop/0, shop/1"},
		{"a slice gets a part", desired{"shop/0": "web=0: a", "shop/1": "db=1: b"}, desired{"shop/0": "web=0,1: a", "shop/1": "db=1 web: b"},
			"shop/1, shop/0 after shop/1"},
		{"a slice loses a part", desired{"shop/0": "web=0,1: a", "shop/1": "db=1 web: b"}, desired{"shop/0": "web=0: a", "shop/1": "db=1: b"},
			"shop/0, shop/1 after shop/0"},
		{"a slice is merged into one without lists", desired{"shop/0": "web=0,1,2: a", "shop/1": "web: b", "shop/2": "web: c"}, desired{"shop/0": "web=0,1: a", "shop/1": "web: b c"},
			"shop/1, shop/0, shop/2 after shop/0 shop/1"},
		{"a slice is merged into the one with the list", desired{"shop/0": "web=0,1: a", "shop/1": "web: b"}, desired{"shop/0": "web=0: a b"},
			"shop/0, shop/1 after shop/0"},
		{"the slice with the list is merged", desired{"shop/0": "web=0,1: a", "shop/1": "web: b"}, desired{"shop/1": "web=1: a b"},
			"shop/1, shop/0 after shop/1"},
		{"two merges, and both targets have lists of the merged slices",
			desired{"shop/0": "web=0,2 db: a", "shop/1": "db=0,1,2,3: b", "shop/2": "web db: c", "shop/3": "db: d"}, desired{"shop/0": "web=0 db: a c", "shop/1": "db=0,1: b d"},
			"shop/0, shop/1, shop/2 after shop/0 shop/1, shop/3 after shop/1"},
		{"an address that is in both slices of a merge with different groups",
			desired{"shop/0": "web=0,1,2: a", "shop/1": "db=1: b", "shop/2": "web: b"}, desired{"shop/0": "web=0,1: a", "shop/1": "db=1 web: b"},
			"shop/1, shop/0 after shop/1, shop/2 after shop/0 shop/1"},
		{"another slice lists the group", desired{"shop/0": "web=0,1: a", "shop/1": "web: b"}, desired{"shop/0": "web: a", "shop/1": "web=0,1: b"},
			"shop/0, shop/1"},
		{"another client deleted the slice with the list", desired{"shop/1": "web: b"}, desired{"shop/0": "web=0,1: a", "shop/1": "web: b"},
			"shop/1, shop/0"},
		{"an address enters its first shared group",
			desired{"shop/0": "web=0: a", "shop/1": "web: b", "kidoban/0": "all=0: c"}, desired{"shop/0": "web=0+0: a", "shop/1": "web:", "kidoban/0": "all=0 shop.web: b c"},
			"kidoban/0, shop/0 after kidoban/0, shop/1 later after kidoban/0 shop/0"},
		{"an address enters its first shared group, and another one leaves its last group",
			desired{"shop/0": "web=0: a b", "kidoban/0": "all=0: c"}, desired{"shop/0": "web=0+0:", "kidoban/0": "all=0 shop.web: b c"},
			"kidoban/0, shop/0 after kidoban/0"},
		{"an address leaves the slice with the list for one that has the group",
			desired{"shop/0": "web=0+0: a b", "kidoban/0": "all=0 shop.web: c"}, desired{"shop/0": "web=0+0: a", "kidoban/0": "all=0 shop.web: b c"},
			"kidoban/0, shop/0 later after kidoban/0"},
		{"the list of a group of a namespace changes before a shared slice loses its part, but is no condition",
			desired{"shop/0": "web=0+0: a", "kidoban/0": "all=0 shop.web: c"}, desired{"shop/0": "web=0: a", "kidoban/0": "all=0: c"},
			"shop/0, kidoban/0 after the try of shop/0"},
		{"a slice gets addresses of a merged one and loses some to a shared one",
			desired{"shop/0": "web=0,1: a", "shop/1": "web: b", "kidoban/0": "all=0: c"}, desired{"shop/0": "web=0+0: b", "kidoban/0": "all=0 shop.web: a c"},
			"kidoban/0, shop/0 after kidoban/0, shop/1 after shop/0"},
		{"a slice gets a part and loses one whose list is elsewhere: it is written twice",
			desired{"shop/0": "web=0 db=0,1: a", "shop/1": "db: b"}, desired{"shop/0": "web=0,1 db=0: a", "shop/1": "web: b"},
			"shop/1, shop/0 after shop/1, shop/1 after shop/0 shop/1"},
		{"lists in two slices, of which one gets a part that the other one names",
			desired{"shop/0": "web=0: a", "shop/1": "db=1: b", "shop/2": "dns=2: c"}, desired{"shop/0": "db web=0,2: a", "shop/1": "db=0,1: b", "shop/2": "dns=2 web: c"},
			"shop/2, shop/0 after shop/2, shop/1 after shop/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewSlices("kidoban", 0)
			have := map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}
			var changes []resolver.SliceChange
			for text, spec := range c.have {
				have[parseName(text)] = parse(spec)
				changes = append(changes, resolver.SliceChange{Name: parseName(text), Structure: true, Set: 1})
			}
			for text := range c.want {
				changes = append(changes, resolver.SliceChange{Name: parseName(text), Structure: true, Set: 1})
			}
			s.Touch(changes, time.Time{})
			b, _, _ := s.Take(changes[0].Name, c.want, time.Time{})
			if got := describe(b.Writes(have)); got != c.writes {
				t.Errorf("got  %s\nwant %s", got, c.writes)
			}
		})
	}
}

func describe(writes []SliceWrite) string {
	var out []string
	for _, w := range writes {
		names := func(of []int) string {
			var out []string
			for _, on := range of {
				out = append(out, writes[on].Name.String())
			}
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		text := w.Name.String()
		if w.Later {
			text += " later"
		}
		if len(w.After) > 0 {
			text += " after " + names(w.After)
		}
		if len(w.AfterTry) > 0 {
			text += " after the try of " + names(w.AfterTry)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestSlicesWithNewPodsComeFirst(t *testing.T) {
	s := NewSlices("kidoban", 0)
	d := desired{"shop/0": "web=0: a", "shop/1": "db=1: b"}
	for i, seen := range []time.Time{{}, time.Unix(1, 0)} {
		s.Touch([]resolver.SliceChange{change(fmt.Sprint(i), 1)}, seen)
	}
	s.Touch([]resolver.SliceChange{change("0", 1), change("1", 1)}, time.Time{})
	b, _, _ := s.Take(nameOf("shop", "0"), d, time.Time{})
	if got := describe(b.Writes(nil)); got != "shop/1, shop/0" {
		t.Errorf("the order is %s", got)
	}
}

// change is one of a slice of namespace shop, whose structure changed if it is in a set.
func change(name string, set int) resolver.SliceChange {
	return resolver.SliceChange{Name: nameOf("shop", name), Structure: set > 0, Set: set}
}

// finish ends a batch of which some slices, or all, were written.
func finish(s *Slices, b *Batch, names ...string) (seen []time.Time) {
	written := map[types.NamespacedName]bool{}
	for _, name := range b.Names() {
		if len(names) == 0 || slices.Contains(names, name.Name) {
			written[name] = true
			if at := s.Written(b, name); !at.IsZero() {
				seen = append(seen, at)
			}
		}
	}
	s.Done(b, written, time.Time{})
	return seen
}

// takes takes a slice of namespace shop and expects these slices in the batch.
func takes(t *testing.T, s *Slices, d desired, name string, now time.Time, want string, wait time.Duration) *Batch {
	t.Helper()
	b, next, busy := s.Take(nameOf("shop", name), d, now)
	var got []string
	if b != nil {
		for _, n := range b.Names() {
			got = append(got, n.Name)
		}
	}
	if busy != nil {
		got = append(got, "waits for "+busy.Name)
	}
	if text := strings.Join(got, " "); text != want || next != wait {
		t.Fatalf("%q are taken and the next ones in %s, want %q and %s", text, next, want, wait)
	}
	return b
}

func TestAGroupIsPresentWhenItsSlicesAreWritten(t *testing.T) {
	now := time.Time{}
	d := desired{"shop/0": "web=0,1: a", "shop/1": "web: b"}
	s := NewSlices("kidoban", 0)
	if s.Present(policy.GroupKey{Namespace: "shop", Name: "db"}, d) {
		t.Error("a group without slices is present")
	}
	s.Touch([]resolver.SliceChange{change("0", 1), change("1", 1)}, now)
	if s.Present(web, d) {
		t.Error("present before it was written")
	}
	b := takes(t, s, d, "0", now, "0 1", 0)
	if s.Present(web, d) {
		t.Error("present while it is written")
	}
	finish(s, b, "0")
	if s.Present(web, d) {
		t.Error("present when one write has failed")
	}
	finish(s, takes(t, s, d, "1", now, "1", 0))
	if !s.Present(web, d) {
		t.Error("not present after it was written")
	}
	s.Touch([]resolver.SliceChange{change("1", 1)}, now) // another group's part
	if !s.Present(web, d) {
		t.Error("not present because of a later change")
	}

	s.Gone(nameOf("shop", "1"), parse(d["shop/1"]))
	if s.Present(web, d) {
		t.Error("present without one of its slices")
	}
	finish(s, takes(t, s, d, "1", now, "1", 0))
	if !s.Present(web, d) {
		t.Error("not present after the slice was written again")
	}
	s.Forgotten(web)
	delete(d, "shop/0")
	delete(d, "shop/1")
	s.Touch([]resolver.SliceChange{change("0", 1), change("1", 1)}, now)
	if s.Present(web, d) {
		t.Error("present after it was forgotten")
	}
	finish(s, takes(t, s, d, "0", now, "0 1", 0))
	if takes(t, s, d, "0", now.Add(time.Second), "", 0); len(s.states)+len(s.present)+len(s.recent) > 0 {
		t.Errorf("%d slices and %d groups are remembered", len(s.states), len(s.present))
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
	d := desired{"shop/0": "web=0: a", "shop/1": "db=1: b", "shop/2": "dns=2: c"}
	s := NewSlices("kidoban", window)
	touch := func(ms int, seen time.Time, name string, set int) time.Duration {
		s.Touch([]resolver.SliceChange{change(name, set)}, seen)
		return s.Wait(nameOf("shop", name), at(ms))
	}
	if wait := touch(0, start, "0", 0); wait > 0 {
		t.Errorf("the first change waits %s", wait)
	}
	if seen := finish(s, takes(t, s, d, "0", start, "0", 0)); len(seen) != 1 || !seen[0].Equal(start) {
		t.Errorf("seen %s", seen)
	}
	if wait := touch(30, time.Time{}, "0", 0); wait != 70*time.Millisecond {
		t.Errorf("the second change waits %s", wait)
	}
	if wait := touch(50, at(50), "0", 0); wait != 50*time.Millisecond {
		t.Errorf("the third change waits %s", wait)
	}
	if wait := touch(50, time.Time{}, "1", 0); wait > 0 {
		t.Errorf("another slice waits %s", wait)
	}
	takes(t, s, d, "0", at(50), "", 50*time.Millisecond)
	finish(s, takes(t, s, d, "1", at(50), "1", 0))
	b := takes(t, s, d, "0", at(100), "0", 0)
	s.Done(b, nil, at(200))
	if seen := finish(s, takes(t, s, d, "0", at(200), "0", 0)); len(seen) != 1 || !seen[0].Equal(at(50)) {
		t.Errorf("a failure loses when the address was seen: %s", seen)
	}

	// A set goes out together, at the earliest time of any of its slices.
	touch(210, time.Time{}, "0", 0)
	takes(t, s, d, "0", at(210), "", 90*time.Millisecond)
	s.Touch([]resolver.SliceChange{change("0", 1), change("2", 1)}, time.Time{})
	finish(s, takes(t, s, d, "0", at(220), "0 2", 0))
	// A PolicyEndpoint does not wait for the windows of its groups' slices.
	touch(230, time.Time{}, "0", 1)
	takes(t, s, d, "0", at(230), "", 90*time.Millisecond)
	if b, busy := s.TakeGroup(web, d, at(230)); busy != nil || len(b.Names()) != 1 {
		t.Errorf("taken are %v, busy %v", b, busy)
	}
}

// Only a slice whose write depends on one that is being written waits for that.
func TestASliceIsWrittenByOneAtATime(t *testing.T) {
	now := time.Time{}
	d := desired{"shop/0": "web=0,1: a", "shop/1": "web: b", "shop/2": "db=2: c"}
	s := NewSlices("kidoban", 0)
	s.Touch([]resolver.SliceChange{change("0", 1), change("1", 1)}, now)
	b := takes(t, s, d, "0", now, "0 1", 0)
	s.Touch([]resolver.SliceChange{change("1", 0), change("2", 0)}, now)
	takes(t, s, d, "1", now, "waits for 1", 0)
	finish(s, takes(t, s, d, "2", now, "2", 0))
	s.Written(b, nameOf("shop", "1")) // and the other one is not yet
	finish(s, takes(t, s, d, "1", now, "1", 0))
	s.Touch([]resolver.SliceChange{change("0", 7), change("2", 7)}, now)
	takes(t, s, d, "2", now, "waits for 0", 0)
	if b, busy := s.TakeGroup(web, d, now); b != nil || busy == nil || busy.Name != "0" {
		t.Errorf("of the group, %v are taken, and %v is being written", b, busy)
	}
	s.Done(b, map[types.NamespacedName]bool{nameOf("shop", "1"): true}, now)
	finish(s, takes(t, s, d, "2", now, "0 2", 0))
}

// The slice that an address leaves for a shared one is written when agents have seen that one, or with its next change.
func TestASliceThatOnlyMovesAddressesWaits(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	have := map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{nameOf("shop", "0"): parse("web=0: a b")}
	d := desired{"shop/0": "web=0+0: b", "kidoban/0": "all=0 shop.web: a"}
	s := NewSlices("kidoban", 100*time.Millisecond)
	s.Touch([]resolver.SliceChange{change("0", 1), {Name: nameOf("kidoban", "0"), Structure: true, Set: 1}}, now)
	b := takes(t, s, d, "0", now, "0 0", 0)
	if got := describe(b.Writes(have)); got != "kidoban/0, shop/0 later after kidoban/0" {
		t.Fatalf("the writes are %s", got)
	}
	s.Written(b, nameOf("kidoban", "0"))
	if again := s.Done(b, map[types.NamespacedName]bool{nameOf("kidoban", "0"): true}, now); len(again) != 1 || again[0].Namespace != "shop" {
		t.Fatalf("to be written are %v", again)
	}
	takes(t, s, d, "0", now.Add(200*time.Millisecond), "", 800*time.Millisecond)
	s.Touch([]resolver.SliceChange{change("0", 0)}, now)
	finish(s, takes(t, s, d, "0", now.Add(200*time.Millisecond), "0", 0))
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
