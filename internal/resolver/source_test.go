package resolver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy/application"
)

func applicationOf(t *testing.T, spec string) *application.Policy {
	t.Helper()
	p := &application.Policy{}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	p.Namespace, p.Name, p.UID = "shop", "web", "a"
	return p
}

// An ApplicationNetworkPolicy has a PolicyEndpoint of its own beside that of a NetworkPolicy of the same name.
func TestApplicationNetworkPolicies(t *testing.T) {
	r := started()
	r.SetTrustedResolvers([]netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")})
	np := parsePolicy(t, "{podSelector: {}, policyTypes: [Egress]}")
	np.Namespace, np.Name, np.UID = "shop", "web", "n"
	r.SetPolicy(np)
	c := r.Set(ApplicationPolicy(applicationOf(t, `
podSelector: {matchLabels: {app: web}}
policyTypes: [Egress]
egress:
- to: [{domainNames: [API.example.com., "*.cdn.example.com", "10.0.0.1"]}]
  ports: [{protocol: TCP, port: 443}]
- to: [{domainNames: [both.example.com]}, {ipBlock: {cidr: 192.0.2.0/24}}]
- to: [{domainNames: [named.example.com]}]
  ports: [{protocol: TCP, port: https}]
- to: [{domainNames: [mixed.example.com], podSelector: {}}]
- {}
`)))
	if len(c.Endpoints) != 1 || r.Stats().Policies != 2 {
		t.Fatalf("%v, %d policies", c.Endpoints, r.Stats().Policies)
	}
	name, ok := r.EndpointName(KeyOf(application.Kind, "shop", "web"))
	if other, _ := r.EndpointName(types.NamespacedName{Namespace: "shop", Name: "web"}); !ok || name == other || name != c.Endpoints[0] {
		t.Errorf("names %v, %v", name, other)
	}
	e, _ := r.Endpoint(name)
	if ref := e.Spec.PolicyRef; ref.Kind != application.Kind || ref.Name != "web" || ref.UID != "a" {
		t.Errorf("policyRef %+v", ref)
	}
	var got []string
	for _, rule := range e.Spec.Egress {
		line := fmt.Sprint(rule.RuleIndexes)
		for _, p := range rule.Peers {
			line += fmt.Sprint(" ", p.DomainNames, p.CIDR)
		}
		for _, p := range rule.Ports {
			line += fmt.Sprint(" ", p.Port)
		}
		got = append(got, line)
	}
	want := []string{"[0] [*.cdn.example.com api.example.com] 443", "[1] [both.example.com] []192.0.2.0/24", "[4]"}
	if !slices.Equal(got, want) {
		t.Errorf("egress\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var reasons []string
	for _, p := range e.Problems {
		reasons = append(reasons, p.Reason)
	}
	slices.Sort(reasons)
	if want := []string{v1alpha1.ReasonInvalidPeer, v1alpha1.ReasonInvalidPeer, v1alpha1.ReasonInvalidPort}; !slices.Equal(reasons, want) {
		t.Errorf("problems %v", e.Problems)
	}

	r.SetTrustedResolvers(nil)
	if e, _ := r.Endpoint(name); !slices.ContainsFunc(e.Problems, func(p Problem) bool { return p.Reason == v1alpha1.ReasonNoTrustedResolver }) {
		t.Errorf("no problem without a trusted resolver: %v", e.Problems)
	}
	if c := r.DeletePolicy(KeyOf(application.Kind, "shop", "web")); !slices.Equal(c.Endpoints, []types.NamespacedName{name}) || r.Stats().Policies != 1 {
		t.Errorf("after its deletion: %v", c)
	}
}
