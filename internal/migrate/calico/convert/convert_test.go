package convert_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/calico/convert"
	"github.com/kidoban/kidoban/internal/migrate/calico/proof"
)

// read documents of YAML into a set; those of networking.k8s.io are Kubernetes' own policies.
func read(t testing.TB, documents string) *calico.Set {
	t.Helper()
	s := &calico.Set{}
	for document := range strings.SplitSeq(documents, "\n---\n") {
		raw, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := s.Read(typeOf(raw), raw, "default")
		if err != nil {
			t.Fatal(err)
		}
		if !ours {
			var np networkingv1.NetworkPolicy
			if err := yaml.UnmarshalStrict([]byte(document), &np); err != nil {
				t.Fatal(err)
			}
			s.Kubernetes = append(s.Kubernetes, np)
		}
	}
	if len(s.Invalid) > 0 {
		t.Fatal(s.Invalid)
	}
	return s
}

var namespaces = map[string]map[string]string{
	"shop":  {"kubernetes.io/metadata.name": "shop", "team": "web"},
	"other": {"kubernetes.io/metadata.name": "other", "team": "data"},
}

// prove that a conversion means what was converted.
func prove(t testing.TB, s *calico.Set, r *convert.Result, o convert.Options) *proof.Report {
	t.Helper()
	refused := map[string]bool{}
	for _, name := range r.NotConverted {
		refused[name] = true
	}
	before := s.Without(func(p *calico.Policy) bool { return refused[p.String()] }, s.Kubernetes)
	after := &calico.Set{Kubernetes: append(append([]networkingv1.NetworkPolicy{}, s.Kubernetes...), r.Policies...), Cluster: r.Cluster}
	report, err := proof.Compare(t.Context(), before, after, proof.Options{Namespaces: o.Namespaces, PodCIDRs: o.PodCIDRs})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func np(name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: " + name + "}\nspec: {" + spec + "}"
}

func gnp(name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " + name + "}\nspec: {" + spec + "}"
}

func docs(d ...string) string { return strings.Join(d, "\n---\n") }

// specs of the NetworkPolicies, one a line.
func specs(t *testing.T, r *convert.Result) string {
	t.Helper()
	var b strings.Builder
	for i := range r.Policies {
		raw, err := yaml.Marshal(r.Policies[i].Spec)
		if err != nil {
			t.Fatal(err)
		}
		js, err := yaml.YAMLToJSON(raw)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(r.Policies[i].Namespace + "/" + r.Policies[i].Name + " " + string(js) + "\n")
	}
	for i := range r.Cluster {
		raw, err := json.Marshal(r.Cluster[i].Spec)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(r.Cluster[i].Name + " " + string(raw) + "\n")
	}
	return b.String()
}

const denyMetadata = `order: 10, namespaceSelector: projectcalico.org/name == 'shop', types: [Egress], egress: [{action: Deny, destination: {nets: [169.254.169.254/32]}}]`

