package anp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/migrate/tiered"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
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
		if meta.Kind == "ClusterNetworkPolicy" {
			set.ClusterPolicies = map[string]bool{"default": true}
			continue
		}
		if !set.Read(meta, raw) {
			t.Fatalf("not of the group: %s", text)
		}
	}
	return set
}

// convert policies, all of them, and prove them.
func convert(t *testing.T, set *Set) *tiered.Result {
	t.Helper()
	if len(set.Refused) > 0 {
		t.Fatalf("refused: %v", set.Refused)
	}
	r := tiered.Write(set.Policies, set.ClusterPolicies)
	if len(r.Refused) > 0 {
		return r
	}
	report, err := tiered.Prove(context.Background(), set.Policies, r.Policies)
	if err != nil {
		t.Fatal(err)
	}
	if report.Differing > 0 || report.Flows == 0 {
		t.Errorf("%d of %d classes of flows differ: %+v", report.Differing, report.Flows, report.Differences)
	}
	return r
}

func placed(r *tiered.Result) (out []string) {
	for _, p := range r.Policies {
		out = append(out, fmt.Sprintf("%s %s %d: %d, %d rules", p.Spec.Tier, p.Name, p.Spec.Priority, len(p.Spec.Ingress), len(p.Spec.Egress)))
	}
	return out
}

func admin(name string, priority int, egress string) string {
	return fmt.Sprintf(`
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: %s}
spec:
  priority: %d
  subject: {namespaces: {matchLabels: {team: shop}}}
  egress: [%s]
`, name, priority, egress)
}

// pairs of rules: the first half of each /24 is allowed, the rest of it denied.
func pairs(n int) string {
	var rules []string
	for i := range n {
		rules = append(rules, fmt.Sprintf(`{action: Allow, to: [{networks: [198.18.%d.0/25]}], ports: [{portNumber: {protocol: TCP, port: 443}}]}`, i),
			fmt.Sprintf(`{action: Deny, to: [{networks: [198.18.%d.0/24]}], ports: [{portNumber: {protocol: TCP, port: 443}}]}`, i))
	}
	return strings.Join(rules, ",")
}

const rest = `{name: rest, action: Allow, to: [{networks: [198.18.0.0/15]}]}`

