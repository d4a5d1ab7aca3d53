package resolver

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// started returns a resolver that has begun with nothing but three namespaces.
func started() *Resolver {
	r := New(Options{SharedNamespace: "kidoban", MaxAddresses: 4})
	r.Start(Existing{})
	for _, ns := range []string{"shop", "tools", "kidoban"} {
		r.SetNamespace(ns, map[string]string{"kubernetes.io/metadata.name": ns})
	}
	return r
}

func runningPod(ns, name string, i int, labels map[string]string) Pod {
	return Pod{Key: types.NamespacedName{Namespace: ns, Name: name}, Labels: labels, Phase: "Running", Addresses: []netip.Addr{addr(i).ip()}}
}

func named(np *networkingv1.NetworkPolicy, ns, name, uid string) *networkingv1.NetworkPolicy {
	np = np.DeepCopy()
	np.Namespace, np.Name, np.UID = ns, name, types.UID(uid)
	return np
}

func (c Changes) String() string { return fmt.Sprintf("%v %v", c.Endpoints, c.Slices) }

// forgetUnused returns the slices that become different when the unused groups are forgotten.
func (r *Resolver) forgetUnused(c Changes) (out []SliceChange) {
	for _, g := range c.Unused {
		out = append(out, r.Forget(g).Slices...)
	}
	return out
}

func (r *Resolver) endpointOf(t *testing.T, ns, name string) Endpoint {
	t.Helper()
	key, _ := r.EndpointName(types.NamespacedName{Namespace: ns, Name: name})
	e, ok := r.Endpoint(key)
	if !ok {
		t.Fatalf("no PolicyEndpoint of %s/%s", ns, name)
	}
	return e
}