func TestConverts(t *testing.T) {
	pods := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}
	for _, tc := range []struct {
		name, policies string
		options        convert.Options
		want           string
	}{
		{"a rule that allows", np("a", `selector: color == 'red', ingress: [{action: Allow, protocol: TCP, source: {selector: color == 'blue'}, destination: {ports: [6379, "80:90"]}}]`), convert.Options{},
			`shop/a {"ingress":[{"from":[{"podSelector":{"matchLabels":{"color":"blue"}}}],"ports":[{"endPort":90,"port":80,"protocol":"TCP"},{"port":6379,"protocol":"TCP"}]}],"podSelector":{"matchLabels":{"color":"red"}},"policyTypes":["Ingress"]}`},
		{"egress rules alone do not isolate in ingress, unlike Kubernetes' default", np("a", `egress: [{action: Allow}]`), convert.Options{},
			`shop/a {"egress":[{}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"a stored object without types isolates in both directions", strings.Replace(np("default.a", `egress: [{action: Allow}]`), "projectcalico.org/v3", "crd.projectcalico.org/v1", 1), convert.Options{},
			`shop/a {"egress":[{}],"podSelector":{},"policyTypes":["Ingress","Egress"]}`},
		{"namespaces by name", np("a", `ingress: [{action: Allow, source: {namespaceSelector: "projectcalico.org/name in {'x', 'y'}", selector: a != 'b'}}]`), convert.Options{},
			`shop/a {"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"In","values":["x","y"]}]},"podSelector":{"matchExpressions":[{"key":"a","operator":"NotIn","values":["b"]}]}}]}],"podSelector":{},"policyTypes":["Ingress"]}`},
		{"or of selectors is two peers, or one list of values", np("a", `ingress: [{action: Allow, source: {selector: a == 'x' || a == 'y' || has(b)}}]`), convert.Options{},
			`shop/a {"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["x","y"]}]}},{"podSelector":{"matchExpressions":[{"key":"b","operator":"Exists"}]}}]}],"podSelector":{},"policyTypes":["Ingress"]}`},
		{"or in spec.selector is two policies", np("a", `selector: has(a) || has(b), ingress: []`), convert.Options{},
			`shop/a {"podSelector":{"matchExpressions":[{"key":"a","operator":"Exists"}]},"policyTypes":["Ingress"]}
shop/a-2 {"podSelector":{"matchExpressions":[{"key":"b","operator":"Exists"}]},"policyTypes":["Ingress"]}`},
		{"a refused network becomes an except", np("a", `egress: [{action: Deny, destination: {nets: [10.1.0.0/16]}}, {action: Allow, destination: {nets: [10.0.0.0/8]}}]`), convert.Options{},
			`shop/a {"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"notNets too", np("a", `egress: [{action: Allow, destination: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}]`), convert.Options{},
			`shop/a {"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"everything but a network needs an ipBlock for each family", np("a", `egress: [{action: Deny, destination: {nets: [169.254.169.254/32]}}, {action: Allow}]`), convert.Options{},
			`shop/a {"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["169.254.169.254/32"]}},{"ipBlock":{"cidr":"::/0"}}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"what an earlier policy refuses is taken from later ones, by order and not by name", docs(gnp("z", denyMetadata), np("a", `egress: [{action: Allow}]`)), convert.Options{},
			`shop/a {"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["169.254.169.254/32"]}},{"ipBlock":{"cidr":"::/0"}}]}],"podSelector":{},"policyTypes":["Egress"]}
shop/z {"podSelector":{},"policyTypes":["Egress"]}`},
		{"no pod has a link-local address", docs(gnp("z", denyMetadata), np("a", `egress: [{action: Allow, destination: {selector: all()}}]`)), convert.Options{},
			`shop/a {"egress":[{"to":[{"podSelector":{}}]}],"podSelector":{},"policyTypes":["Egress"]}
shop/z {"podSelector":{},"policyTypes":["Egress"]}`},
		{"nor one outside of the pods' networks", np("a", `egress: [{action: Deny, destination: {nets: [10.9.0.0/16]}}, {action: Allow, destination: {selector: all()}}]`), convert.Options{PodCIDRs: pods},
			`shop/a {"egress":[{"to":[{"podSelector":{}}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"a refusal for some of the pods splits the policy", docs(np("deny", `order: 1, selector: has(x), types: [Ingress], ingress: [{action: Deny, source: {selector: a == 'b'}}]`), np("allow", `order: 2, ingress: [{action: Allow, source: {selector: has(a)}}]`)), convert.Options{},
			`shop/allow {"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"a","operator":"NotIn","values":["b"]}]}}]}],"podSelector":{"matchExpressions":[{"key":"x","operator":"Exists"}]},"policyTypes":["Ingress"]}
shop/allow-2 {"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Exists"}]}}]}],"podSelector":{"matchExpressions":[{"key":"x","operator":"DoesNotExist"}]},"policyTypes":["Ingress"]}
shop/deny {"podSelector":{"matchExpressions":[{"key":"x","operator":"Exists"}]},"policyTypes":["Ingress"]}`},
		{"what a tier passes is left to the next", docs(
			"apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\nspec: {order: 100}",
			gnp("security.quarantine", `tier: security, namespaceSelector: projectcalico.org/name == 'shop', types: [Ingress], ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}, {action: Pass}]`),
			np("allow", `selector: has(a), ingress: [{action: Allow, source: {nets: [192.0.0.0/16]}}]`)), convert.Options{},
			`shop/allow {"ingress":[{"from":[{"ipBlock":{"cidr":"192.0.0.0/16","except":["192.0.2.0/24"]}}]}],"podSelector":{"matchExpressions":[{"key":"a","operator":"Exists"}]},"policyTypes":["Ingress"]}
shop/quarantine {"podSelector":{},"policyTypes":["Ingress"]}
shop/quarantine-passed {"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["192.0.2.0/24"]}},{"ipBlock":{"cidr":"::/0"}}]}],"podSelector":{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]},"policyTypes":["Ingress"]}`},
		{"network sets are read as they are", docs(
			"apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s, labels: {role: db}}\nspec: {nets: [198.51.100.0/28, 203.0.113.7]}",
			"apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s, namespace: shop, labels: {role: db}}\nspec: {nets: [192.0.2.0/24]}",
			np("own", `egress: [{action: Allow, destination: {selector: role == 'db'}}]`),
			np("global", `egress: [{action: Allow, destination: {selector: role == 'db', namespaceSelector: global()}}]`)), convert.Options{},
			`shop/global {"egress":[{"to":[{"ipBlock":{"cidr":"198.51.100.0/28"}},{"ipBlock":{"cidr":"203.0.113.7/32"}}]}],"podSelector":{},"policyTypes":["Egress"]}
shop/own {"egress":[{"to":[{"podSelector":{"matchLabels":{"role":"db"}}},{"ipBlock":{"cidr":"192.0.2.0/24"}}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"a global policy in each namespace that there is", gnp("deny", `selector: projectcalico.org/namespace != 'other', types: [Ingress, Egress], egress: [{action: Allow, protocol: UDP, destination: {selector: k8s-app == "kube-dns", ports: [53]}}]`), convert.Options{ExpandGlobal: true},
			`shop/deny {"egress":[{"ports":[{"port":53,"protocol":"UDP"}],"to":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"k8s-app":"kube-dns"}}}]}],"podSelector":{},"policyTypes":["Ingress","Egress"]}`},
		{"all ports but one", np("a", `ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [25]}}]`), convert.Options{},
			`shop/a {"ingress":[{"ports":[{"endPort":24,"port":1,"protocol":"TCP"},{"endPort":65535,"port":26,"protocol":"TCP"}]}],"podSelector":{},"policyTypes":["Ingress"]}`},
		{"a port's name", np("a", `ingress: [{action: Allow, protocol: TCP, destination: {ports: [http]}}]`), convert.Options{},
			`shop/a {"ingress":[{"ports":[{"port":"http","protocol":"TCP"}]}],"podSelector":{},"policyTypes":["Ingress"]}`},
		{"a rule about some of the pods splits the policy", gnp("pci", `namespaceSelector: projectcalico.org/name == 'shop', ingress: [{action: Deny, source: {selector: pci != 'true'}, destination: {selector: pci == 'true'}}, {action: Allow, source: {selector: all()}}]`), convert.Options{},
			`shop/pci {"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"pci":"true"}}}]}],"podSelector":{"matchLabels":{"pci":"true"}},"policyTypes":["Ingress"]}
shop/pci-2 {"ingress":[{"from":[{"namespaceSelector":{}}]}],"podSelector":{"matchExpressions":[{"key":"pci","operator":"NotIn","values":["true"]}]},"policyTypes":["Ingress"]}`},
		{"a rule about other pods than the policy's is about no pod", np("a", `selector: x == 'y', ingress: [{action: Allow, destination: {selector: x == 'z'}}]`), convert.Options{},
			`shop/a {"podSelector":{"matchLabels":{"x":"y"}},"policyTypes":["Ingress"]}`},
		{"a peer that a NetworkSet is among does not narrow the policy's own pods down, where all of them are selected", docs(
			"apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s, namespace: shop, labels: {role: db}}\nspec: {nets: [10.0.0.0/8]}",
			np("a", `egress: [{action: Allow, protocol: UDP, source: {namespaceSelector: all()}, destination: {ports: [53]}}]`)), convert.Options{},
			`shop/a {"egress":[{"ports":[{"port":53,"protocol":"UDP"}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"a refusal of GlobalNetworkSets alone, before everything is allowed", docs(
			"apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: s, labels: {role: plc}}\nspec: {nets: [203.0.113.50/32]}",
			np("a", `egress: [{action: Deny, destination: {selector: role == 'plc', namespaceSelector: global()}}, {action: Allow}]`)), convert.Options{},
			`shop/a {"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["203.0.113.50/32"]}},{"ipBlock":{"cidr":"::/0"}}]}],"podSelector":{},"policyTypes":["Egress"]}`},
		{"one family", np("a", `ingress: [{action: Allow, ipVersion: 4}]`), convert.Options{},
			`shop/a {"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0"}}]}],"podSelector":{},"policyTypes":["Ingress"]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := read(t, tc.policies)
			tc.options.Namespaces = namespaces
			r := convert.Convert(s, tc.options)
			if len(r.Refused) > 0 {
				t.Fatal(r.Refused)
			}
			if got := strings.TrimSpace(specs(t, r)); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if report := prove(t, s, r, tc.options); report.Differing > 0 || report.Flows == 0 {
				t.Errorf("%+v", report)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for _, tc := range []struct{ name, policies, field, problem string }{
		{"service accounts", np("a", `ingress: [{action: Allow, source: {serviceAccounts: {names: [x]}}}]`), "spec.ingress[0].source.serviceAccounts", "know nothing of service accounts"},
		{"service accounts as a label", np("a", `ingress: [{action: Allow, source: {selector: projectcalico.org/serviceaccount == 'x'}}]`), "spec.ingress[0].source.selector", "service accounts"},
		{"pods by service account", np("a", `serviceAccountSelector: has(x)`), "spec.serviceAccountSelector", "service accounts"},
		{"Services", np("a", `types: [Egress], egress: [{action: Allow, destination: {services: {name: x}}}]`), "spec.egress[0].destination.services", "Services"},
		{"domains", np("a", `types: [Egress], egress: [{action: Allow, destination: {domains: [x.example]}}]`), "spec.egress[0].destination.domains", "only rules of ClusterNetworkPolicies"},
		{"HTTP", np("a", `ingress: [{action: Allow, http: {methods: [GET]}}]`), "spec.ingress[0].http", "requests"},
		{"ICMP", np("a", `ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}]`), "spec.ingress[0].icmp", "kinds of ICMP"},
		{"a protocol without ports", np("a", `ingress: [{action: Allow, protocol: ICMP}]`), "spec.ingress[0].protocol", "TCP, UDP and SCTP"},
		{"all but ICMP", np("a", `ingress: [{action: Allow, notProtocol: ICMP}]`), "spec.ingress[0].protocol", "TCP, UDP and SCTP"},
		{"all but a port of one protocol", np("a", `ingress: [{action: Deny, protocol: TCP, destination: {ports: [25]}}, {action: Allow}]`), "spec.ingress", "TCP, UDP and SCTP"},
		{"logging", np("a", `ingress: [{action: Log}]`), "spec.ingress[0].action", "log nothing"},
		{"source ports", np("a", `ingress: [{action: Allow, protocol: TCP, source: {ports: [53]}}]`), "spec.ingress[0].source.ports", "destination ports only"},
		{"source ports of egress", np("a", `types: [Egress], egress: [{action: Allow, protocol: TCP, source: {ports: [53]}}]`), "spec.egress[0].source.ports", "destination ports only"},
		{"the selected end narrowed down by networks", np("a", `ingress: [{action: Allow, destination: {nets: [10.0.0.0/8]}}]`), "spec.ingress[0].destination.nets", "some of the pods only"},
		{"parts of labels", np("a", `selector: a starts with 'b'`), "spec.selector", "whole values"},
		{"everybody but some pods", np("a", `ingress: [{action: Deny, source: {selector: a == 'b'}}, {action: Allow}]`), "spec.ingress[0]", "ipBlocks know no labels"},
		{"notSelector in a global policy", gnp("a", `namespaceSelector: projectcalico.org/name == 'shop', ingress: [{action: Allow, source: {notSelector: a == 'b'}}]`), "spec.ingress[0].source.notSelector", "ipBlocks know no labels"},
		{"pods of networks", np("a", `ingress: [{action: Allow, source: {selector: a == 'b', nets: [10.0.0.0/8]}}]`), "spec.ingress[0].source.nets", "never what is both"},
		{"a network that may hold pods", np("a", `egress: [{action: Deny, destination: {nets: [10.0.0.0/8]}}, {action: Allow, destination: {selector: all()}}]`), "spec.egress[0]", "never what is both"},
		{"namespaces to come", gnp("a", `selector: all()`), "spec.selector", "namespaces that come later"},
		{"untracked", gnp("a", `doNotTrack: true, applyOnForward: true, selector: has(x)`), "spec.doNotTrack", "host endpoints"},
		{"before DNAT", gnp("a", `preDNAT: true, applyOnForward: true, selector: has(x)`), "spec.preDNAT", "host endpoints"},
		{"host endpoints alone", gnp("a", `namespaceSelector: global(), selector: has(x)`), "spec.namespaceSelector", "no pods"},
		{"a tier that is not there", np("x.a", `tier: x`), "spec.tier", "Tier x is not known"},
		{"host endpoints", docs("apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: n1, labels: {node: x}}", gnp("a", `selector: has(node)`)), "spec.selector", "HostEndpoint n1"},
		{"host endpoints as peers", docs("apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: n1, labels: {node: x}}", np("a", `ingress: [{action: Allow, source: {selector: has(node), namespaceSelector: global()}}]`)), "spec.ingress[0].source.selector", "HostEndpoint n1"},
		{"equal orders of a global policy and another one", docs(gnp("z", `namespaceSelector: projectcalico.org/name == 'shop', ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}]`), np("a", `ingress: [{action: Allow, source: {nets: [192.0.0.0/16]}}]`)), "spec.order", "which of the two"},
		{"Kubernetes' own policies stay as they are", docs(np("a", `order: 1, ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}]`),
			"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: k}\nspec: {podSelector: {}, ingress: [{}]}"), "spec.ingress[0]", "stays as it is"},
		{"names against numbers of ports", np("a", `ingress: [{action: Deny, protocol: TCP, destination: {ports: [http]}}, {action: Allow, protocol: TCP, destination: {ports: [80]}}]`), "spec.ingress[0]", "a port's name"},
		{"what depends on a refused one", docs(np("a", `order: 1, ingress: [{action: Deny, source: {serviceAccounts: {names: [x]}}}]`), np("b", `order: 2, ingress: [{action: Allow}]`)), "spec.order", "depends on NetworkPolicy shop/a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := read(t, tc.policies)
			o := convert.Options{Namespaces: namespaces}
			r := convert.Convert(s, o)
			found := false
			for _, p := range r.Refused {
				found = found || p.Field == tc.field && strings.Contains(p.Problem, tc.problem) && p.Fix != ""
			}
			if !found {
				t.Errorf("refused: %v\nwritten: %s", r.Refused, specs(t, r))
			}
			if report := prove(t, s, r, o); report.Differing > 0 {
				t.Errorf("what is left is not the same: %+v", report)
			}
		})
	}
}

// A refused policy that only allows takes no other one with it.
func TestOthersAreConverted(t *testing.T) {
	s := read(t, docs(np("a", `ingress: [{action: Allow, source: {serviceAccounts: {names: [x]}}}]`), np("b", `ingress: [{action: Allow, source: {selector: has(b)}}]`)))
	r := convert.Convert(s, convert.Options{Namespaces: namespaces})
	if len(r.NotConverted) != 1 || len(r.Converted) != 1 || len(r.Policies) != 1 {
		t.Errorf("%+v", r)
	}
}

// What is about nodes alone says nothing of pods.
func TestPoliciesOfHostsHoldNothingBack(t *testing.T) {
	for _, host := range []string{
		`order: 1, preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]`,
		`order: 1, doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]`,
		`order: 1, namespaceSelector: global(), ingress: [{action: Deny}]`,
	} {
		r := convert.Convert(read(t, docs(gnp("host", host), np("a", `order: 2, ingress: [{action: Allow}]`))), convert.Options{Namespaces: namespaces})
		if len(r.NotConverted) != 1 || len(r.Policies) != 1 {
			t.Errorf("%s: %v", host, r.Refused)
		}
	}
}

// An empty result is reported: an object may be missing.
func TestNotesWhatSelectsNothing(t *testing.T) {
	for _, tc := range []struct{ policies, field, note string }{
		{np("a", `egress: [{action: Allow, destination: {selector: has(x), namespaceSelector: global()}}]`), "spec.egress[0].destination", "selects nothing"},
		{gnp("a", `namespaceSelector: projectcalico.org/name == 'gone' && projectcalico.org/name == 'shop'`), "spec.namespaceSelector", "no pods"},
		{gnp("a", `namespaceSelector: team == 'gone'`), "spec.namespaceSelector", "no pods"},
	} {
		r := convert.Convert(read(t, tc.policies), convert.Options{Namespaces: namespaces, ExpandGlobal: true})
		found := false
		for _, n := range append(r.Notes, r.Refused...) {
			found = found || n.Field == tc.field && strings.Contains(n.Problem, tc.note)
		}
		if !found {
			t.Errorf("%s: %v", tc.policies, r.Notes)
		}
	}
}

// Where some pods' removal from everybody cannot be said, networks alone often were meant.
func TestTheWayOutOfEverythingButSomePods(t *testing.T) {
	r := convert.Convert(read(t, np("a", `egress: [{action: Deny, destination: {selector: role == 'plc'}}, {action: Allow}]`)), convert.Options{Namespaces: namespaces})
	if len(r.Refused) != 1 || !strings.Contains(r.Refused[0].Fix, "namespaceSelector: global()") {
		t.Errorf("%+v", r.Refused)
	}
}

// A policy that cannot be read may say anything, so that no other one in its reach is converted.
func TestAnInvalidPolicyHoldsBackTheOthers(t *testing.T) {
	var s calico.Set
	for _, d := range []string{np("a", `ingress: [{action: Deny, fancyNewField: {}}]`), np("b", `ingress: [{action: Allow}]`), strings.Replace(np("c", `ingress: [{action: Allow}]`), "shop", "other", 1)} {
		raw, err := yaml.YAMLToJSON([]byte(d))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(typeOf(raw), raw, "default"); err != nil {
			t.Fatal(err)
		}
	}
	r := convert.Convert(&s, convert.Options{Namespaces: namespaces})
	if len(r.Policies) != 1 || r.Policies[0].Namespace != "other" {
		t.Errorf("%s\n%v", specs(t, r), r.Refused)
	}
}

func typeOf(raw []byte) (t metav1.TypeMeta) {
	_ = yaml.Unmarshal(raw, &t)
	return t
}

// Lists that are empty are no condition, as for Calico, and are noted: a program may have written them for "none".
func TestEmptyListsAreNoted(t *testing.T) {
	for spec, want := range map[string]string{
		"types: [Egress], egress: [{action: Allow, destination: {nets: []}}]":                   "spec.egress[0].destination.nets",
		"types: [Ingress], ingress: [{action: Allow, source: {nets: []}}]":                      "spec.ingress[0].source.nets",
		"types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: []}}]": "spec.ingress[0].destination.ports",
		"types: [Egress], egress: [{action: Allow, destination: {nets: [10.0.0.0/8]}}]":         "",
	} {
		s := read(t, np("a", spec))
		r := convert.Convert(s, convert.Options{Namespaces: namespaces})
		noted := ""
		for _, n := range slices.Concat(r.Notes, r.Warnings) {
			if strings.Contains(n.Problem, "is empty") {
				noted += n.Field
			}
		}
		if noted != want || len(r.Policies) != 1 {
			t.Errorf("%s: noted %q, want %q; %d policies, refused %v", spec, noted, want, len(r.Policies), r.Refused)
		}
	}
}
