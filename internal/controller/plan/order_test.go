package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// history is a resolver whose slices are written to an API server that fails now and then, and a reader that
// sees each write.
type history struct {
	t        *testing.T
	rng      *rand.Rand
	resolver *resolver.Resolver
	slices   *Slices
	now      time.Time
	api      map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec
	seen     map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec // by a reader that gets shared slices later
	late     []lateWrite
	unused   []policy.GroupKey
	groups   map[policy.GroupKey]*watchedGroup
	// incomplete counts writes after which some group was not complete that had been.
	writes, incomplete int
	// hidden counts members that stay, and were missing for the reader that gets shared slices later.
	hidden int
}

// lateWrite is one of a shared slice that a reader has not seen yet; spec is nil if it was deleted.
type lateWrite struct {
	name types.NamespacedName
	spec *v1alpha1.PolicyEndpointSliceSpec
	at   time.Time
}

// see puts a write in front of the reader that gets shared slices later, by less than moveTime.
func (h *history) see(w lateWrite) {
	if w.name.Namespace == "kidoban" {
		h.late = append(h.late, w)
	} else {
		put(h.seen, w)
	}
	for len(h.late) > 0 && h.now.Sub(h.late[0].at) >= moveTime-time.Millisecond {
		put(h.seen, h.late[0])
		h.late = h.late[1:]
	}
}

func put(specs map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec, w lateWrite) {
	if w.spec == nil {
		delete(specs, w.name)
	} else {
		specs[w.name] = w.spec.DeepCopy()
	}
}

// watchedGroup is what is certain about the members of a group that a reader sees.
type watchedGroup struct {
	members map[v1alpha1.CIDR]bool
	// stay are members since the API server had all changes the last time, and may are those at any time since
	// then.
	stay, may map[v1alpha1.CIDR]bool
	seen      bool // it was complete
}

// read returns what a reader finds of a group, by the definition in the API.
func read(specs map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec, key policy.GroupKey) (members map[v1alpha1.CIDR]bool, complete bool) {
	has, listed := map[types.NamespacedName]bool{}, map[types.NamespacedName]bool{}
	members = map[v1alpha1.CIDR]bool{}
	for name, spec := range specs {
		at := slices.IndexFunc(spec.Groups, func(p v1alpha1.GroupPart) bool { return resolver.GroupOf(name.Namespace, &p) == key })
		if at < 0 {
			continue
		}
		has[name] = true
		for _, s := range spec.Groups[at].Slices {
			listed[nameOf(name.Namespace, s)] = true
		}
		for _, s := range spec.Groups[at].SharedSlices {
			listed[nameOf("kidoban", s)] = true
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
	for name := range listed {
		if !has[name] {
			return members, false
		}
	}
	return members, len(listed) > 0
}

// desired are the slices that the resolver wants.
func (h *history) desired() map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec {
	out := map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}
	for key := range h.groups {
		for _, name := range h.resolver.Slices(key) {
			if spec, ok := h.resolver.Slice(name); ok {
				out[name] = &spec
			}
		}
	}
	return out
}

// changed records a change of the resolver's.
func (h *history) changed(c resolver.Changes) {
	h.slices.Touch(c.Slices, time.Time{})
	h.unused = append(h.unused, c.Unused...)
	for _, name := range c.Endpoints {
		e, _ := h.resolver.Endpoint(name)
		for _, g := range e.Groups {
			if h.groups[g] == nil {
				h.groups[g] = &watchedGroup{}
			}
		}
	}
	desired := h.desired()
	for key, g := range h.groups {
		if len(h.resolver.Slices(key)) == 0 { // forgotten
			delete(h.groups, key)
			continue
		}
		members, complete := read(desired, key)
		if !complete {
			h.t.Fatalf("the resolver wants %s not to be complete", key)
		}
		if g.may == nil {
			g.stay, g.may = map[v1alpha1.CIDR]bool{}, map[v1alpha1.CIDR]bool{}
		}
		g.members = members
		maps.Copy(g.may, members)
		maps.DeleteFunc(g.stay, func(a v1alpha1.CIDR, _ bool) bool { return !members[a] })
	}
}

// event changes a pod, or the policy of a namespace.
func (h *history) event(pods int) {
	namespace := []string{"a", "b"}[h.rng.IntN(2)]
	pick := func(values ...string) string { return values[h.rng.IntN(len(values))] }
	switch n := h.rng.IntN(pods); {
	case h.rng.IntN(25) == 0:
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pick("x", "y"), UID: "1"}}
		for range h.rng.IntN(4) {
			peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}
			if label := pick("app", "tier", ""); label != "" {
				peer.PodSelector.MatchLabels = map[string]string{label: pick("0", "1", "2")}
			}
			if h.rng.IntN(2) == 0 {
				peer.NamespaceSelector = &metav1.LabelSelector{}
			}
			np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{peer}})
		}
		h.changed(h.resolver.SetPolicy(np))
	case h.rng.IntN(5) == 0 || n >= 50:
		h.changed(h.resolver.DeletePod(nameOf(namespace, fmt.Sprint(n%50))))
	default:
		h.changed(h.resolver.SetPod(resolver.Pod{
			Key: nameOf(namespace, fmt.Sprint(n)), Phase: corev1.PodRunning, Labels: map[string]string{"app": pick("0", "1", "2"), "tier": pick("0", "1", "2")},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, namespace[0], byte(n)})},
		}))
	}
}

