package aws

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func read(t *testing.T, documents ...string) *Set {
	t.Helper()
	set := &Set{}
	for _, text := range documents {
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
			t.Fatal(err)
		}
		if meta.Kind == "NetworkPolicy" {
			np := networkingv1.NetworkPolicy{}
			if err := yaml.Unmarshal([]byte(text), &np); err != nil {
				t.Fatal(err)
			}
			set.NetworkPolicies = append(set.NetworkPolicies, np)
			continue
		}
		set.Read(meta, raw, "shop")
	}
	if len(set.Refused) > 0 {
		t.Fatalf("refused: %v\n%s", set.Refused, strings.Join(documents, "---\n"))
	}
	return set
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// several parts, at least one, in brackets.
func several(r *rand.Rand, part func() string) string {
	var out []string
	for range 1 + r.IntN(2) {
		out = append(out, part())
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func randomCluster(r *rand.Rand, i int) string {
	namespaces := func() string {
		return pick(r, "{}", "{matchLabels: {team: a}}", "{matchExpressions: [{key: team, operator: NotIn, values: [b]}]}")
	}
	pods := func() string {
		return pick(r, "{namespaces: "+namespaces()+"}", "{pods: {namespaceSelector: "+namespaces()+", podSelector: {matchLabels: {app: x}}}}")
	}
	ports := func() string {
		return pick(r, "", ", ports: "+several(r, func() string {
			return pick(r, "{portNumber: {protocol: UDP, port: 53}}", "{portRange: {start: 400, end: 500}}", "{namedPort: web}", "{portRange: {start: 9, end: 1}}")
		}))
	}
	tier, actions := "Admin", []string{"Accept", "Deny", "Pass"}
	if r.IntN(3) == 0 {
		tier, actions = "Baseline", actions[:2]
	}
	rules := func(peers string, peer func() string) string {
		return several(r, func() string {
			return fmt.Sprintf("{action: %s, %s: %s%s}", pick(r, actions...), peers, several(r, peer), ports())
		})
	}
	return fmt.Sprintf(`
apiVersion: networking.k8s.aws/v1alpha1
kind: ClusterNetworkPolicy
metadata: {name: p%d}
spec: {tier: %s, priority: %d, subject: %s, ingress: %s, egress: %s}
`, i, tier, r.IntN(4), pods(), rules("from", pods), rules("to", func() string {
		return pick(r, pods(), "{networks: [10.0.0.0/8]}", "{networks: [10.1.0.0/16, 10.2.0.0/16]}")
	}))
}

func randomApplication(r *rand.Rand, i int) string {
	rule := func() string {
		return pick(r, "{}", "{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}", "{to: [{domainNames: [a.example.com]}], ports: [{port: 443}]}",
			"{to: [{podSelector: {matchLabels: {app: x}}}, {domainNames: ['*.example.com']}], ports: [{protocol: UDP}, {port: 400, endPort: 450}]}", "{to: [{namespaceSelector: {matchLabels: {team: a}}}], ports: [{port: web}]}")
	}
	return fmt.Sprintf(`
apiVersion: networking.k8s.aws/v1alpha1
kind: ApplicationNetworkPolicy
metadata: {name: a%d, namespace: %s}
spec: {podSelector: %s, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: %s}
`, i, pick(r, "shop", "pay"), pick(r, "{}", "{matchLabels: {app: x}}"), several(r, rule))
}

// TestConversionsMeanTheSame converts random policies in both orders. Flows may become narrower only where an Admin rule passes them.
func TestConversionsMeanTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 6)) //nolint:gosec // the same policies each time
	narrower := 0
	for range 60 {
		var documents []string
		for i := range 1 + r.IntN(2) {
			documents = append(documents, randomCluster(r, i))
		}
		for i := range r.IntN(2) {
			documents = append(documents, randomApplication(r, i))
		}
		set := read(t, documents...)
		for _, denyFirst := range []bool{false, true} {
			got, err := set.Convert(context.Background(), denyFirst)
			if err != nil {
				t.Fatal(err)
			}
			if got.Proof.Differing > 0 || got.Proof.Flows == 0 || len(got.Refused) > 0 {
				t.Fatalf("%d of %d flows differ, as %+v; %v\n%s", got.Proof.Differing, got.Proof.Flows, got.Proof.Differences, got.Refused, strings.Join(documents, "---"))
			}
			for _, d := range got.Narrower {
				if narrower++; !strings.Contains(d.Before.By, "passed") {
					t.Errorf("%+v\n%s", d, strings.Join(documents, "---"))
				}
			}
		}
	}
	if narrower == 0 {
		t.Error("no case has a flow that becomes narrower")
	}
}

// TestTheProofFindsMistakes changes one thing in what was written.
func TestTheProofFindsMistakes(t *testing.T) {
	set := read(t, `
apiVersion: networking.k8s.aws/v1alpha1
kind: ApplicationNetworkPolicy
metadata: {name: a}
spec:
  podSelector: {matchLabels: {app: x}}
  policyTypes: [Egress]
  egress:
  - {to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 443}]}
  - {to: [{domainNames: [a.example.com]}], ports: [{port: 443}]}
`)
	for name, change := range map[string]func(*Result){
		"nothing":           func(*Result) {},
		"no except":         func(r *Result) { r.NetworkPolicies[0].Spec.Egress[0].To[0].IPBlock.Except = nil },
		"no rule":           func(r *Result) { r.NetworkPolicies[0].Spec.Egress = nil },
		"no isolation":      func(r *Result) { r.NetworkPolicies = nil },
		"another namespace": func(r *Result) { r.NetworkPolicies[0].Namespace = "pay" },
		"all ports":         func(r *Result) { r.ClusterPolicies[0].Spec.Egress[0].Protocols = nil },
		"another name":      func(r *Result) { r.ClusterPolicies[0].Spec.Egress[0].To[0].DomainNames[0] = "b.example.com" },
	} {
		t.Run(name, func(t *testing.T) {
			r, err := set.Convert(context.Background(), false)
			if err != nil {
				t.Fatal(err)
			}
			change(r)
			r.Narrower = nil
			if err := set.prove(context.Background(), nil, r); err != nil {
				t.Fatal(err)
			}
			if found := r.Proof.Differing > 0 || len(r.Narrower) > 0; found == (name == "nothing") {
				t.Errorf("%d differences, %d narrower", r.Proof.Differing, len(r.Narrower))
			}
		})
	}
}

// TestOneNameOfTwoKinds: both are written, and neither takes the other's name.
func TestOneNameOfTwoKinds(t *testing.T) {
	set := read(t, `
apiVersion: networking.k8s.aws/v1alpha1
kind: ApplicationNetworkPolicy
metadata: {name: backend, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}
`, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: backend, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
`, `
apiVersion: networking.k8s.aws/v1alpha1
kind: ClusterNetworkPolicy
metadata: {name: all}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}
`)
	set.ClusterPolicies = map[string]bool{"all": true} // upstream's
	r, err := set.Convert(context.Background(), false)
	if err != nil || r.Proof.Differing > 0 {
		t.Fatal(r, err)
	}
	if got := r.NetworkPolicies[0].Name; got != "backend-application" {
		t.Errorf("NetworkPolicy %s", got)
	}
	if got := r.ClusterPolicies[0].Name; got != "all-aws" {
		t.Errorf("ClusterNetworkPolicy %s", got)
	}
}
