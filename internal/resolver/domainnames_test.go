package resolver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterPolicyOf reads the spec of a ClusterNetworkPolicy.
func clusterPolicyOf(t *testing.T, spec string) *cnp.ClusterNetworkPolicy {
	t.Helper()
	np := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "names", UID: "1", Generation: 1}}
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatal(err)
	}
	return np
}

func (r *Resolver) clusterEndpointOf(t *testing.T, policy string) ClusterEndpoint {
	t.Helper()
	name, _ := r.ClusterEndpointName(policy)
	e, ok := r.ClusterEndpoint(name)
	if !ok {
		t.Fatalf("no ClusterPolicyEndpoint of %s", policy)
	}
	return e
}

func TestDomainNamesOfClusterPolicies(t *testing.T) {
	const (
		admin    = "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\n"
		baseline = "tier: Baseline\npriority: 1\nsubject: {namespaces: {}}\n"
	)
	denyAll := v1alpha1.Rule{Action: "Deny", RuleIndexes: []int32{0}}
	accept := func(names ...v1alpha1.DomainName) v1alpha1.Rule {
		return v1alpha1.Rule{Action: "Accept", RuleIndexes: []int32{0}, Peers: []v1alpha1.Peer{{DomainNames: names}}}
	}
	for _, tc := range []struct {
		name, spec string
		want       []v1alpha1.Rule
		problems   []string // "Reason: beginning of the message"
	}{
		{"canonical, and each once", admin + `egress: [{action: Accept, to: [{domainNames: [API.example.com., "*.Example.org", api.example.com]}]}]`,
			[]v1alpha1.Rule{accept("api.example.com", "*.example.org")}, nil},
		{"names that DNS cannot mean", admin + `egress: [{action: Accept, to: [{domainNames: [10.0.0.1, a.example, "[b].example"]}]}]`,
			[]v1alpha1.Rule{accept("a.example")}, []string{
				`InvalidDomainName: spec.egress[0].to[0].domainNames[0]: "10.0.0.1" is an address`, `InvalidDomainName: spec.egress[0].to[0].domainNames[2]: "[b].example" is not a DNS name`,
			}},
		{"no valid name: the rule matches nothing", admin + `egress: [{action: Accept, to: [{domainNames: [10.0.0.1]}]}]`, nil,
			[]string{`InvalidDomainName: spec.egress[0].to[0].domainNames[0]: "10.0.0.1" is an address`}},
		{"Deny", admin + `egress: [{action: Deny, to: [{domainNames: [a.example]}]}]`, []v1alpha1.Rule{denyAll}, []string{
			"UnsupportedDomainNames: spec.egress[0].to[0].domainNames: domain names are for Accept rules of the Admin tier", "InvalidPeer: spec.egress[0]: the rule denies everything",
		}},
		{"Pass", admin + `egress: [{action: Pass, to: [{domainNames: [a.example]}]}]`, []v1alpha1.Rule{denyAll}, []string{
			"UnsupportedDomainNames: spec.egress[0].to[0]", "InvalidPeer: spec.egress[0]: the rule denies everything",
		}},
		{"Baseline", baseline + `egress: [{action: Accept, to: [{domainNames: [a.example]}, {networks: [10.0.0.0/8]}]}]`, nil, []string{
			"UnsupportedDomainNames: spec.egress[0].to[0]", "InvalidPeer: spec.egress[0]: the rule accepts nothing",
		}},
		{"a named port", admin + `egress: [{action: Accept, to: [{domainNames: [a.example]}], protocols: [{tcp: {destinationPort: {number: 443}}}, {destinationNamedPort: http}]}]`,
			[]v1alpha1.Rule{{Action: "Accept", RuleIndexes: []int32{0}, Peers: accept("a.example").Peers, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 443}}}},
			[]string{"InvalidPort: spec.egress[0].protocols[1].destinationNamedPort: only pods name ports", `UnresolvedNamedPort: spec.egress[0].protocols: no pod among the peers has a port "http"`}},
		{"names between blocks and other peers", admin + `egress: [{action: Accept, to: [{networks: [10.0.0.0/8]}, {domainNames: [b.example]}, {domainNames: [a.example]}]}]`,
			[]v1alpha1.Rule{{Action: "Accept", RuleIndexes: []int32{0}, Peers: []v1alpha1.Peer{
				{DomainNames: []v1alpha1.DomainName{"a.example"}}, {DomainNames: []v1alpha1.DomainName{"b.example"}}, {CIDR: "10.0.0.0/8"},
			}}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := started()
			r.SetClusterPolicy(clusterPolicyOf(t, tc.spec))
			e := r.clusterEndpointOf(t, "names")
			if got, want := fmt.Sprintf("%+v", e.Spec.Egress), fmt.Sprintf("%+v", tc.want); got != want {
				t.Errorf("rules\n%s, want\n%s", got, want)
			}
			if len(e.Problems) != len(tc.problems) {
				t.Fatalf("problems %q, want %q", e.Problems, tc.problems)
			}
			for i, p := range e.Problems {
				if !strings.HasPrefix(p.Reason+": "+p.Message, tc.problems[i]) {
					t.Errorf("problem %q, want %q", p, tc.problems[i])
				}
			}
		})
	}
}