// write writes some dirty slice and those that its write depends on, and fails now and then.
func (h *history) write(reliable bool) {
	names := slices.SortedFunc(maps.Keys(h.slices.states), compareNames)
	if len(names) == 0 {
		return
	}
	b, _, _ := h.slices.Take(names[h.rng.IntN(len(names))], h.resolver, h.now)
	if !reliable && h.rng.IntN(3) == 0 && len(h.groups) > 0 && b == nil {
		keys := slices.SortedFunc(maps.Keys(h.groups), func(a, b policy.GroupKey) int { return strings.Compare(a.String(), b.String()) })
		b, _ = h.slices.TakeGroup(keys[h.rng.IntN(len(keys))], h.resolver, h.now)
	}
	if b != nil {
		h.carryOut(b, reliable)
	}
}

// carryOut writes a batch in an order that the plan allows, and other slices in the meantime.
func (h *history) carryOut(b *Batch, reliable bool) {
	have := map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}
	for _, name := range b.Names() {
		if spec, ok := h.api[name]; ok {
			have[name] = spec
		}
	}
	writes := b.Writes(have)
	ended, written := make([]bool, len(writes)), make([]bool, len(writes))
	for range writes {
		var ready []int
		for i, w := range writes {
			waits := func(on int) bool { return !ended[on] }
			if !ended[i] && !slices.ContainsFunc(w.After, waits) && !slices.ContainsFunc(w.AfterTry, waits) {
				ready = append(ready, i)
			}
		}
		i := ready[h.rng.IntN(len(ready))]
		w := writes[i]
		ended[i] = true
		held := slices.ContainsFunc(w.After, func(on int) bool { return !written[on] })
		if held || w.Later || !reliable && h.rng.IntN(12) == 0 {
			continue
		}
		put(h.api, lateWrite{w.Name, w.Spec, h.now})
		h.see(lateWrite{w.Name, w.Spec, h.now})
		written[i] = true
		if w.Last {
			h.slices.Written(b, w.Name)
		}
		h.writes++
		h.check(w)
		if !reliable && h.rng.IntN(20) == 0 { // in the meantime
			h.event(50)
		}
		if !reliable && h.rng.IntN(8) == 0 {
			h.write(false)
		}
	}
	done := map[types.NamespacedName]bool{}
	for i, w := range writes {
		done[w.Name] = done[w.Name] || w.Last && written[i]
	}
	h.slices.Done(b, done, h.now)
}

// check compares what the reader sees after a write with what is certain.
func (h *history) check(w SliceWrite) {
	h.t.Helper()
	broken := false
	for key, g := range h.groups {
		members, complete := read(h.api, key)
		broken = broken || g.seen && !complete
		if !complete {
			continue
		}
		g.seen = true
		for a := range g.stay {
			if !members[a] {
				h.t.Fatalf("after write %d (%s: %s), %s stays in %s and is missing", h.writes, w.Name, w.Reason, a, key)
			}
		}
		if seen, complete := read(h.seen, key); complete {
			for a := range g.stay {
				if !seen[a] {
					h.hidden++
				}
			}
		}
		for a := range members {
			if !g.may[a] {
				h.t.Fatalf("after write %d (%s: %s), %s has %s, which left before", h.writes, w.Name, w.Reason, key, a)
			}
		}
	}
	if broken {
		h.incomplete++
	}
}

// sync writes everything and compares the API server with the resolver.
func (h *history) sync() {
	h.t.Helper()
	for _, g := range h.unused {
		h.slices.Forgotten(g)
		h.changed(h.resolver.Forget(g))
	}
	h.unused = nil
	h.now = h.now.Add(time.Hour)
	for len(h.slices.states) > 0 {
		h.write(true)
		h.now = h.now.Add(time.Hour)
		h.slices.forgetOld(h.now)
	}
	desired := h.desired()
	if len(desired) != len(h.api) {
		h.t.Fatalf("%d slices, want %d", len(h.api), len(desired))
	}
	for key, g := range h.groups {
		members, complete := read(h.api, key)
		if !complete || !maps.Equal(members, g.members) {
			h.t.Fatalf("%s is %v, complete %t, want %v", key, members, complete, g.members)
		}
		if !h.slices.Present(key, h.resolver) {
			h.t.Fatalf("%s is not present", key)
		}
		g.stay, g.may = maps.Clone(members), maps.Clone(members)
	}
}

// A reader that sees every write never finds a complete group without a member that stays, nor with one that
// left before.
func TestNoPrefixOfTheWritesHidesAMember(t *testing.T) {
	writes, incomplete, hidden := 0, 0, 0
	for seed := range uint64(15) {
		h := &history{
			t: t, rng: rand.New(rand.NewPCG(seed, 5)), slices: NewSlices("kidoban", time.Second), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			api: map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}, seen: map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}, groups: map[policy.GroupKey]*watchedGroup{},
			resolver: resolver.New(resolver.Options{SharedNamespace: "kidoban", MaxAddresses: 3}),
		}
		h.resolver.Start(resolver.Existing{})
		for _, ns := range []string{"a", "b"} {
			h.changed(h.resolver.SetNamespace(ns, nil))
		}
		for step := range 600 {
			pods := 50
			if step/100%2 == 1 { // many are deleted, and slices merged
				pods = 150
			}
			h.event(pods)
			h.now = h.now.Add(time.Duration(h.rng.IntN(1000)) * time.Millisecond)
			if h.rng.IntN(2) == 0 {
				h.write(false)
			}
			if h.rng.IntN(15) == 0 {
				h.sync()
			}
		}
		h.sync()
		writes, incomplete, hidden = writes+h.writes, incomplete+h.incomplete, hidden+h.hidden
	}
	t.Logf("%d writes; a group was incomplete after %d of them, and %d members were hidden", writes, incomplete, hidden)
}