func TestPoliciesShareGroupsThatMeanTheSame(t *testing.T) {
	r := started()
	a := parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	b := parsePolicy(t, `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, web]}]}}], ports: [{port: 80}]}]}`)
	r.SetPolicy(named(a, "shop", "a", "1"))
	if c := r.SetPolicy(named(b, "shop", "b", "2")); len(c.Slices) != 0 || len(c.Endpoints) != 1 {
		t.Errorf("the second policy changed %s", c)
	}
	if c := r.SetPolicy(named(a, "tools", "a", "3")); len(c.Slices) != 1 {
		t.Errorf("the same selector in another namespace changed %s", c)
	}
	for i := range 100 {
		r.SetPolicy(named(a, "shop", fmt.Sprintf("more%d", i), fmt.Sprint("more", i)))
	}
	if c := r.SetPod(runningPod("shop", "web", 1, map[string]string{"app": "web"})); len(c.Slices) != 1 || len(c.Endpoints) != 0 {
		t.Errorf("one pod changed %s", c)
	}
	if got, want := r.Stats(), (Stats{Policies: 103, Groups: 2, Slices: 2, Addresses: 1}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestAGroupWithoutPodsHasOneSlice(t *testing.T) {
	r := started()
	c := r.SetPolicy(parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`))
	if len(c.Slices) != 1 {
		t.Fatalf("changed %s", c)
	}
	if s, ok := r.Slice(c.Slices[0].Name); !ok || len(s.Groups) != 1 || !slices.Equal(s.Groups[0].Slices, []string{c.Slices[0].Name.Name}) || s.Count != 0 {
		t.Errorf("its slice is %+v", s)
	}
	c = r.DeletePolicy(types.NamespacedName{Namespace: "shop", Name: "policy"})
	if len(c.Slices) != 0 || len(c.Endpoints) != 1 || len(c.Unused) != 1 {
		t.Errorf("deleting the policy changed %s", c)
	}
	if more := r.forgetUnused(c); len(more) != 1 || len(r.space.homes) != 0 {
		t.Errorf("forgetting its group changed %v and left %d namespaces of slices", more, len(r.space.homes))
	}
	if got := r.Stats(); got != (Stats{}) {
		t.Errorf("left are %+v", got)
	}
	if len(r.scopes)+len(r.namespaces["shop"].scopes) != 0 || r.namespaces["shop"].local != nil {
		t.Error("selectors are left in the index")
	}
}

func TestAnEditOfASelectorLeavesNothingOfTheOldOne(t *testing.T) {
	r := started()
	r.SetPod(runningPod("shop", "web", 1, map[string]string{"app": "web"}))
	r.SetPod(runningPod("shop", "db", 2, map[string]string{"app": "db"}))
	r.SetPolicy(parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`))
	old := r.endpointOf(t, "shop", "policy").Groups[0]
	c := r.SetPolicy(parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`))
	now := r.endpointOf(t, "shop", "policy").Groups[0]
	if len(c.Endpoints) != 1 || len(c.Slices) != 1 || !slices.Equal(c.Unused, []policy.GroupKey{old}) {
		t.Errorf("changed %s, unused %v", c, c.Unused)
	}
	r.SetPod(runningPod("shop", "late", 3, map[string]string{"app": "web"}))
	if got, complete := snap(r).group(old); !complete || len(got) != 2 {
		t.Errorf("until it is forgotten, the old group is %v", got)
	}
	if more := r.forgetUnused(c); len(more) != 1 || r.Slices(old) != nil {
		t.Errorf("forgetting the old group changed %v", more)
	}
	if got, complete := snap(r).group(now); !complete || len(got) != 1 || !got["10.0.0.2/32"] {
		t.Errorf("the new group is %v", got)
	}
}

// Until a group is forgotten, an agent may use it.
func TestAnEditThatIsTakenBackChangesNothing(t *testing.T) {
	r := started()
	web := parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	db := parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`)
	r.SetPolicy(web)
	for i := range 12 { // created in another order than that of their names
		r.SetPod(runningPod("shop", fmt.Sprint("web", i*7%12), i, map[string]string{"app": "web"}))
	}
	before := snap(r)
	of := r.endpointOf(t, "shop", "policy").Groups[0]
	r.SetPolicy(db)
	c := r.SetPolicy(web)
	if more := r.Forget(of); len(more.Slices) != 0 || slices.Contains(c.Unused, of) {
		t.Errorf("a group in use is forgotten: %s", more)
	}
	r.forgetUnused(c)
	if diff := cmp.Diff(before.slices, snap(r).slices); diff != "" {
		t.Errorf("slices (-before +after):\n%s", diff)
	}
}

func TestRecreatedPoliciesAndPoliciesOfOneNameAreDifferent(t *testing.T) {
	r := started()
	np := parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)
	r.SetPolicy(named(np, "shop", "a", "1"))
	r.SetPolicy(named(np, "tools", "a", "2"))
	first, twin := r.endpointOf(t, "shop", "a"), r.endpointOf(t, "tools", "a")
	if first.Name.Name == twin.Name.Name {
		t.Errorf("both are %s", first.Name.Name)
	}
	c := r.SetPolicy(named(np, "shop", "a", "3")) // its deletion was not seen
	again := r.endpointOf(t, "shop", "a")
	if again.Name == first.Name || len(c.Endpoints) != 2 || len(c.Slices) != 0 {
		t.Errorf("made again as %s: changed %s", again.Name, c)
	}
	if _, ok := r.Endpoint(first.Name); ok {
		t.Error("the first one's PolicyEndpoint stays")
	}
}