func TestMoreThan25Rules(t *testing.T) {
	for name, test := range map[string]struct {
		documents []string
		want      []string
	}{
		"later policies move up": {
			[]string{admin("long", 70, pairs(15)), admin("next", 71, rest), admin("far", 90, rest)},
			[]string{"Admin long 70: 0, 25 rules", "Admin long-2 71: 0, 5 rules", "Admin next 72: 0, 1 rules", "Admin far 90: 0, 1 rules"},
		},
		"earlier policies move down at the end": {
			[]string{admin("before", 998, rest), admin("long", 999, pairs(15)), admin("next", 1000, rest)},
			[]string{"Admin before 997: 0, 1 rules", "Admin long 998: 0, 25 rules", "Admin long-2 999: 0, 5 rules", "Admin next 1000: 0, 1 rules"},
		},
		"policies of one priority keep it": {
			[]string{admin("b", 5, rest), admin("a", 5, pairs(2)), admin("c", 6, rest)},
			[]string{"Admin a 5: 0, 4 rules", "Admin b 5: 0, 1 rules", "Admin c 6: 0, 1 rules"},
		},
		"a policy of the same priority goes behind all parts": {
			[]string{admin("a", 5, pairs(15)), admin("b", 5, rest), admin("c", 5, rest)},
			[]string{"Admin a 5: 0, 25 rules", "Admin a-2 6: 0, 5 rules", "Admin b 7: 0, 1 rules", "Admin c 7: 0, 1 rules"},
		},
		"100 rules": {[]string{admin("most", 0, pairs(50))}, []string{"Admin most 0: 0, 25 rules", "Admin most-2 1: 0, 25 rules", "Admin most-3 2: 0, 25 rules", "Admin most-4 3: 0, 25 rules"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := placed(convert(t, read(t, test.documents...))); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestNoRoomForPriorities(t *testing.T) {
	documents := []string{admin("long", 0, pairs(15))}
	for i := range 1000 {
		documents = append(documents, admin(fmt.Sprintf("p%d", i+1), i+1, rest))
	}
	r := convert(t, read(t, documents...))
	if len(r.Policies) > 0 || len(r.Refused) != 1 || !strings.Contains(r.Refused[0].Problem, "no room") {
		t.Errorf("%d policies, refused: %v", len(r.Policies), r.Refused)
	}
}

// TestManyPeersAndPorts: v1alpha1 admits 100 of each in a rule, v1alpha2 25.
func TestManyPeersAndPorts(t *testing.T) {
	var peers, ports []string
	for i := range 60 {
		peers = append(peers, fmt.Sprintf("{networks: [10.%d.0.0/16]}", i))
		ports = append(ports, fmt.Sprintf("{portNumber: {protocol: UDP, port: %d}}", 2*i+1))
	}
	rule := fmt.Sprintf("{name: many, action: Deny, to: [%s], ports: [%s]}", strings.Join(peers, ","), strings.Join(ports, ","))
	got := placed(convert(t, read(t, admin("many", 7, rule))))
	if want := []string{"Admin many 7: 0, 9 rules"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNamedPortsAndNetworks: the experimental channel of v1alpha2 refuses such a rule, and only pods have named ports.
func TestNamedPortsAndNetworks(t *testing.T) {
	const both = `{action: Deny, to: [{networks: [10.0.0.0/8]}, {namespaces: {}}], ports: [{namedPort: web}%s]}`
	for ports, want := range map[string]int{"": 1, ", {portNumber: {protocol: UDP, port: 53}}": 2} {
		r := convert(t, read(t, admin("a", 1, fmt.Sprintf(both, ports))))
		if got := r.Policies[0].Spec.Egress; len(got) != want || len(r.Notes) != 1 {
			t.Errorf("%d rules, %d notes: %+v", len(got), len(r.Notes), got)
		}
		for _, rule := range r.Policies[0].Spec.Egress {
			if len(rule.To[0].Networks) > 0 && rule.Protocols[0].DestinationNamedPort != "" {
				t.Errorf("a named port of networks: %+v", rule)
			}
		}
	}
}

func TestNames(t *testing.T) {
	const baseline = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: default}\nspec: {subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]}"
	const existing = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: default}\nspec: {}"
	for name, test := range map[string]struct{ documents, want []string }{
		"alone":              {[]string{baseline}, []string{"Baseline default 500: 0, 1 rules"}},
		"both kinds":         {[]string{baseline, admin("default", 1, rest)}, []string{"Admin default 1: 0, 1 rules", "Baseline default-baseline 500: 0, 1 rules"}},
		"one there already":  {[]string{existing, admin("default", 1, rest)}, []string{"Admin default-admin 1: 0, 1 rules"}},
		"all three":          {[]string{existing, baseline, admin("default", 1, rest)}, []string{"Admin default-admin 1: 0, 1 rules", "Baseline default-baseline 500: 0, 1 rules"}},
		"a part's name":      {[]string{admin("long", 1, pairs(15)), admin("long-2", 9, rest)}, []string{"Admin long 1: 0, 25 rules", "Admin long-2 2: 0, 5 rules", "Admin long-2-admin 9: 0, 1 rules"}},
		"given twice: last":  {[]string{admin("a", 1, pairs(2)), admin("a", 2, rest)}, []string{"Admin a 2: 0, 1 rules"}},
		"no rules, no order": {[]string{admin("a", 1, "")}, []string{"Admin a 1: 0, 0 rules"}},
	} {
		t.Run(name, func(t *testing.T) {
			set := read(t, test.documents...)
			r := tiered.Write(set.Policies, set.ClusterPolicies)
			if got := placed(r); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestVerdicts asks the reference evaluator what the converted policies mean, with NetworkPolicies between the tiers.
func TestVerdicts(t *testing.T) {
	set := read(t, `
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: default}
spec:
  priority: 50
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: login}}, podSelector: {matchLabels: {app: token}}}}
  ingress:
  - action: Allow
    from: [{namespaces: {matchLabels: {edge: "true"}}}]
    ports: [{portNumber: {port: 6001}}, {namedPort: grpc}, {portRange: {protocol: TCP, start: 9100, end: 9100}}]
  - action: Allow
    from: [{namespaces: {}}]
    ports: [{portRange: {start: 9, end: 2}}]
  egress:
  - action: Allow
    to: [{networks: [203.0.113.0/24]}]
    ports: [{portNumber: {protocol: TCP, port: 636}}]
`, `
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: metrics}
spec:
  priority: 51
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: login}}}
  ingress: [{action: Pass, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: metrics}}}]}]
`, `
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: login}}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
  egress: [{action: Deny, to: [{namespaces: {}}]}, {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]
`)
	r := convert(t, set)
	namespace := func(name, key, value string) corev1.Namespace {
		return corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name, key: value}}}
	}
	pod := func(ns, name, addr string) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "grpc", ContainerPort: 7000}}}}},
			Status:     corev1.PodStatus{PodIP: addr},
		}
	}
	c := reference.Cluster{ClusterPolicies: r.Policies}
	c.Namespaces = []corev1.Namespace{namespace("login", "a", "b"), namespace("metrics", "a", "b"), namespace("gateways", "edge", "true")}
	c.Pods = []corev1.Pod{pod("login", "token", "10.0.0.1"), pod("login", "other", "10.0.0.2"), pod("gateways", "web", "10.0.1.1"), pod("metrics", "prom", "10.0.2.1")}
	expect := func(from, to string, port uint16, want bool) {
		t.Helper()
		f := policy.Flow{Source: netip.MustParseAddr(from), Destination: netip.MustParseAddr(to), Protocol: policy.TCP, Port: port}
		if got := c.Allows(f); got != want {
			t.Errorf("%s to %s:%d: allowed is %t", from, to, port, got)
		}
	}
	expect("10.0.1.1", "10.0.0.1", 6001, true)
	expect("10.0.1.1", "10.0.0.1", 9100, true)
	expect("10.0.1.1", "10.0.0.1", 7000, true)
	expect("10.0.1.1", "10.0.0.1", 5, false)
	expect("10.0.1.1", "10.0.0.1", 8080, false)
	expect("10.0.2.1", "10.0.0.2", 8080, false)
	expect("10.0.0.1", "203.0.113.4", 636, true)
	expect("10.0.0.1", "203.0.113.4", 80, false)
	expect("10.0.0.2", "203.0.113.4", 636, false)
	np := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "login", Name: "metrics"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "metrics"}}}}}}
	c.Policies = append(c.Policies, np)
	expect("10.0.2.1", "10.0.0.2", 8080, true)
}

