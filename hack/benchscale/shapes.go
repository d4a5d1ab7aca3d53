package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// A shape is a way to write the groups' addresses into objects. caseShapes gives several of them the same
// cluster and the same changes and counts what each of them writes. docs/decisions has the figures and the
// choice.
type shape interface {
	// move puts an address into exactly these groups of one namespace, which are sorted; nil removes it from
	// all of them.
	move(namespace string, a netip.Addr, groups []policy.GroupKey)
	// take returns the objects that became different since it was called last.
	take() []shapedObject
	// count is the number of objects.
	count() int
}

// shapedObject is an object that is written: its namespace and the size of its event on a watch.
type shapedObject struct {
	namespace string
	bytes     int
}

// shapeCost is what a churn came to with one shape.
type shapeCost struct {
	name          string
	objects       int
	changes       int
	writes        int
	local, shared int // bytes of the objects written
}

// perAgent is the number of bytes of one change that reach an agent on average: all that is shared, and a
// part of the namespaces.
func (s *shapeCost) perAgent(l *load) float64 {
	part := float64(teamSize) / float64(l.namespaces)
	return (float64(s.shared) + part*float64(s.local)) / float64(s.changes)
}

func (s *shapeCost) add(written []shapedObject) {
	for _, o := range written {
		s.writes++
		if o.namespace == sharedNamespace {
			s.shared += o.bytes
		} else {
			s.local += o.bytes
		}
	}
}

// caseShapes compares the shapes in memory with the cluster of the cases on the API server.
func caseShapes(ctx context.Context, o options, out *report) error {
	out.logf("shapes: %s", o.cluster.words())
	costs, err := measureShapes(ctx, newLoad(o.cluster, o.seed), o.shapeChanges)
	if err != nil {
		return err
	}
	now := &costs[0]
	for i := range costs {
		s := &costs[i]
		out.add(row{"address objects, in memory", fmt.Sprintf("%s: objects written for a pod's change (of %s changes; %s objects in all; %s bytes written a change, %s of them to an average agent, %.2f × today's)",
			s.name, thousands(s.changes), thousands(s.objects), thousands((s.local+s.shared)/s.changes), thousands(int(s.perAgent(newLoad(o.cluster, o.seed)))),
			s.perAgent(newLoad(o.cluster, o.seed))/now.perAgent(newLoad(o.cluster, o.seed))),
			float64(s.writes) / float64(s.changes) / 2.5, fmt.Sprintf("%.2f", float64(s.writes)/float64(s.changes)), "2.5"})
	}
	return nil
}

