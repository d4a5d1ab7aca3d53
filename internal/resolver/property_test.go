package resolver

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// snapshot is every object that a resolver wants.
type snapshot struct {
	endpoints map[types.NamespacedName]Endpoint
	cluster   map[string]ClusterEndpoint
	slices    map[types.NamespacedName]v1alpha1.PolicyEndpointSliceSpec
}

func snap(r *Resolver) snapshot {
	s := snapshot{map[types.NamespacedName]Endpoint{}, map[string]ClusterEndpoint{}, map[types.NamespacedName]v1alpha1.PolicyEndpointSliceSpec{}}
	for name := range r.endpoints {
		s.endpoints[name], _ = r.Endpoint(name)
	}
	for name := range r.cluster.endpoints {
		s.cluster[name], _ = r.ClusterEndpoint(name)
	}
	for _, x := range r.space.slices {
		s.slices[x.name()], _ = r.Slice(x.name())
	}
	return s
}

// existing is what a resolver finds that starts afterwards.
func (s snapshot) existing() Existing {
	out := Existing{map[types.NamespacedName]*v1alpha1.PolicyEndpointSpec{}, map[string]*v1alpha1.ClusterPolicyEndpointSpec{}, map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}}
	for name, e := range s.endpoints {
		out.Endpoints[name] = e.Spec
	}
	for name, e := range s.cluster {
		out.ClusterEndpoints[name] = e.Spec
	}
	for name, slice := range s.slices {
		out.Slices[name] = &slice
	}
	return out
}

// group returns what a reader finds of a group.
func (s snapshot) group(key policy.GroupKey) (members map[v1alpha1.CIDR]bool, complete bool) {
	all := specs{}
	for name, slice := range s.slices {
		all[name] = &slice
	}
	return all.group(key, "kidoban")
}

// members returns the groups' addresses.
func (s snapshot) members(t *testing.T) map[policy.GroupKey]map[v1alpha1.CIDR]bool {
	t.Helper()
	out := map[policy.GroupKey]map[v1alpha1.CIDR]bool{}
	for key := range s.selectors() {
		var complete bool
		if out[key], complete = s.group(key); !complete {
			t.Fatalf("%s is not complete", key)
		}
	}
	return out
}

// selectors returns those of the groups in the slices.
func (s snapshot) selectors() map[policy.GroupKey]*v1alpha1.GroupSelector {
	out := map[policy.GroupKey]*v1alpha1.GroupSelector{}
	for name, slice := range s.slices {
		for i := range slice.Groups {
			p := &slice.Groups[i]
			if key := keyIn(name, p); out[key] == nil {
				out[key] = p.Selector
			}
		}
	}
	return out
}

const propertyMax = 4

// TestIncrementalIsExact draws events and compares the resolver, after each, with a new one that gets the
// current objects, with selectors and rules as Kubernetes defines them, and with the changes that it
// returned.
func TestIncrementalIsExact(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 1))}
			options := Options{SharedNamespace: "kidoban", MaxAddresses: propertyMax}
			m := &model{
				map[string]map[string]string{}, map[types.NamespacedName]Pod{}, map[types.NamespacedName]*networkingv1.NetworkPolicy{},
				map[types.NamespacedName]*networkingv1.NetworkPolicy{}, map[string]*cnp.ClusterNetworkPolicy{}, map[string]Node{},
			}
			r := New(options)
			r.Start(Existing{})
			before := snap(r)
			for step := range 150 {
				what, changes := event(d, m, r, int64(step))
				after := snap(r)
				checkChanges(t, what, before, after, changes)
				for _, g := range changes.Unused {
					before = after
					changes := r.Forget(g)
					after = snap(r)
					checkChanges(t, happening{name: fmt.Sprint("forget ", g)}, before, after, changes)
				}
				checkSlices(t, after)
				if t.Failed() {
					t.Fatalf("after step %d: %s", step, what.name)
				}
				before = after
				if step%10 == 9 {
					rebuilt := checkRebuilt(t, d, m, options, after)
					if d.IntN(3) == 0 { // a restart
						r = rebuilt
					}
					checkMembers(t, m, after)
					checkFlows(t, d, m, r, after)
					checkClusterFlows(t, d, m, r, after)
					checkStats(t, r, after)
				}
			}
		})
	}
}

