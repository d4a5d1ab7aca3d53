//go:build envtest

package v1alpha1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
)

var api client.Client

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	config, stop, err := apitest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = stop() }()
	scheme := runtime.NewScheme()
	_ = v1alpha1.AddToScheme(scheme)
	if api, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// create writes an object of a kind with this spec, strictly, and deletes it again.
func create(t *testing.T, kind, spec string) error {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{}}
	var s map[string]any
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatal(err)
	}
	u.Object["spec"] = s
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	if kind != "ClusterPolicyEndpoint" {
		u.SetNamespace("default")
	}
	u.SetName("test")
	err := api.Create(context.Background(), u, client.FieldValidation(metav1.FieldValidationStrict))
	if err == nil {
		if err := api.Delete(context.Background(), u); err != nil {
			t.Fatal(err)
		}
	}
	return err
}

// pe returns the spec of a PolicyEndpoint with this ingress, in which Allow is added to each rule that has no action.
func pe(ingress string) string { return peWith("Ingress", "ingress", ingress) }

func peWith(policyType, field, rules string) string {
	return fmt.Sprintf("{policyRef: {kind: NetworkPolicy, name: a}, podSelector: {}, policyTypes: [%s], %s: %s}", policyType, field, withAction(rules, "Allow"))
}

// cpe returns the spec of a ClusterPolicyEndpoint with these fields and these rules, in which Deny is added to each rule that has no action.
func cpe(fields, direction, rules string) string {
	return fmt.Sprintf("{policyRef: {kind: ClusterNetworkPolicy, name: a}, subject: {namespaceSelector: {}, podSelector: {}}, %s, %s: %s}",
		fields, direction, withAction(rules, "Deny"))
}

const admin = "tier: Admin, priority: 0"