// measureShapes changes n pods, two of five added, two deleted and one relabelled, and has each shape write
// what comes of it. The first cost is that of the resolver's own slices.
func measureShapes(ctx context.Context, l *load, n int) ([]shapeCost, error) {
	pods := l.allPods()
	r := fromNothing(l, pods)
	costs := []shapeCost{{name: "a slice a group (today)"}, {name: "packed"}, {name: "by class"}}
	shapes := []shape{newPacked(maxAddresses), newByClass(maxAddresses, maxAddresses*9/10)}

	in := map[netip.Addr]map[policy.GroupKey]bool{}
	for key, count := range r.counts {
		for i := range count {
			s, _ := r.Slice(resolver.SliceKey{Group: key, Index: int32(i)})
			for _, c := range s.Addresses {
				a := addressOf(c)
				if in[a] == nil {
					in[a] = map[policy.GroupKey]bool{}
				}
				in[a][key] = true
			}
		}
	}
	costs[0].objects = r.Stats().Slices
	// Classes that have much in common one after another: large groups first.
	order := slices.Collect(maps.Keys(in))
	sortKey := map[netip.Addr]string{}
	for a, groups := range in {
		list := slices.SortedFunc(maps.Keys(groups), func(x, y policy.GroupKey) int {
			if d := r.counts[y] - r.counts[x]; d != 0 {
				return d
			}
			return strings.Compare(x.String(), y.String())
		})
		sortKey[a] = fmt.Sprint(list)
	}
	slices.SortFunc(order, func(a, b netip.Addr) int {
		if d := strings.Compare(sortKey[a], sortKey[b]); d != 0 {
			return d
		}
		return a.Compare(b)
	})
	place := func(a netip.Addr, namespaces ...string) {
		byNamespace := map[string][]policy.GroupKey{}
		for _, ns := range namespaces {
			byNamespace[ns] = nil
		}
		for key := range in[a] {
			byNamespace[key.Namespace] = append(byNamespace[key.Namespace], key)
		}
		for ns, groups := range byNamespace {
			slices.SortFunc(groups, func(x, y policy.GroupKey) int { return strings.Compare(x.Name, y.Name) })
			for _, s := range shapes {
				s.move(ns, a, groups)
			}
		}
	}
	for _, a := range order {
		place(a)
	}
	for i, s := range shapes {
		s.take()
		costs[i+1].objects = s.count()
	}

	var departed []pod
	takePod := func() pod {
		k := l.rng.IntN(len(pods))
		p := pods[k]
		pods[k] = pods[len(pods)-1]
		pods = pods[:len(pods)-1]
		return p
	}
	for i := range n {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var before, after *pod
		switch i % 5 {
		case 0, 3:
			p := takePod()
			before, departed = &p, append(departed, p)
		case 1, 4:
			p := l.pod(departed[0].namespace, departed[0].index)
			after, departed = &p, departed[1:]
		case 2:
			old := takePod()
			now := old.relabelled(l.rng)
			for now.labels["app"] == old.labels["app"] {
				now = old.relabelled(l.rng)
			}
			before, after = &old, &now
		}
		changed := r.apply(before, after)
		var a netip.Addr
		if before != nil {
			a = before.address
		} else {
			a = after.address
		}
		if in[a] == nil {
			in[a] = map[policy.GroupKey]bool{}
		}
		touched, namespaces := map[policy.GroupKey]bool{}, map[string]bool{}
		var written []shapedObject
		for _, key := range changed.Slices {
			if !touched[key.Group] { // a group changes because the pod enters or leaves it
				touched[key.Group] = true
				namespaces[key.Group.Namespace] = true
				if in[a][key.Group] {
					delete(in[a], key.Group)
				} else {
					in[a][key.Group] = true
				}
			}
			written = append(written, todaysObject(r, key))
		}
		place(a, slices.Collect(maps.Keys(namespaces))...)
		costs[0].changes++
		costs[0].add(written)
		for j, s := range shapes {
			costs[j+1].changes++
			costs[j+1].add(s.take())
		}
	}
	return costs, nil
}

func (r *resolved) apply(before, after *pod) resolver.Changes {
	if after == nil {
		return r.DeletePod(before.key())
	}
	return r.SetPod(after.forResolver())
}

// todaysObject is a slice as a watch sends it.
func todaysObject(r *resolved, key resolver.SliceKey) shapedObject {
	spec, ok := r.Slice(key)
	if !ok {
		return shapedObject{key.Group.Namespace, sizeOf(key.Group.Namespace, key.Group.Name, nil)}
	}
	return shapedObject{key.Group.Namespace, sizeOf(key.Group.Namespace, key.Group.Name, spec)}
}

// sizeOf is the size of an event about an object with this spec, and with the metadata that objects of the
// controller have.
func sizeOf(namespace, group string, spec any) int {
	type object struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta `json:"metadata"`
		Spec            any               `json:"spec"`
	}
	o := object{Spec: spec}
	o.APIVersion, o.Kind = v1alpha1.GroupVersion.String(), "PolicyEndpointSlice"
	o.Metadata = metav1.ObjectMeta{
		Namespace: namespace, Name: "g-0123456789abcdef-10", UID: types.UID("01234567-89ab-cdef-0123-456789abcdef"), ResourceVersion: "1234567", Generation: 123,
		CreationTimestamp: metav1.Now(), Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController},
	}
	if group != "" {
		o.Metadata.Labels["networking.kidoban.dev/group"] = group
	}
	data, err := json.Marshal(map[string]any{"type": "MODIFIED", "object": o})
	if err != nil {
		panic(err) // these types can be marshalled
	}
	return len(data)
}

// packed puts the slices of several groups of one namespace into one object: of all local groups, and of
// shared groups that begin with fewer than 20 addresses in an object. A slice stays in its object.
type packed struct {
	max      int
	groups   map[policy.GroupKey][]*packedSlice
	at       map[policy.GroupKey]map[netip.Addr]*packedSlice
	in       map[netip.Addr]map[policy.GroupKey]bool
	packages map[string][]*packedObject // by namespace
	dirty    map[*packedObject]bool
	n        int
}

type packedObject struct {
	namespace string
	slices    []*packedSlice
}

type packedSlice struct {
	group     policy.GroupKey
	index     int
	addresses map[netip.Addr]bool
	object    *packedObject
}