type happening struct {
	name string
	noop bool // nothing changed
}

func event(d dice, m *model, r *Resolver, step int64) (happening, Changes) {
	switch k := d.IntN(24); {
	case k >= 20:
		return clusterEvent(d, m, r, step)
	case k < 2:
		name, labels := d.namespace(), randomLabels(d.Rand)
		m.namespaces[name] = labels
		return happening{name: fmt.Sprintf("namespace %s %v", name, labels)}, r.SetNamespace(name, labels)
	case k < 3:
		name := d.namespace()
		delete(m.namespaces, name)
		return happening{name: "delete namespace " + name}, r.DeleteNamespace(name)
	case k < 9:
		p := d.pod(d.podKey())
		m.pods[p.Key] = p
		return happening{name: fmt.Sprintf("pod %v", p)}, r.SetPod(p)
	case k < 11:
		key := d.podKey()
		p, ok := m.pods[key]
		if !ok {
			return happening{name: "delete no pod", noop: true}, r.DeletePod(key)
		}
		p.Labels = randomLabels(d.Rand)
		m.pods[key] = p
		return happening{name: fmt.Sprintf("relabel %v", p)}, r.SetPod(p)
	case k < 13:
		key := d.podKey()
		delete(m.pods, key)
		return happening{name: fmt.Sprintf("delete pod %s", key)}, r.DeletePod(key)
	case k < 17:
		np := d.policy(step)
		key := types.NamespacedName{Namespace: np.Namespace, Name: np.Name}
		m.policies[key] = np
		delete(m.broken, key)
		return happening{name: fmt.Sprintf("policy %s/%s", np.Namespace, np.Name)}, r.SetPolicy(np)
	case k < 18:
		key := types.NamespacedName{Namespace: d.namespace(), Name: pick(d, "a", "b", "c")}
		if np := m.policies[key]; np != nil && d.IntN(2) == 0 {
			broken := np.DeepCopy()
			broken.Generation = step
			if d.IntN(2) == 0 {
				broken.Spec.PodSelector.MatchLabels = map[string]string{"a b": "c"}
			} else {
				tooLarge(&broken.Spec)
			}
			m.broken[key] = broken
			return happening{name: fmt.Sprintf("break policy %s", key)}, r.SetPolicy(broken)
		}
		delete(m.policies, key)
		delete(m.broken, key)
		return happening{name: fmt.Sprintf("delete policy %s", key)}, r.DeletePolicy(key)
	}
	if len(m.policies) > 0 && d.IntN(2) == 0 {
		key := slices.MinFunc(slices.Collect(maps.Keys(m.policies)), compareNames)
		np := m.policies[key]
		if broken, ok := m.broken[key]; ok {
			np = broken
		}
		return happening{name: fmt.Sprintf("no change of policy %s", key), noop: true}, r.SetPolicy(np.DeepCopy())
	}
	for _, key := range slices.SortedFunc(maps.Keys(m.pods), compareNames) {
		return happening{name: fmt.Sprintf("no change of pod %s", key), noop: true}, r.SetPod(m.pods[key])
	}
	return happening{name: "nothing", noop: true}, Changes{}
}