func TestTheVersionInForceStaysIfThePolicyCannotBeEnforced(t *testing.T) {
	r := started()
	r.SetPolicy(parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`))
	before := r.endpointOf(t, "shop", "policy")
	broken := parsePolicy(t, `{podSelector: {matchLabels: {"a b": c}}, ingress: [{}]}`)
	broken.Generation = 2
	c := r.SetPolicy(broken)
	after := r.endpointOf(t, "shop", "policy")
	if after.Spec != before.Spec || len(after.Problems) != 1 || len(c.Endpoints) != 1 || len(c.Slices) != 0 {
		t.Errorf("changed %s; endpoint %+v", c, after)
	}
	if c := r.SetPod(runningPod("shop", "web", 1, nil)); len(c.Slices) != 1 {
		t.Errorf("its groups are not updated: a pod changed %s", c)
	}
	c = r.DeletePolicy(types.NamespacedName{Namespace: "shop", Name: "policy"})
	if r.forgetUnused(c); r.Stats() != (Stats{}) {
		t.Errorf("deleting it left %+v", r.Stats())
	}
}

func TestTheVersionInForceStaysThroughARestart(t *testing.T) {
	policies := []string{
		`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}, {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}`,
		`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: http}]}]}`,
	}
	web := func(i int) Pod {
		p := runningPod("shop", fmt.Sprint("web", i), i, map[string]string{"app": "web"})
		p.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: 8080}}
		return p
	}
	for _, text := range policies {
		r := started()
		r.SetPod(web(1))
		np := parsePolicy(t, text)
		r.SetPolicy(np)
		before := snap(r)
		broken := np.DeepCopy()
		broken.Spec.PodSelector.MatchLabels = map[string]string{"a b": "c"}

		next := New(r.options)
		for _, ns := range []string{"shop", "tools", "kidoban"} {
			next.SetNamespace(ns, map[string]string{"kubernetes.io/metadata.name": ns})
		}
		next.SetPod(web(1))
		next.SetPolicy(broken)
		next.Start(before.existing())
		after := snap(next)
		if diff := cmp.Diff(before.slices, after.slices); diff != "" {
			t.Errorf("slices (-before +after):\n%s", diff)
		}
		e := next.endpointOf(t, "shop", "policy")
		if diff := cmp.Diff(r.endpointOf(t, "shop", "policy").Spec, e.Spec); diff != "" || len(e.Problems) != 1 {
			t.Errorf("problems %v, spec (-before +after):\n%s", e.Problems, diff)
		}
		if c := next.SetPod(web(2)); len(c.Slices) != 1 {
			t.Errorf("its groups are not updated: a pod changed %s", c)
		}
		if next.forgetUnused(next.DeletePolicy(types.NamespacedName{Namespace: "shop", Name: "policy"})); next.Stats() != (Stats{}) {
			t.Errorf("deleting it left %+v", next.Stats())
		}
	}
}

// Any client may have written a slice.
func TestSlicesWithAnyContent(t *testing.T) {
	r := started()
	np := parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`)
	r.SetPolicy(np)
	group := r.endpointOf(t, "shop", "policy").Groups[0].Name
	next := New(r.options)
	next.SetPolicy(np)
	for i := range 6 {
		next.SetPod(runningPod("shop", fmt.Sprint("p", i), i, nil))
	}
	in := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "shop", Name: name} }
	next.Start(Existing{Slices: map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{
		in("addresses--1"): {}, in("addresses-007"): {}, in("addresses-2000000000"): {}, in(group + "-0"): {},
		in("addresses-1"): {
			Groups:    []v1alpha1.GroupPart{{Name: group, Slices: []string{"addresses-1", "x", "addresses-5"}}, {Name: "other", Slices: []string{"addresses-1"}}, {Name: group}},
			Addresses: []v1alpha1.CIDR{"10.0.0.0/8", "x", "10.0.0.1/32", "10.0.0.1/32", "10.0.0.2/32", "10.0.0.77/32"},
			Classes:   []v1alpha1.AddressClass{{Groups: []int32{0, -1, 2, 77}, Count: 4}, {Groups: []int32{2, 1, 1}, Count: 1}, {Count: math.MinInt32}, {Groups: []int32{0}, Count: math.MaxInt32}},
		},
		in("addresses-2"): {Groups: []v1alpha1.GroupPart{{Name: group, Slices: []string{"addresses-2"}}}},
	}})
	if got, want := next.Stats(), (Stats{Policies: 1, Groups: 1, Slices: 2, Addresses: 6}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestLocalAndSharedGroupsOfTheSharedNamespaceDiffer(t *testing.T) {
	r := started()
	np := parsePolicy(t, `{podSelector: {}, ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}}]}]}`)
	r.SetPolicy(named(np, "kidoban", "a", "1"))
	e := r.endpointOf(t, "kidoban", "a")
	if len(e.Groups) != 2 || e.Groups[0].Namespace != "kidoban" || e.Groups[1].Namespace != "kidoban" || e.Groups[0].Name == e.Groups[1].Name {
		t.Fatalf("groups %v", e.Groups)
	}
	shared := map[bool]int{}
	for _, p := range e.Spec.Ingress[0].Peers {
		shared[p.Group.Shared]++
	}
	if shared[true] != 1 || shared[false] != 1 {
		t.Errorf("peers %+v", e.Spec.Ingress[0].Peers)
	}
}

func TestNamedPortsFollowThePeers(t *testing.T) {
	r := started()
	r.SetPolicy(parsePolicy(t, `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}`))
	if e := r.endpointOf(t, "shop", "policy"); len(e.Problems) != 1 || len(e.Spec.Egress) != 0 {
		t.Errorf("no pod has the port: %+v", e)
	}
	with := func(name string, i int, port uint16) Pod {
		p := runningPod("shop", name, i, nil)
		p.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: port}}
		return p
	}
	if c := r.SetPod(with("a", 1, 80)); len(c.Endpoints) != 1 || len(c.Slices) != 1 {
		t.Errorf("the first with the port changed %s", c)
	}
	if c := r.SetPod(with("b", 2, 80)); len(c.Endpoints) != 0 || len(c.Slices) != 1 {
		t.Errorf("another of the same number changed %s", c)
	}
	if c := r.SetPod(with("c", 3, 8080)); len(c.Endpoints) != 1 || len(c.Slices) != 1 {
		t.Errorf("one of another number changed %s", c)
	}
	if e := r.endpointOf(t, "shop", "policy"); len(e.Problems) != 0 || len(e.Spec.Egress) != 2 || len(e.Groups) != 2 {
		t.Errorf("two numbers: %+v", e)
	}
	if c := r.DeletePod(types.NamespacedName{Namespace: "shop", Name: "c"}); len(c.Endpoints) != 1 || len(c.Slices) != 1 {
		t.Errorf("the last of its number changed %s", c)
	}
}