// maxPacked is the number of addresses up to which an object takes another slice.
const maxPacked = 3 * maxAddresses

func newPacked(max int) *packed {
	return &packed{max: max, groups: map[policy.GroupKey][]*packedSlice{}, at: map[policy.GroupKey]map[netip.Addr]*packedSlice{},
		in: map[netip.Addr]map[policy.GroupKey]bool{}, packages: map[string][]*packedObject{}, dirty: map[*packedObject]bool{}}
}

func (p *packed) move(namespace string, a netip.Addr, groups []policy.GroupKey) {
	if p.in[a] == nil {
		p.in[a] = map[policy.GroupKey]bool{}
	}
	for g := range p.in[a] {
		if g.Namespace == namespace && !slices.Contains(groups, g) {
			s := p.at[g][a]
			delete(s.addresses, a)
			delete(p.at[g], a)
			delete(p.in[a], g)
			p.dirty[s.object] = true
		}
	}
	for _, g := range groups {
		if !p.in[a][g] {
			p.in[a][g] = true
			p.add(g, a)
		}
	}
}

func (p *packed) add(g policy.GroupKey, a netip.Addr) {
	var into *packedSlice
	for _, s := range p.groups[g] {
		if len(s.addresses) < p.max {
			into = s
			break
		}
	}
	if into == nil {
		into = &packedSlice{group: g, index: len(p.groups[g]), addresses: map[netip.Addr]bool{}}
		p.groups[g] = append(p.groups[g], into)
		into.object = p.room(g)
		into.object.slices = append(into.object.slices, into)
		p.dirty[p.groups[g][0].object] = true
	}
	into.addresses[a] = true
	if p.at[g] == nil {
		p.at[g] = map[netip.Addr]*packedSlice{}
	}
	p.at[g][a] = into
	p.dirty[into.object] = true
}

// room finds an object for a slice that begins. In the shared namespace a group's second slice shows that it
// is large.
func (p *packed) room(g policy.GroupKey) *packedObject {
	for _, o := range p.packages[g.Namespace] {
		n := 0
		for _, s := range o.slices {
			n += len(s.addresses)
		}
		if n < maxPacked-p.max && (g.Namespace != sharedNamespace || n < 20) {
			return o
		}
	}
	o := &packedObject{namespace: g.Namespace}
	p.packages[g.Namespace] = append(p.packages[g.Namespace], o)
	p.n++
	return o
}

func (p *packed) count() int { return p.n }

func (p *packed) take() []shapedObject {
	var out []shapedObject
	for o := range p.dirty {
		var entries []packedEntry
		for _, s := range o.slices {
			e := packedEntry{Group: s.group.Name, Index: int32(s.index), Count: int32(len(s.addresses)), Addresses: cidrs(s.addresses)}
			if s.index == 0 {
				e.Slices, e.Selector = int32(len(p.groups[s.group])), typicalSelector
			}
			entries = append(entries, e)
		}
		out = append(out, shapedObject{o.namespace, sizeOf(o.namespace, "", map[string]any{"groups": entries})})
	}
	clear(p.dirty)
	return out
}

// packedEntry is one slice of a group as it was before slices by class.
type packedEntry struct {
	Group     string                  `json:"group"`
	Index     int32                   `json:"index"`
	Slices    int32                   `json:"slices,omitempty"`
	Selector  *v1alpha1.GroupSelector `json:"selector,omitempty"`
	Addresses []v1alpha1.CIDR         `json:"addresses,omitempty"`
	Count     int32                   `json:"count"`
}

// typicalSelector stands for those of groups, which a shape's bytes must hold.
var typicalSelector = &v1alpha1.GroupSelector{NamespaceSelector: matching("team", "team-001"), PodSelector: matching("tier", "frontend")}

func cidrs(addresses map[netip.Addr]bool) []v1alpha1.CIDR {
	var out []v1alpha1.CIDR
	for _, a := range slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare) {
		out = append(out, v1alpha1.CIDR(netip.PrefixFrom(a, a.BitLen()).String()))
	}
	return out
}

// byClass writes each address once in a namespace, with the list of its groups. A group is in pieces, one in
// each object that contains addresses of it, and the first piece has their number.
type byClass struct {
	max, fill int
	places    map[string]map[netip.Addr]*classPlace
	objects   map[string][]*classObject
	pieces    map[policy.GroupKey][]*classObject
	dirty     map[*classObject]bool
	begun     bool
	n         int
}

