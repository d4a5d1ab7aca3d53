package convert_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/calico/convert"
	"github.com/kidoban/kidoban/internal/migrate/calico/proof"
)

func set(name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: " + name + ", labels: {set: " + name + "}}\nspec: {" + spec + "}"
}

func tier(name, order, action string) string {
	return "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: " + name + "}\nspec: {order: " + order + ", defaultAction: " + action + "}"
}

// line of a ClusterNetworkPolicy: tier, name, priority, and the rules with action, peers and protocols.
func line(t *testing.T, p *cnp.ClusterNetworkPolicy) string {
	t.Helper()
	text := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.ReplaceAll(string(raw), `"`, ""), "{networks:[0.0.0.0/0,::/0]}", "ALL")
	}
	out := fmt.Sprintf("%s %s %d", p.Spec.Tier, p.Name, p.Spec.Priority)
	for _, r := range p.Spec.Ingress {
		out += fmt.Sprintf(" in %s %s %s", r.Action, text(r.From), text(r.Protocols))
	}
	for _, r := range p.Spec.Egress {
		out += fmt.Sprintf(" out %s %s %s", r.Action, text(r.To), text(r.Protocols))
	}
	return strings.ReplaceAll(out, " null", "")
}

func TestClusterPolicies(t *testing.T) {
	for name, test := range map[string]struct {
		policies string
		want     []string
		// networkPolicies that stay, and whether something is refused.
		networkPolicies int
		refused         bool
	}{
		"all namespaces, with order": {
			policies: docs(gnp("b", `order: 2, types: [Egress], egress: [{action: Allow}]`), gnp("a", `order: 1, types: [Egress], egress: [{action: Deny, destination: {nets: [169.254.169.254/32]}}]`)),
			want:     []string{"Admin a 10 out Deny [{networks:[169.254.169.254/32]}]", "Admin b 20 out Accept [ALL]"},
		},
		"the end of the default tier, in egress": {
			policies: gnp("a", `types: [Egress], egress: [{action: Allow, destination: {nets: [10.0.0.0/8]}}]`),
			want:     []string{"Admin a 10 out Accept [{networks:[10.0.0.0/8]}]", "Baseline a-end 500 out Deny [ALL]"},
		},
		"the end of another tier, in egress": {
			policies: docs(tier("t", "5", "Deny"), gnp("t.a", `tier: t, types: [Egress], egress: [{action: Allow, destination: {nets: [10.0.0.0/8]}}]`)),
			want:     []string{"Admin a 10 out Accept [{networks:[10.0.0.0/8]}]", "Admin a-end 20 out Deny [ALL]"},
		},
		"the end of a tier, in ingress, has no counterpart": {
			policies: docs(gnp("a", `namespaceSelector: kubernetes.io/metadata.name == "shop", types: [Ingress], ingress: [{action: Allow, source: {selector: all()}}]`)), networkPolicies: 1,
		},
		"in ingress, a network has none either": {
			policies: docs(gnp("a", `types: [Ingress], ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}, {action: Allow}]`)), refused: true,
		},
		"pods that may not come in": {
			policies: gnp("a", `types: [Ingress], ingress: [{action: Deny, source: {namespaceSelector: team == "red"}}, {action: Allow}]`),
			want:     []string{"Admin a 10 in Deny [{namespaces:{matchLabels:{team:red}}}] in Accept [{namespaces:{}}]"},
		},
		"an ingress that allows everything, before a NetworkPolicy": {
			policies: docs(gnp("a", `types: [Ingress], ingress: [{action: Deny, source: {namespaceSelector: team == "red"}}, {action: Allow}]`), np("b", `types: [Ingress], order: 2`)), networkPolicies: 1, refused: true,
		},
		"Pass to the NetworkPolicies": {
			policies: docs(tier("t", "5", "Deny"), gnp("t.a", `tier: t, types: [Egress], egress: [{action: Pass, destination: {nets: [10.0.0.0/8]}}]`), np("b", `types: [Egress], egress: [{action: Allow}]`)),
			want:     []string{"Admin a 10 out Pass [{networks:[10.0.0.0/8]}]", "Admin a-end 20 out Deny [ALL]"}, networkPolicies: 1,
		},
		"Pass of everything, to the next tier": {
			policies: docs(tier("t", "5", "Deny"), gnp("t.a", `tier: t, types: [Egress], egress: [{action: Deny, destination: {nets: [10.0.0.0/8]}}, {action: Pass}]`),
				gnp("b", `types: [Egress], egress: [{action: Deny, destination: {nets: [10.0.0.0/7]}}, {action: Allow}]`)),
			want: []string{"Admin a 10 out Deny [{networks:[10.0.0.0/8]}]", "Admin b 20 out Deny [{networks:[10.0.0.0/7]}] out Accept [ALL]"},
		},
		"a policy that cannot become one holds back those after it": {
			policies: docs(np("a", `order: 1, types: [Egress], egress: [{action: Deny, destination: {serviceAccounts: {names: [x]}}}]`), gnp("b", `order: 2, types: [Egress], egress: [{action: Allow}]`)), refused: true,
		},
		"an empty list is all of the protocol": {
			policies: gnp("a", `types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {nets: []}}, {action: Deny}]`),
			want:     []string{"Admin a 10 out Accept [ALL] [{tcp:{destinationPort:{range:{start:1,end:65535}}}}] out Deny [ALL]"},
		},
		"sets, with names": {
			policies: docs(set("x", `nets: [203.0.113.0/24], allowedEgressDomains: [a.example, "*.b.example"]`),
				gnp("a", `types: [Egress], egress: [{action: Allow, destination: {selector: set == "x", namespaceSelector: global()}}, {action: Allow, protocol: UDP, destination: {domains: [c.example], ports: [53]}}, {action: Deny}]`)),
			want: []string{"Admin a 10 out Accept [{networks:[203.0.113.0/24]},{domainNames:[a.example,*.b.example]}] out Accept [{domainNames:[c.example]}] [{udp:{destinationPort:{number:53}}}] out Deny [ALL]"},
		},
		"names that may not be reached": {policies: docs(set("x", `allowedEgressDomains: [a.example]`), gnp("a", `types: [Egress], egress: [{action: Deny, destination: {selector: set == "x"}}]`)), refused: true},
		"names of a NetworkPolicy":      {policies: np("a", `types: [Egress], egress: [{action: Allow, destination: {domains: [a.example]}}]`), refused: true},
		"names of a port":               {policies: gnp("a", `types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [http]}}]`), refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := read(t, test.policies)
			o := convert.Options{Namespaces: namespaces, Cluster: true}
			r := convert.Convert(s, o)
			var got []string
			for i := range r.Cluster {
				got = append(got, line(t, &r.Cluster[i]))
			}
			if !slices.Equal(got, test.want) || len(r.Policies) != test.networkPolicies || len(r.Refused) > 0 != test.refused {
				t.Errorf("got  %q\nwant %q\n%s\nrefused: %v", got, test.want, specs(t, r), r.Refused)
			}
			if report := prove(t, s, r, o); report.Differing > 0 || len(r.Converted) > 0 && report.Flows == 0 {
				t.Errorf("%+v", report)
			}
		})
	}
}