func TestAProblemTellsPortsOfSomePeersFromPortsOfNone(t *testing.T) {
	r := started()
	web := runningPod("shop", "web", 1, map[string]string{"app": "web"})
	web.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: 80}}
	r.SetPod(web)
	r.SetPolicy(parsePolicy(t, `{podSelector: {}, policyTypes: [Egress], egress: [
		{to: [{podSelector: {matchLabels: {app: other}}}, {podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]},
		{to: [{podSelector: {matchLabels: {app: none}}}], ports: [{port: http}]}]}`))
	want := []Problem{
		{v1alpha1.ReasonUnresolvedNamedPort, `spec.egress[0].ports: some of the peers have no pod with a TCP port "http"`},
		{v1alpha1.ReasonUnresolvedNamedPort, `spec.egress[1].ports: no pod among the peers has a TCP port "http"`},
	}
	if diff := cmp.Diff(want, r.endpointOf(t, "shop", "policy").Problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// A named port with a block outside the cluster matches no pod, whatever ports other pods have.
func TestANamedPortWithABlockIsThatOfThePodsInIt(t *testing.T) {
	r := started()
	with := func(i int, port uint16) Pod {
		p := runningPod("tools", "web", i, nil)
		p.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: port}}
		return p
	}
	r.SetPod(with(1, 80)) // 10.0.0.1
	r.SetPolicy(parsePolicy(t, `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.2/32}}], ports: [{port: http}]}]}`))
	if e := r.endpointOf(t, "shop", "policy"); len(e.Groups) != 0 || len(e.Problems) != 1 || e.Problems[0].Reason != v1alpha1.ReasonUnresolvedNamedPort {
		t.Errorf("no pod in the block has the port: groups %v, problems %v", e.Groups, e.Problems)
	}
	if c := r.SetPod(with(1, 8080)); len(c.Endpoints)+len(c.Slices) != 0 {
		t.Errorf("another number outside the block changed %s", c)
	}
	if c := r.SetPod(with(2, 8080)); len(c.Endpoints) != 1 || len(c.Slices) != 1 {
		t.Errorf("the first in the block changed %s", c)
	}
	if e := r.endpointOf(t, "shop", "policy"); len(e.Groups) != 1 || len(e.Problems) != 0 {
		t.Errorf("one in the block has the port: groups %v, problems %v", e.Groups, e.Problems)
	}
	c := r.SetPod(with(1, 8080))
	if len(c.Endpoints) != 1 || len(c.Slices) != 1 || len(c.Unused) != 1 {
		t.Errorf("a pod left the block and changed %s", c)
	}
	r.DeletePolicy(types.NamespacedName{Namespace: "shop", Name: "policy"})
	if r.forgetUnused(c); len(r.scopes) != 0 {
		t.Error("selectors are left in the index")
	}
}