type classPlace struct {
	object *classObject
	class  string
}

type classObject struct {
	namespace string
	n         int
	classes   map[string]*addressClass
	pieces    map[policy.GroupKey]int // index of the piece that it has of a group
}

type addressClass struct {
	groups    []policy.GroupKey
	addresses map[netip.Addr]bool
}

func newByClass(max, fill int) *byClass {
	return &byClass{max: max, fill: fill, places: map[string]map[netip.Addr]*classPlace{}, objects: map[string][]*classObject{},
		pieces: map[policy.GroupKey][]*classObject{}, dirty: map[*classObject]bool{}}
}

func (b *byClass) move(namespace string, a netip.Addr, groups []policy.GroupKey) {
	places := b.places[namespace]
	if places == nil {
		places = map[netip.Addr]*classPlace{}
		b.places[namespace] = places
	}
	var from *classObject
	if p := places[a]; p != nil {
		from = p.object
		c := from.classes[p.class]
		delete(c.addresses, a)
		if len(c.addresses) == 0 {
			delete(from.classes, p.class)
		}
		from.n--
		b.dirty[from] = true
		delete(places, a)
	}
	if len(groups) == 0 {
		return
	}
	into := b.room(namespace, groups, from)
	key := fmt.Sprint(groups)
	c := into.classes[key]
	if c == nil {
		c = &addressClass{groups, map[netip.Addr]bool{}}
		into.classes[key] = c
	}
	c.addresses[a] = true
	into.n++
	b.dirty[into] = true
	for _, g := range groups {
		if _, ok := into.pieces[g]; !ok {
			into.pieces[g] = len(b.pieces[g])
			b.pieces[g] = append(b.pieces[g], into)
			b.dirty[b.pieces[g][0]] = true // it counts them
		}
	}
	places[a] = &classPlace{into, key}
}

// room finds the object where an address of some groups costs the fewest writes.
func (b *byClass) room(namespace string, groups []policy.GroupKey, from *classObject) *classObject {
	limit := b.fill
	if b.begun {
		limit = b.max
	}
	key := fmt.Sprint(groups)
	var best *classObject
	least := 0
	for _, o := range b.objects[namespace] {
		if o.n >= limit {
			continue
		}
		cost := 0
		if o != from {
			cost = 2
		}
		for _, g := range groups {
			if _, ok := o.pieces[g]; !ok {
				cost += 2
			}
		}
		if _, ok := o.classes[key]; !ok {
			cost++
		}
		if best == nil || cost < least {
			best, least = o, cost
		}
	}
	if best == nil || !b.begun && least > 2*len(groups)+1 {
		best = &classObject{namespace: namespace, classes: map[string]*addressClass{}, pieces: map[policy.GroupKey]int{}}
		b.objects[namespace] = append(b.objects[namespace], best)
		b.n++
	}
	return best
}

func (b *byClass) count() int { return b.n }

func (b *byClass) take() []shapedObject {
	b.begun = true
	type entry struct {
		Name     string                  `json:"name"`
		Index    int                     `json:"index"`
		Slices   int                     `json:"slices,omitempty"`
		Selector *v1alpha1.GroupSelector `json:"selector,omitempty"`
	}
	type class struct {
		Groups    []int           `json:"groups"`
		Addresses []v1alpha1.CIDR `json:"addresses"`
	}
	var out []shapedObject
	for o := range b.dirty {
		var spec struct {
			Groups  []entry `json:"groups"`
			Classes []class `json:"classes"`
		}
		number := map[policy.GroupKey]int{}
		for _, g := range slices.SortedFunc(maps.Keys(o.pieces), func(x, y policy.GroupKey) int { return strings.Compare(x.Name, y.Name) }) {
			e := entry{Name: g.Name, Index: o.pieces[g]}
			if e.Index == 0 {
				e.Slices, e.Selector = len(b.pieces[g]), typicalSelector
			}
			number[g] = len(spec.Groups)
			spec.Groups = append(spec.Groups, e)
		}
		for _, c := range o.classes {
			var groups []int
			for _, g := range c.groups {
				groups = append(groups, number[g])
			}
			spec.Classes = append(spec.Classes, class{groups, cidrs(c.addresses)})
		}
		out = append(out, shapedObject{o.namespace, sizeOf(o.namespace, "", spec)})
	}
	clear(b.dirty)
	return out
}