// checkChanges compares the changes that the resolver returned with the difference of two snapshots.
func checkChanges(t *testing.T, what happening, before, after snapshot, c Changes) {
	t.Helper()
	var want Changes
	for name := range union(before.endpoints, after.endpoints) {
		if !reflect.DeepEqual(before.endpoints[name], after.endpoints[name]) {
			want.Endpoints = append(want.Endpoints, name)
		}
	}
	wanted, got := map[types.NamespacedName]bool{}, map[types.NamespacedName]bool{}
	structure := map[types.NamespacedName]bool{}
	for name := range union(before.slices, after.slices) {
		old, was := before.slices[name]
		now, is := after.slices[name]
		if was != is || !reflect.DeepEqual(old, now) {
			wanted[name] = true
			structure[name] = was != is || !reflect.DeepEqual(old.Groups, now.Groups)
		}
	}
	for name := range union(before.cluster, after.cluster) {
		if !reflect.DeepEqual(before.cluster[name], after.cluster[name]) {
			want.ClusterEndpoints = append(want.ClusterEndpoints, name)
		}
	}
	slices.Sort(want.ClusterEndpoints)
	if diff := cmp.Diff(want.ClusterEndpoints, c.ClusterEndpoints); diff != "" {
		t.Errorf("changed cluster endpoints (-want +got):\n%s", diff)
	}
	slices.SortFunc(want.Endpoints, compareNames)
	if diff := cmp.Diff(want.Endpoints, c.Endpoints); diff != "" {
		t.Errorf("changed endpoints (-want +got):\n%s", diff)
	}
	for _, s := range c.Slices {
		got[s.Name] = true
		if structure[s.Name] && !s.Structure {
			t.Errorf("the structure of %s changed without a word", s.Name)
		}
	}
	for name := range wanted {
		if !got[name] {
			t.Errorf("%s changed, and is not among %v", name, c.Slices)
		}
	}
	if extra := len(got) - len(wanted); extra > 2 {
		t.Errorf("%d slices are among the changes and did not change", extra)
	}
	if what.noop && len(c.Endpoints)+len(c.ClusterEndpoints)+len(c.Slices) > 0 {
		t.Errorf("a change of nothing changed %v", c)
	}
}

func union[K comparable, V any](a, b map[K]V) map[K]struct{} {
	out := map[K]struct{}{}
	for k := range a {
		out[k] = struct{}{}
	}
	for k := range b {
		out[k] = struct{}{}
	}
	return out
}

func checkSlices(t *testing.T, s snapshot) {
	t.Helper()
	for name, slice := range s.slices {
		if len(slice.Addresses) > propertyMax || int(slice.Count) != len(slice.Addresses) {
			t.Errorf("slice %v: %v", name, slice)
		}
	}
	members := s.members(t)
	for name, e := range s.endpoints {
		for _, g := range e.Groups {
			if _, ok := members[g]; !ok {
				t.Errorf("%s refers to %s, which is not there", name, g)
			}
		}
	}
	for name, e := range s.cluster {
		for _, g := range e.Groups {
			if _, ok := members[g]; !ok {
				t.Errorf("%s refers to %s, which is not there", name, g)
			}
		}
	}
}

// tooLarge gives a policy more rules than a PolicyEndpoint holds.
func tooLarge(spec *networkingv1.NetworkPolicySpec) {
	spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	for port := range int32(v1alpha1.MaxRules + 1) {
		spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{
			To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("11.0.%d.%d/32", port/256, port%256)}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(port + 1))}},
		})
	}
}

// checkRebuilt compares with new resolvers, one with and one without the existing objects, and returns the
// former.
func checkRebuilt(t *testing.T, d dice, m *model, o Options, want snapshot) *Resolver {
	t.Helper()
	existing := want.existing()
	var r *Resolver
	for _, adopt := range []*Existing{nil, &existing} {
		if adopt == nil && len(m.broken) > 0 {
			continue // only the existing objects contain their version in force
		}
		r = New(o)
		feeds := []func(){}
		for name, l := range m.namespaces {
			feeds = append(feeds, func() { r.SetNamespace(name, l) })
		}
		for _, p := range m.pods {
			feeds = append(feeds, func() { r.SetPod(p) })
		}
		for key, np := range m.policies {
			if broken, ok := m.broken[key]; ok {
				np = broken
			}
			feeds = append(feeds, func() { r.SetPolicy(np) })
		}
		for _, np := range m.clusterPolicies {
			feeds = append(feeds, func() { r.SetClusterPolicy(np) })
		}
		for _, n := range m.nodes {
			feeds = append(feeds, func() { r.SetNode(n) })
		}
		d.Shuffle(len(feeds), func(i, j int) { feeds[i], feeds[j] = feeds[j], feeds[i] })
		late := d.IntN(len(feeds)+1) * d.IntN(2) // some, or none, come after the start
		for _, feed := range feeds[late:] {
			feed()
		}
		if adopt != nil {
			for _, feed := range feeds[:late] {
				feed()
			}
			r.Start(*adopt)
		} else {
			r.Start(Existing{})
			for _, feed := range feeds[:late] {
				feed()
			}
		}
		for key, g := range r.groups {
			if g.users == 0 { // a policy that came after a pod with a named port, for example
				r.Forget(key)
			}
		}
		got := snap(r)
		if diff := cmp.Diff(want.endpoints, got.endpoints); diff != "" {
			t.Fatalf("endpoints (-incremental +rebuilt):\n%s", diff)
		}
		if diff := cmp.Diff(want.cluster, got.cluster); diff != "" {
			t.Fatalf("cluster endpoints (-incremental +rebuilt):\n%s", diff)
		}
		if diff := cmp.Diff(want.members(t), got.members(t)); diff != "" {
			t.Fatalf("members (-incremental +rebuilt):\n%s", diff)
		}
		if adopt != nil {
			if diff := cmp.Diff(want.slices, got.slices); diff != "" {
				t.Fatalf("a restart changes slices (-before +after):\n%s", diff)
			}
		}
	}
	return r
}