func TestNamesOfPolicyEndpointsAreValid(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"a", strings.Repeat("a", 58), strings.Repeat("a", 253), strings.Repeat("a", 241) + "." + strings.Repeat("b", 11), strings.Repeat("a-.", 1) + strings.Repeat("b", 250), strings.Repeat("a", 240) + "-." + strings.Repeat("c", 11)} {
		for _, ns := range []string{"x", "y"} {
			for _, uid := range []types.UID{"1", "2"} {
				got := endpointName("NetworkPolicy", types.NamespacedName{Namespace: ns, Name: name}, uid)
				if seen[got] || len(got) > 253 || len(validation.IsDNS1123Subdomain(got)) > 0 && len(validation.IsDNS1123Subdomain(name)) == 0 {
					t.Errorf("%s is named %s (seen: %t)", name, got, seen[got])
				}
				seen[got] = true
			}
		}
	}
}

func TestGroupNamesTellSelectorsApart(t *testing.T) {
	all := selector{}
	web := mustParse(t, where(map[string]string{"app": "web"}))
	port := policy.NamedPort{Protocol: policy.TCP, Name: "http", Port: 80}
	seen := map[string]int{}
	for i, name := range []string{
		groupName(localGroup, &podSet{pods: all}, nil), groupName(localGroup, &podSet{pods: web}, nil), groupName(sharedGroup, &podSet{namespaces: &all, pods: all}, nil), groupName(sharedGroup, &podSet{namespaces: &web, pods: all}, nil), groupName(sharedGroup, &podSet{namespaces: &all, pods: web}, nil), groupName(sharedGroup, &podSet{namespaces: &web, pods: web}, nil),
		groupName(localGroup, &podSet{pods: web}, &port), groupName(sharedGroup, &podSet{namespaces: &all, pods: web}, &port),
		groupName(localGroup, &podSet{pods: web}, &policy.NamedPort{Protocol: policy.UDP, Name: "http", Port: 80}),
		groupName(localGroup, &podSet{pods: web}, &policy.NamedPort{Protocol: policy.TCP, Name: "http", Port: 8080}),
		groupName(localGroup, &podSet{pods: web}, &policy.NamedPort{Protocol: policy.TCP, Name: "http8", Port: 80}),
	} {
		if j, ok := seen[name]; ok {
			t.Errorf("%d and %d are both %s", i, j, name)
		}
		seen[name] = i
		if len(name) != 2+groupDigits || !strings.HasPrefix(name, "g-") {
			t.Errorf("%s", name)
		}
	}
}