func withAction(rules, action string) string {
	var list []map[string]any
	if err := yaml.Unmarshal([]byte(rules), &list); err != nil {
		panic(err)
	}
	for _, r := range list {
		if _, ok := r["action"]; !ok {
			r["action"] = action
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// many repeats an element of a list.
func many(n int, element func(int) string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = element(i)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func block(i int) string   { return fmt.Sprintf("{cidr: 10.%d.%d.0/24}", i/256, i%256) }
func name(i int) string    { return fmt.Sprintf("%s.n%d.example", strings.Repeat("a", 63), i) }
func address(i int) string { return fmt.Sprintf("10.0.%d.%d/32", i/256, i%256) }

// slice has addresses of two groups.
func slice(classes, addresses string) string {
	return `{groups: [{name: g}, {name: h}], addresses: [` + addresses + `], classes: [` + classes + `]}`
}

func part(i int) string { return fmt.Sprintf("{name: g-%d}", i) }

// classOf is a class of one address that is in the first groups of a slice.
func classOf(groups int) string { return `{count: 1, groups: ` + many(groups, strconv.Itoa) + `}` }

func TestSchemaAccepts(t *testing.T) {
	for name, c := range map[string]struct{ kind, spec string }{
		"nothing allowed":       {"PolicyEndpoint", pe(`[]`)},
		"everyone, every port":  {"PolicyEndpoint", pe(`[{ruleIndexes: [0]}]`)},
		"a group":               {"PolicyEndpoint", pe(`[{ruleIndexes: [0], peers: [{group: {name: g-1}}], ports: [{protocol: UDP, port: 53}]}]`)},
		"blocks of both kinds":  {"PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.0.0.0/8]}, {cidr: "2001:db8::/32", except: ["2001:db8::1/128"]}]}]`)},
		"a name, ranges":        {"PolicyEndpoint", pe(`[{ports: [{name: http}, {port: 1, endPort: 65535}, {protocol: SCTP}]}]`)},
		"as many as fit":        {"PolicyEndpoint", pe(`[{ruleIndexes: [0], peers: ` + many(v1alpha1.MaxPeersPerRule, block) + `}]`)},
		"as many rules as fit":  {"PolicyEndpoint", pe(many(v1alpha1.MaxRules, func(i int) string { return fmt.Sprintf("{ports: [{port: %d}], peers: [%s]}", i+1, block(i)) }))},
		"as many ports as fit":  {"PolicyEndpoint", pe(`[{ports: ` + many(v1alpha1.MaxPortsPerRule, func(i int) string { return fmt.Sprintf("{port: %d}", 2*i+1) }) + `}]`)},
		"a shared group":        {"PolicyEndpoint", pe(`[{name: a rule, peers: [{group: {name: g-1, shared: true}}]}]`)},
		"audit":                 {"PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, enforcement: Audit, podSelector: {}, policyTypes: [Ingress]}`},
		"domain names":          {"PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: [example.com, "*.example.com", "*.internal", _sip._tcp.a-b.example, 1.example]}]}]`)},
		"the longest of names":  {"PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: `+many(v1alpha1.MaxDomainNamesPerPeer, name)+`}]}]`)},
		"a cluster policy":      {"ClusterPolicyEndpoint", cpe("tier: Baseline, priority: 1000, enforcement: Audit", "egress", `[{action: Accept, peers: [{domainNames: [example.com]}]}, {action: Pass, peers: [{group: {name: g, shared: true}}]}, {action: Deny}]`)},
		"named ports of pods":   {"ClusterPolicyEndpoint", cpe(admin, "ingress", `[{ports: [{name: http}]}]`)},
		"many cluster rules":    {"ClusterPolicyEndpoint", cpe(admin, "egress", many(v1alpha1.MaxRules, func(i int) string { return fmt.Sprintf("{ports: [{port: %d}], peers: [%s]}", i+1, block(i)) }))},
		"an empty group":        {"PolicyEndpointSlice", `{groups: [{name: g-1, slices: [s-1], selector: {podSelector: {}}}], count: 0}`},
		"an empty part":         {"PolicyEndpointSlice", `{groups: [{name: g-1}]}`},
		"an empty slice":        {"PolicyEndpointSlice", `{}`},
		"a slice of both kinds": {"PolicyEndpointSlice", slice(`{groups: [0], count: 2}, {groups: [0, 1], count: 1}`, `10.0.0.1/32, "2001:db8::1/128", 192.168.0.0/16`)},
		"a full slice": {"PolicyEndpointSlice", `{groups: ` + many(v1alpha1.MaxGroupsPerSlice, part) + `, addresses: ` + many(v1alpha1.MaxAddressesPerSlice, address) +
			`, classes: ` + many(v1alpha1.MaxAddressesPerSlice, func(int) string { return classOf(v1alpha1.MaxGroupsOfClasses / v1alpha1.MaxAddressesPerSlice) }) + `}`},
		"a class of all groups": {"PolicyEndpointSlice", `{groups: ` + many(v1alpha1.MaxGroupsPerSlice, part) + `, addresses: [10.0.0.1/32], classes: [` + classOf(v1alpha1.MaxGroupsPerSlice) + `]}`},
		"a list of all slices":  {"PolicyEndpointSlice", `{groups: [{name: g, slices: ` + many(v1alpha1.MaxSlicesPerGroup, func(i int) string { return fmt.Sprintf("slice-%d", i) }) + `}]}`},
	} {
		if err := create(t, c.kind, c.spec); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRejects(t *testing.T) {
	for _, c := range []struct{ name, kind, spec, want string }{
		{"no policy", "PolicyEndpoint", `{podSelector: {}, policyTypes: [Ingress]}`, "spec.policyRef: Required"},
		{"no selector", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, policyTypes: [Ingress]}`, "spec.podSelector: Required"},
		{"no types", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, podSelector: {}, policyTypes: []}`, "spec.policyTypes"},
		{"one type twice", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, podSelector: {}, policyTypes: [Ingress, Ingress]}`, "spec.policyTypes[1]: Duplicate"},
		{"an unknown type", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, podSelector: {}, policyTypes: [Sideways]}`, `spec.policyTypes[0]: Unsupported value: "Sideways"`},
		{"an unknown enforcement", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, enforcement: Sometimes, podSelector: {}, policyTypes: [Ingress]}`, `spec.enforcement: Unsupported value: "Sometimes"`},
		{"a tier", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, tier: Admin, podSelector: {}, policyTypes: [Ingress]}`, `unknown field "spec.tier"`},
		{"no action", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, podSelector: {}, policyTypes: [Ingress], ingress: [{}]}`, "spec.ingress[0].action: Required"},
		{"an unknown action", "PolicyEndpoint", pe(`[{action: Log}]`), `spec.ingress[0].action: Unsupported value: "Log"`},
		{"a denying rule", "PolicyEndpoint", pe(`[{action: Deny}]`), "spec.ingress: Invalid value: rules of a PolicyEndpoint can only Allow"},
		{"a denying egress rule", "PolicyEndpoint", peWith("Egress", "egress", `[{}, {action: Pass}]`), "spec.egress: Invalid value: rules of a PolicyEndpoint can only Allow"},
		{"an accepting rule", "PolicyEndpoint", pe(`[{action: Accept}]`), "spec.ingress: Invalid value: rules of a PolicyEndpoint can only Allow"},
		{"a rule's name too long", "PolicyEndpoint", pe(`[{name: ` + strings.Repeat("a", 101) + `}]`), "spec.ingress[0].name: Too long"},
		{"a negative index of a rule", "PolicyEndpoint", pe(`[{ruleIndexes: [-1]}]`), "spec.ingress[0].ruleIndexes[0]"},
		{"a group by its name alone", "PolicyEndpoint", pe(`[{peers: [{group: g-1}]}]`), "spec.ingress[0].peers[0].group: Invalid value"},
		{"a group without a name", "PolicyEndpoint", pe(`[{peers: [{group: {shared: true}}]}]`), "spec.ingress[0].peers[0].group.name: Required"},
		{"a domain name for ingress", "PolicyEndpoint", pe(`[{peers: [{domainNames: [example.com]}]}]`), "spec.ingress: Invalid value: domainNames are for egress only"},
		{"no domain names", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: []}]}]`), "spec.egress[0].peers[0].domainNames: Invalid value: 0"},
		{"too many domain names", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: `+many(v1alpha1.MaxDomainNamesPerPeer+1, name)+`}]}]`), "spec.egress[0].peers[0].domainNames: Too many"},
		{"a domain name in upper case", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: [Example.com]}]}]`), "spec.egress[0].peers[0].domainNames[0]: Invalid value"},
		{"a domain name with a trailing dot", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: [example.com.]}]}]`), "spec.egress[0].peers[0].domainNames[0]: Invalid value"},
		{"a domain name of one label", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: [localhost]}]}]`), "spec.egress[0].peers[0].domainNames[0]: Invalid value"},
		{"every domain name", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: ["*"]}]}]`), "spec.egress[0].peers[0].domainNames[0]: Invalid value"},
		{"a wildcard inside", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: ["a.*.com"]}]}]`), "spec.egress[0].peers[0].domainNames[0]: Invalid value"},
		{"a label too long", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: [`+strings.Repeat("a", 64)+`.com]}]}]`), "spec.egress[0].peers[0].domainNames[0]: Invalid value"},
		{"a group and a domain name", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{group: {name: g}, domainNames: [example.com]}]}]`), "exactly one of the fields in [group cidr domainNames] must be set"},
		{"a domain name with an except", "PolicyEndpoint", peWith("Egress", "egress", `[{peers: [{domainNames: [example.com], except: [10.0.0.0/8]}]}]`), "spec.egress[0].peers[0]: Invalid value: except needs a cidr"},
		{"no subject", "ClusterPolicyEndpoint", `{policyRef: {kind: ClusterNetworkPolicy, name: a}, tier: Admin, priority: 0}`, "spec.subject: Required"},
		{"half a subject", "ClusterPolicyEndpoint", `{policyRef: {kind: ClusterNetworkPolicy, name: a}, tier: Admin, priority: 0, subject: {podSelector: {}}}`, "spec.subject.namespaceSelector: Required"},
		{"no tier", "ClusterPolicyEndpoint", cpe("priority: 0", "ingress", `[]`), "spec.tier: Required"},
		{"NetworkPolicy's tier", "ClusterPolicyEndpoint", cpe("priority: 0, tier: NetworkPolicy", "ingress", `[]`), `spec.tier: Unsupported value: "NetworkPolicy"`},
		{"no priority", "ClusterPolicyEndpoint", cpe("tier: Admin", "ingress", `[]`), "spec.priority: Required"},
		{"a negative priority", "ClusterPolicyEndpoint", cpe("tier: Admin, priority: -1", "ingress", `[]`), "spec.priority: Invalid value: -1"},
		{"a priority out of range", "ClusterPolicyEndpoint", cpe("tier: Admin, priority: 1001", "ingress", `[]`), "spec.priority: Invalid value: 1001"},
		{"an unknown enforcement for the cluster", "ClusterPolicyEndpoint", cpe(admin+", enforcement: Sometimes", "ingress", `[]`), `spec.enforcement: Unsupported value: "Sometimes"`},
		{"policy types for the cluster", "ClusterPolicyEndpoint", cpe(admin+", policyTypes: [Ingress]", "ingress", `[]`), `unknown field "spec.policyTypes"`},
		{"an allowing rule for the cluster", "ClusterPolicyEndpoint", cpe(admin, "ingress", `[{}, {action: Allow}]`), "spec.ingress: Invalid value: actions of a ClusterPolicyEndpoint are Accept, Deny and Pass"},
		{"an allowing egress rule for the cluster", "ClusterPolicyEndpoint", cpe(admin, "egress", `[{action: Allow}]`), "spec.egress: Invalid value: actions of a ClusterPolicyEndpoint are Accept, Deny and Pass"},
		{"a group of no namespace", "ClusterPolicyEndpoint", cpe(admin, "ingress", `[{peers: [{group: {name: g}}]}]`), "spec.ingress: Invalid value: groups of a ClusterPolicyEndpoint must be shared"},
		{"a group that is not shared", "ClusterPolicyEndpoint", cpe(admin, "egress", `[{peers: [{group: {name: g, shared: false}}]}]`), "spec.egress: Invalid value: groups of a ClusterPolicyEndpoint must be shared"},
		{"a domain name for ingress of the cluster", "ClusterPolicyEndpoint", cpe(admin, "ingress", `[{peers: [{domainNames: [example.com]}]}]`), "spec.ingress: Invalid value: domainNames are for egress only"},
		{"a name at a peer for the cluster", "ClusterPolicyEndpoint", cpe(admin, "egress", `[{ports: [{name: http}]}]`), "spec.egress: Invalid value: named ports are for ingress only"},
		{"host bits for the cluster", "ClusterPolicyEndpoint", cpe(admin, "egress", `[{peers: [{cidr: 10.0.0.1/8}]}]`), `spec.egress[0].peers[0].cidr: Invalid value: "10.0.0.1/8": must be in canonical form`},
		{"too many rules for the cluster", "ClusterPolicyEndpoint", cpe(admin, "egress", many(v1alpha1.MaxRules+1, func(int) string { return "{}" })), "spec.egress: Too many"},
		{"a name too long", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: ` + strings.Repeat("a", 254) + `}, podSelector: {}, policyTypes: [Ingress]}`, "spec.policyRef.name: Too long"},
		{"an unknown field", "PolicyEndpoint", pe(`[{port: 80}]`), `unknown field "spec.ingress[0].port"`},
		{"a word for a CIDR", "PolicyEndpoint", pe(`[{peers: [{cidr: banana}]}]`), `spec.ingress[0].peers[0].cidr: Invalid value: "banana": must be a CIDR`},
		{"an address for a CIDR", "PolicyEndpoint", pe(`[{}, {peers: [{group: {name: g}}, {cidr: 10.0.0.1}]}]`), `spec.ingress[1].peers[1].cidr: Invalid value: "10.0.0.1": must be a CIDR`},
		{"too long a mask", "PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.0/33}]}]`), `spec.ingress[0].peers[0].cidr: Invalid value: "10.0.0.0/33": must be a CIDR`},
		{"host bits", "PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.1/8}]}]`), `spec.ingress[0].peers[0].cidr: Invalid value: "10.0.0.1/8": must be in canonical form`},
		{"IPv6 in upper case", "PolicyEndpoint", pe(`[{peers: [{cidr: "2001:DB8::/32"}]}]`), `spec.ingress[0].peers[0].cidr: Invalid value: "2001:DB8::/32": must be in canonical form`},
		{"IPv4 as IPv6", "PolicyEndpoint", pe(`[{peers: [{cidr: "::ffff:10.0.0.0/104"}]}]`), `spec.ingress[0].peers[0].cidr: Invalid value: "::ffff:10.0.0.0/104": must be a CIDR`},
		{"an except outside", "PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16]}]}]`), "spec.ingress[0].peers[0]: Invalid value: except needs a cidr that contains it"},
		{"an except that is larger", "PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}]}]`), "spec.ingress[0].peers[0]: Invalid value: except needs a cidr that contains it"},
		{"an except of the other family", "PolicyEndpoint", pe(`[{peers: [{cidr: 0.0.0.0/0, except: ["::/0"]}]}]`), "spec.ingress[0].peers[0]: Invalid value: except needs a cidr that contains it"},
		{"a word for an except", "PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.0/8, except: [pear]}]}]`), `spec.ingress[0].peers[0].except[0]: Invalid value: "pear": must be a CIDR`},
		{"an except of a group", "PolicyEndpoint", pe(`[{peers: [{group: {name: g-1}, except: [10.0.0.0/8]}]}]`), "spec.ingress[0].peers[0]: Invalid value: except needs a cidr"},
		{"group and cidr", "PolicyEndpoint", pe(`[{peers: [{group: {name: g-1}, cidr: 10.0.0.0/8}]}]`), "spec.ingress[0].peers[0]: Invalid value: exactly one of the fields in [group cidr domainNames] must be set"},
		{"neither group nor cidr", "PolicyEndpoint", pe(`[{peers: [{}]}]`), "spec.ingress[0].peers[0]: Invalid value: exactly one of the fields in [group cidr domainNames] must be set"},
		{"port 0", "PolicyEndpoint", pe(`[{ports: [{port: 0}]}]`), "spec.ingress[0].ports[0].port: Invalid value: 0"},
		{"port 65536", "PolicyEndpoint", pe(`[{ports: [{port: 65536}]}]`), "spec.ingress[0].ports[0].port: Invalid value: 65536"},
		{"an end before the beginning", "PolicyEndpoint", pe(`[{ports: [{port: 90, endPort: 80}]}]`), "spec.ingress[0].ports[0]: Invalid value: endPort needs a port that is not greater"},
		{"an end without beginning", "PolicyEndpoint", pe(`[{ports: [{endPort: 80}]}]`), "spec.ingress[0].ports[0]: Invalid value: endPort needs a port"},
		{"a number and a name", "PolicyEndpoint", pe(`[{ports: [{port: 80, name: http}]}]`), "spec.ingress[0].ports[0]: Invalid value: name and port exclude each other"},
		{"ICMP", "PolicyEndpoint", pe(`[{ports: [{protocol: ICMP}]}]`), `spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP"`},
		{"a name at a peer", "PolicyEndpoint", `{policyRef: {kind: NetworkPolicy, name: a}, podSelector: {}, policyTypes: [Egress], egress: [{action: Allow, ports: [{name: http}]}]}`, "spec.egress: Invalid value: named ports are for ingress only"},
		{"too many rules", "PolicyEndpoint", pe(many(v1alpha1.MaxRules+1, func(int) string { return "{}" })), "spec.ingress: Too many"},
		{"too many peers", "PolicyEndpoint", pe(`[{peers: ` + many(v1alpha1.MaxPeersPerRule+1, block) + `}]`), "spec.ingress[0].peers: Too many"},
		{"too many excepts", "PolicyEndpoint", pe(`[{peers: [{cidr: 10.0.0.0/8, except: ` + many(v1alpha1.MaxExceptsPerPeer+1, address) + `}]}]`), "spec.ingress[0].peers[0].except: Too many"},
		{"too many ports", "PolicyEndpoint", pe(`[{ports: ` + many(v1alpha1.MaxPortsPerRule+1, func(i int) string { return fmt.Sprintf("{port: %d}", i+1) }) + `}]`), "spec.ingress[0].ports: Too many"},
		{"no group", "PolicyEndpointSlice", `{groups: [{}]}`, "spec.groups[0].name: Required"},
		{"a list without a slice", "PolicyEndpointSlice", `{groups: [{name: g, slices: []}]}`, "spec.groups[0].slices: Invalid value: 0"},
		{"a wrong count", "PolicyEndpointSlice", `{groups: [{name: g}], count: 2, addresses: [10.0.0.1/32], classes: [{groups: [0], count: 1}]}`, "spec: Invalid value: count must be the number of addresses"},
		{"addresses without a class", "PolicyEndpointSlice", slice(`{groups: [0], count: 1}`, `10.0.0.1/32, 10.0.0.2/32`), "spec: Invalid value: the counts of the classes must add up"},
		{"classes without addresses", "PolicyEndpointSlice", slice(`{groups: [0], count: 1}`, ``), "spec: Invalid value: the counts of the classes must add up"},
		{"a class without addresses", "PolicyEndpointSlice", slice(`{groups: [0], count: 0}`, ``), "spec.classes[0].count: Invalid value: 0"},
		{"a class without groups", "PolicyEndpointSlice", slice(`{groups: [], count: 1}`, `10.0.0.1/32`), "spec.classes[0].groups: Invalid value: 0"},
		{"a negative index", "PolicyEndpointSlice", slice(`{groups: [-1], count: 1}`, `10.0.0.1/32`), "spec.classes[0].groups[0]: Invalid value: -1"},
		{"a word for an address", "PolicyEndpointSlice", slice(`{groups: [0], count: 2}`, `10.0.0.1/32, banana`), "spec.addresses: Invalid value: must be CIDRs in canonical form"},
		{"an address with host bits", "PolicyEndpointSlice", slice(`{groups: [0], count: 1}`, `10.0.0.1/24`), "spec.addresses: Invalid value: must be CIDRs in canonical form"},
		{"too many addresses", "PolicyEndpointSlice", `{addresses: ` + many(v1alpha1.MaxAddressesPerSlice+1, address) + `}`, "spec.addresses: Too many"},
		{"too many groups", "PolicyEndpointSlice", `{groups: ` + many(v1alpha1.MaxGroupsPerSlice+1, part) + `}`, "spec.groups: Too many"},
		{"too many groups in classes", "PolicyEndpointSlice", slice(strings.Join(slices.Repeat([]string{classOf(v1alpha1.MaxGroupsPerSlice)}, 51), ","),
			strings.Join(slices.Repeat([]string{"10.0.0.1/32"}, 51), ",")), "spec.classes: Invalid value: the classes have more than 50000 groups"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := create(t, c.kind, c.spec)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not contain %q", err, c.want)
			}
		})
	}
}

// The objects that users find as examples, and those that kidoban's manifests contain, pass the schema.
func TestSamplesPassTheSchema(t *testing.T) {
	files, err := filepath.Glob("../../config/samples/networking_*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, "../../config/components/strict/controller_policy_endpoint.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, u); err != nil {
			t.Fatal(file, err)
		}
		if u.GetNamespace() != "" {
			u.SetNamespace("default")
		}
		if err := api.Create(context.Background(), u, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
			t.Error(file, err)
		}
	}
}