// resolversIn returns the trusted resolvers that the slices have.
func resolversIn(r *Resolver) (out []string) {
	for id := range r.space.slices {
		spec := r.space.spec(id)
		first := 0
		for _, c := range spec.Classes {
			for _, g := range c.Groups {
				if port, ok := policy.ResolversPort(spec.Groups[g].Name); ok {
					for _, a := range spec.Addresses[first : first+int(c.Count)] {
						out = append(out, netip.AddrPortFrom(netip.MustParsePrefix(string(a)).Addr(), port).String())
					}
				}
			}
			first += int(c.Count)
		}
	}
	slices.Sort(out)
	return out
}

func TestTrustedResolversAreInSlices(t *testing.T) {
	resolvers := func(all ...string) (out []netip.AddrPort) {
		for _, a := range all {
			out = append(out, netip.MustParseAddrPort(a))
		}
		return out
	}
	check := func(r *Resolver, want ...string) {
		t.Helper()
		if got := resolversIn(r); !slices.Equal(got, want) {
			t.Errorf("resolvers %v, want %v", got, want)
		}
	}
	r := New(Options{SharedNamespace: "kidoban", MaxAddresses: 4})
	r.SetTrustedResolvers(resolvers("10.96.0.10:53", "[fd00::a]:53"))
	r.Start(Existing{})
	check(r, "10.96.0.10:53", "[fd00::a]:53")
	if c := r.SetTrustedResolvers(resolvers("10.96.0.10:53", "[fd00::a]:53")); len(c.Slices) > 0 {
		t.Errorf("changes %v without a change", c)
	}
	r.SetTrustedResolvers(resolvers("10.96.0.10:53", "10.0.0.1:5353", "10.0.0.2:5353"))
	check(r, "10.0.0.1:5353", "10.0.0.2:5353", "10.96.0.10:53")
	r.SetTrustedResolvers(resolvers("10.0.0.2:5353"))
	check(r, "10.0.0.2:5353")

	// A resolver is a pod, too: its address is in groups of policies beside that of the resolvers.
	r.SetNamespace("kube-system", map[string]string{"kubernetes.io/metadata.name": "kube-system"})
	pod := runningPod("kube-system", "coredns", 2, map[string]string{"k8s-app": "kube-dns"})
	pod.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	r.SetPod(pod)
	r.SetClusterPolicy(clusterPolicyOf(t, "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\negress: [{action: Accept, to: [{namespaces: {}}]}]"))
	check(r, "10.0.0.2:5353")
	r.DeletePod(types.NamespacedName{Namespace: "kube-system", Name: "coredns"})
	check(r, "10.0.0.2:5353")

	existing := Existing{Slices: map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}}
	for id, s := range r.space.slices {
		spec := r.space.spec(id)
		existing.Slices[s.name()] = &spec
	}
	again := New(Options{SharedNamespace: "kidoban", MaxAddresses: 4})
	again.SetTrustedResolvers(resolvers("10.0.0.2:5353"))
	again.Start(existing)
	check(again, "10.0.0.2:5353")
	for name, spec := range existing.Slices {
		if now, ok := again.Slice(name); ok && fmt.Sprint(now.Addresses) != fmt.Sprint(spec.Addresses) {
			t.Errorf("%s: a restart changes %v to %v", name, spec.Addresses, now.Addresses)
		}
	}
	again.SetTrustedResolvers(nil)
	check(again)
}

func TestNamesWithoutATrustedResolver(t *testing.T) {
	r := started()
	r.SetClusterPolicy(clusterPolicyOf(t, "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\negress: [{action: Accept, to: [{domainNames: [a.example]}]}]"))
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, p := range r.clusterEndpointOf(t, "names").Problems {
			got = append(got, p.Reason)
		}
		if !slices.Equal(got, want) {
			t.Errorf("problems %v, want %v", got, want)
		}
	}
	check() // it is not known whether there are resolvers
	if c := r.SetTrustedResolvers(nil); len(c.ClusterEndpoints) != 1 {
		t.Errorf("changes %v", c)
	}
	check(v1alpha1.ReasonNoTrustedResolver)
	r.SetTrustedResolvers([]netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")})
	check()
	r.SetTrustedResolvers(nil)
	check(v1alpha1.ReasonNoTrustedResolver)
}