// checkMembers compares each group with the selectors in its slices. A named port that no pod has comes to no
// group.
func checkMembers(t *testing.T, m *model, s snapshot) {
	t.Helper()
	selectors := s.selectors()
	for group, got := range s.members(t) {
		sel := selectors[group]
		want := map[v1alpha1.CIDR]bool{}
		for _, n := range m.nodes {
			for _, a := range n.Addresses {
				if sel.NodeSelector != nil && selects(sel.NodeSelector, n.Labels) {
					want[v1alpha1.CIDR(netip.PrefixFrom(a, a.BitLen()).String())] = true
				}
			}
		}
		for _, p := range m.pods {
			if sel.NodeSelector != nil {
				break
			}
			for _, a := range p.Addresses {
				at := slices.ContainsFunc(m.peersAt(a), func(q Pod) bool { return q.Key == p.Key })
				if sel.Port != nil {
					at = at && slices.ContainsFunc(p.Ports, func(n policy.NamedPort) bool {
						return n.Name == sel.Port.Name && n.Protocol.String() == string(sel.Port.Protocol) && int32(n.Port) == sel.Port.Port
					})
				}
				if sel.IPBlock != nil {
					var except []string
					for _, e := range sel.IPBlock.Except {
						except = append(except, string(e))
					}
					at = at && blockHolds(string(sel.IPBlock.CIDR), except, a) > 0
				}
				if at && m.selectsPod(group.Namespace, sel.NamespaceSelector, sel.PodSelector, p) {
					want[v1alpha1.CIDR(netip.PrefixFrom(a, a.BitLen()).String())] = true
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s of %v (-want +got):\n%s", group, sel, diff)
		}
		if sel.Port != nil && len(got) == 0 && len(m.broken) == 0 {
			t.Fatalf("%s of %v is empty", group, sel)
		}
	}
}

// checkFlows compares each PolicyEndpoint with its policy.
func checkFlows(t *testing.T, d dice, m *model, r *Resolver, s snapshot) {
	t.Helper()
	for key, np := range m.policies {
		if m.broken[key] != nil {
			continue // the ports' numbers in its rules are those of before
		}
		name, _ := r.EndpointName(key)
		e, _ := r.Endpoint(name)
		for range 30 {
			selected, f := d.pod(d.podKey()), d.flow()
			for _, dir := range policy.Directions {
				if !slices.Contains(e.Spec.PolicyTypes, v1alpha1.PolicyType(dir.String())) {
					continue
				}
				if want, got := m.allows(np, dir, selected, f), specAllows(r, s, e, dir, selected, f); want != got {
					t.Fatalf("%s %v of %v by %v: policy %v says %t, endpoint %v says %t", dir, f, selected.Ports, key, np.Spec, want, e.Spec, got)
				}
			}
		}
	}
}

func checkStats(t *testing.T, r *Resolver, s snapshot) {
	t.Helper()
	want := Stats{Policies: len(s.endpoints) + len(s.cluster), Groups: len(r.groups), Slices: len(s.slices)}
	for _, slice := range s.slices {
		want.Addresses += len(slice.Addresses)
	}
	if got := r.Stats(); got != want {
		t.Errorf("stats %v, want %v", got, want)
	}
}