// TestTheProofFindsMistakes changes one thing in what was written and expects the proof to find it.
func TestTheProofFindsMistakes(t *testing.T) {
	document := strings.Replace(admin("a", 3, pairs(2)+","+rest+`, {action: Pass, to: [{namespaces: {matchLabels: {x: "y"}}}, {nodes: {matchLabels: {n: "1"}}}]}, {action: Allow, to: [{domainNames: [a.example.com]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}`),
		"  egress:", "  ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {p: q}}}}], ports: [{namedPort: web}]}]\n  egress:", 1)
	set := read(t, document)
	for name, change := range map[string]func(*cnp.ClusterNetworkPolicy){
		"rules in another order": func(p *cnp.ClusterNetworkPolicy) {
			p.Spec.Egress[0], p.Spec.Egress[1] = p.Spec.Egress[1], p.Spec.Egress[0]
		},
		"another action":      func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[4].Action = "Deny" },
		"Pass and not Accept": func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[5].Action = "Accept" },
		"no ports":            func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[1].Protocols = nil },
		"another network":     func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[3].To[0].Networks = []cnp.CIDR{"198.18.1.0/25"} },
		"another port name":   func(p *cnp.ClusterNetworkPolicy) { p.Spec.Ingress[0].Protocols[0].DestinationNamedPort = "api" },
		"another label":       func(p *cnp.ClusterNetworkPolicy) { p.Spec.Ingress[0].From[0].Pods.PodSelector.MatchLabels["p"] = "r" },
		"another subject":     func(p *cnp.ClusterNetworkPolicy) { p.Spec.Subject.Namespaces.MatchLabels["team"] = "pay" },
		"other nodes":         func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[5].To[1].Nodes.MatchLabels["n"] = "2" },
		"another tier":        func(p *cnp.ClusterNetworkPolicy) { p.Spec.Tier = cnp.BaselineTier },
		"another name":        func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[6].To[0].DomainNames[0] = "b.example.com" },
	} {
		t.Run(name, func(t *testing.T) {
			r := convert(t, set)
			changed := r.Policies[0].DeepCopy()
			change(changed)
			report, err := tiered.Prove(context.Background(), set.Policies, []cnp.ClusterNetworkPolicy{*changed})
			if err != nil || report.Differing == 0 {
				t.Errorf("no difference in %d classes of flows, %v", report.Flows, err)
			}
		})
	}
}