// TestTheProofKnowsNames changes the names that were written.
func TestTheProofKnowsNames(t *testing.T) {
	s := read(t, gnp("a", `types: [Egress], egress: [{action: Allow, destination: {domains: [a.example, b.example]}}, {action: Deny}]`))
	o := convert.Options{Namespaces: namespaces, Cluster: true}
	for name, change := range map[string]func(*cnp.ClusterNetworkPolicyEgressRule){
		"another name": func(r *cnp.ClusterNetworkPolicyEgressRule) { r.To[0].DomainNames[1] = "c.example" },
		"a name less":  func(r *cnp.ClusterNetworkPolicyEgressRule) { r.To[0].DomainNames = r.To[0].DomainNames[:1] },
		"all networks": func(r *cnp.ClusterNetworkPolicyEgressRule) {
			r.To[0] = cnp.ClusterNetworkPolicyEgressPeer{Networks: []cnp.CIDR{"0.0.0.0/0"}}
		},
	} {
		r := convert.Convert(s, o)
		change(&r.Cluster[0].Spec.Egress[0])
		if report := prove(t, s, r, o); report.Differing == 0 {
			t.Errorf("%s: no difference", name)
		}
	}
}

// TestWithoutNames: a name is only left out where others stay.
func TestWithoutNames(t *testing.T) {
	s := read(t, docs(set("x", `allowedEgressDomains: [a.example, "www.*.example"]`), set("z", `allowedEgressDomains: ["www.*.example"]`),
		gnp("a", `types: [Egress], egress: [{action: Allow, destination: {domains: ["*.*.example"]}}, {action: Allow, destination: {domains: [b.example, "c.*"]}}]`)))
	out, lost := s.WithoutNames(func(n string) bool { return strings.Contains(n[1:], "*") })
	var got []string
	for _, n := range out.NetworkSets {
		got = append(got, strings.Join(n.Domains, ","))
	}
	for _, r := range out.Policies[0].Spec.Egress {
		got = append(got, strings.Join(r.Destination.Domains, ","))
	}
	if want := []string{"a.example", "www.*.example", "*.*.example", "b.example"}; !slices.Equal(got, want) || len(lost) != 2 {
		t.Errorf("got %q, want %q; lost: %v", got, want, lost)
	}
	if _, err := proof.Compare(t.Context(), s, &calico.Set{}, proof.Options{Namespaces: namespaces}); err != nil {
		t.Error(err)
	}
}
