package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// clusterWorld is a client, a shop, and the cluster's DNS server, all with both families, an API server, and a webhook that the API server
// reaches through an agent.
var clusterWorld = dualStack("client", "team", "{app: client}", 1, "") + dualStack("cart", "shop", "{app: cart}", 2, "ports: [{name: http, containerPort: 8080}]") +
	dualStack("coredns", "kube-system", "{k8s-app: kube-dns}", 3, "ports: [{name: dns, containerPort: 53, protocol: UDP}]") +
	dualStack("konnectivity-agent-x", "tunnel", "{k8s-app: konnectivity-agent}", 4, "") +
	dualStack("policy-webhook", "hooks", "{app: hook}", 5, "ports: [{containerPort: 9443}]") + `
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: kubernetes, namespace: default}
subsets: [{addresses: [{ip: 192.168.9.9}], ports: [{name: https, port: 6443}]}]
`

func dualStack(name, namespace, labels string, n int, ports string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %[1]s, namespace: %[2]s, labels: %[3]s}\nspec: {containers: [{name: c, %[5]s}]}\n"+
		"status: {phase: Running, podIP: 10.1.0.%[4]d, podIPs: [{ip: 10.1.0.%[4]d}, {ip: \"fd00::%[4]d\"}]}\n---\n", name, namespace, labels, n, ports)
}

// clusterPolicy of the team's pods: a tier, a priority and rules.
func clusterPolicy(name, spec string) string {
	return "\n---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
}

const (
	adminTeam = "tier: Admin, priority: 5, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: team}}}, "
	dnsRule   = "{name: dns, action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}}], protocols: [{udp: {destinationPort: {number: 53}}}]}"
)

// TestClusterCases: of each check of ClusterNetworkPolicies what it must find, as "severity path", and what it must not.
func TestClusterCases(t *testing.T) {
	egress := func(rules ...string) string {
		return clusterPolicy("one", adminTeam+"egress: ["+strings.Join(rules, ", ")+"]")
	}
	const (
		denyAll  = "{name: rest, action: Deny, to: [{networks: [0.0.0.0/0, \"::/0\"]}]}"
		passPods = "{action: Pass, to: [{namespaces: {}}]}"
		apiRule  = "{action: Accept, to: [{networks: [192.168.9.9/32]}]}"
	)
	for _, tc := range []struct {
		check, name, manifests string
		want                   string // severity path, or empty for no finding
	}{
		{"cluster-unreadable", "names in a Deny rule", egress("{action: Deny, to: [{domainNames: [example.com]}]}"), "error spec.egress[0]"},
		{"cluster-unreadable", "names in the Baseline tier", clusterPolicy("one", "tier: Baseline, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [example.com]}]}]"), "error spec.egress[0]"},
		{"cluster-unreadable", "names in an Accept rule", egress("{action: Accept, to: [{domainNames: [example.com]}]}"), ""},

		{"cluster-shadowed-rule", "a block within another", egress("{action: Deny, to: [{networks: [10.0.0.0/8]}]}", "{action: Accept, to: [{networks: [10.3.0.0/16]}]}"), "warning spec.egress[1]"},
		{"cluster-shadowed-rule", "a wider block behind", egress("{action: Deny, to: [{networks: [10.3.0.0/16]}]}", "{action: Accept, to: [{networks: [10.0.0.0/8]}]}"), ""},
		{"cluster-shadowed-rule", "another port", egress("{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{tcp: {destinationPort: {number: 22}}}]}", "{action: Accept, to: [{networks: [10.3.0.0/16]}], protocols: [{tcp: {destinationPort: {number: 80}}}]}"), ""},
		{"cluster-shadowed-rule", "a port of a range", egress("{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 65535}}}}]}", "{action: Accept, to: [{networks: [10.3.0.0/16]}], protocols: [{tcp: {destinationPort: {number: 80}}}]}"), "warning spec.egress[1]"},
		{"cluster-shadowed-rule", "pods of namespaces", egress("{action: Deny, to: [{namespaces: {}}]}", "{action: Accept, to: [{pods: {podSelector: {matchLabels: {app: cart}}}}]}"), "warning spec.egress[1]"},
		{"cluster-shadowed-rule", "a higher precedence", egress("{action: Accept, to: [{namespaces: {}}]}") + clusterPolicy("zero", "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]"), "warning spec.egress[0]"},
		{"cluster-shadowed-rule", "a higher precedence for other pods", egress("{action: Accept, to: [{namespaces: {}}]}") + clusterPolicy("zero", "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: b}}}, egress: [{action: Deny, to: [{namespaces: {}}]}]"), ""},
		{"cluster-shadowed-rule", "the other tier", egress("{action: Deny, to: [{namespaces: {}}]}") + clusterPolicy("two", "tier: Baseline, priority: 9, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: team}}}, egress: [{action: Deny, to: [{namespaces: {}}]}]"), ""},
		{"cluster-shadowed-rule", "a name of a wildcard", egress("{action: Accept, to: [{domainNames: [\"*.example.com\"]}]}", "{action: Accept, to: [{domainNames: [a.example.com]}]}"), "warning spec.egress[1]"},

		{"cluster-pass", "at the end", egress(denyAll, passPods), "info spec.egress[1]"},
		{"cluster-pass", "an exception", egress(passPods, denyAll), ""},
		{"cluster-pass", "an exception of another policy", egress(passPods) + clusterPolicy("two", "tier: Admin, priority: 9, subject: {namespaces: {}}, egress: [{action: Deny, to: [{pods: {podSelector: {matchLabels: {app: cart}}}}]}]"), ""},

		{"cluster-equal-priority", "Accept and Deny", egress("{action: Accept, to: [{namespaces: {}}]}") + clusterPolicy("two", "tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{pods: {podSelector: {matchLabels: {app: cart}}}}]}]"), "warning spec.egress[0]"},
		{"cluster-equal-priority", "of other pods", egress("{action: Accept, to: [{namespaces: {}}]}") + clusterPolicy("two", "tier: Admin, priority: 5, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}, egress: [{action: Deny, to: [{namespaces: {}}]}]"), ""},
		{"cluster-equal-priority", "of other ports", egress("{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}]}") + clusterPolicy("two", adminTeam+"egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 2}}}]}]"), ""},
		{"cluster-shared-priority", "of other ports", egress("{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}]}") + clusterPolicy("two", adminTeam+"egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 2}}}]}]"), "info spec.priority"},
		{"cluster-shared-priority", "another tier", egress(passPods) + clusterPolicy("two", "tier: Baseline, priority: 5, subject: {namespaces: {}}"), ""},

		{"cluster-empty-rules", "ingress", clusterPolicy("one", adminTeam+"ingress: []"), "info spec.ingress"},
		{"cluster-empty-rules", "left out", egress(passPods), ""},
		{"cluster-named-port", "beside networks", egress("{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: http}]}"), "warning spec.egress[0].to[0]"},
		{"cluster-named-port", "beside pods", egress("{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}"), ""},
		{"cluster-blocks", "bits of a host", egress("{action: Deny, to: [{networks: [10.0.0.5/8]}]}"), "warning spec.egress[0].to[0].networks[0]"},
		{"cluster-blocks", "the same twice", egress("{action: Deny, to: [{networks: [10.0.0.0/8]}, {networks: [10.9.9.9/8]}]}"), "info spec.egress[0].to[1].networks[0]"},
		{"cluster-blocks", "one within the other", egress("{action: Deny, to: [{networks: [10.0.0.0/8, 10.0.0.0/16]}]}"), ""},

		{"cluster-one-family", "IPv4", egress("{action: Deny, to: [{networks: [0.0.0.0/0]}]}"), "warning spec.egress[0].to[0].networks"},
		{"cluster-one-family", "IPv6", egress("{action: Deny, to: [{networks: [\"::/0\"]}]}"), "warning spec.egress[0].to[0].networks"},
		{"cluster-one-family", "in two rules", egress("{action: Deny, to: [{networks: [\"::/0\"]}]}", "{action: Deny, to: [{networks: [0.0.0.0/0]}]}"), ""},
		{"cluster-one-family", "a part", egress("{action: Deny, to: [{networks: [10.0.0.0/8]}]}"), ""},
		{"cluster-denies-pods", "everything", egress(denyAll), "info spec.egress[0]"},
		{"cluster-denies-pods", "behind Pass for pods", egress(passPods, denyAll), ""},
		{"cluster-denies-pods", "other addresses", egress("{action: Deny, to: [{networks: [198.51.100.0/24]}]}"), ""},

		{"cluster-matches-nothing", "the DNS label of others", egress("{name: dns, action: Accept, to: [{pods: {podSelector: {matchLabels: {app: kube-dns}}}}]}"), "warning spec.egress[0].to[0]"},
		{"cluster-matches-nothing", "another label", egress("{action: Accept, to: [{pods: {podSelector: {matchLabels: {app: nothing}}}}]}"), "info spec.egress[0].to[0]"},
		{"cluster-matches-nothing", "the subject", clusterPolicy("one", "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: b}}}"), "info spec.subject"},
		{"cluster-matches-nothing", "what is there", egress(dnsRule, passPods), ""},
		{"cluster-dns-ports", "all ports", egress("{name: dns, action: Accept, to: [{pods: {podSelector: {matchLabels: {k8s-app: kube-dns}}}}]}"), "info spec.egress[0]"},
		{"cluster-dns-ports", "its port", egress(dnsRule), ""},

		{"cluster-baseline-open", "from all pods", clusterPolicy("one", "tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]"), "warning spec.ingress[0]"},
		{"cluster-baseline-open", "from some", clusterPolicy("one", "tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {a: b}}}]}]"), ""},
		{"cluster-denies-dns", "by networks", egress(denyAll), "warning spec.egress[0]"},
		{"cluster-denies-dns", "behind a rule for DNS", egress(dnsRule, denyAll), ""},
		{"cluster-denies-dns", "of the whole cluster", clusterPolicy("one", "tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]"), "error spec.ingress[0]"},
		{"cluster-denies-system", "the subject", clusterPolicy("one", "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: ["+denyAll+"]"), "warning spec.subject"},
		{"cluster-denies-system", "by its label", egress("{action: Deny, to: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}"), "info spec.egress[0].to[0]"},
		{"cluster-denies-system", "other pods", egress(denyAll), ""},
		{"cluster-denies-apiserver", "by networks", egress(passPods, denyAll), "warning spec.egress[1]"},
		{"cluster-denies-apiserver", "behind a rule for it", egress(apiRule, denyAll), ""},
		{"cluster-denies-webhooks", "to them", clusterPolicy("one", "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: hooks}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]"), "error spec.ingress[0]"},
		{"cluster-denies-webhooks", "from others", clusterPolicy("one", "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: hooks}}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: team}}}]}]"), ""},
		{"admin-network-policy", "v1alpha1", "\n---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: default}\n", "error "},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			findings, _ := Run(read(t, clusterWorld+tc.manifests), Options{})
			of := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Check != tc.check })
			switch {
			case tc.want == "" && len(of) > 0:
				t.Errorf("found %+v", of)
			case tc.want != "" && !slices.ContainsFunc(of, func(f Finding) bool {
				return string(f.Severity)+" "+f.Path == tc.want && f.Fix != "" && f.File == "test"
			}):
				t.Errorf("not found; but %+v", findings)
			}
		})
	}
}

// A list of names that needs DNS, pods and both families is found with each of its three mistakes, and without them nothing is.
func TestNamesBehindADenyForAll(t *testing.T) {
	const names = "{name: vendor, action: Accept, to: [{domainNames: [vendor.example]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}"
	checks := func(rules string) (out []string) {
		for _, f := range findings(read(t, clusterWorld+clusterPolicy("names", adminTeam+"egress: ["+rules+"]")), Options{Skip: []string{"cluster-denies-apiserver"}}) {
			if f.Check == "cluster-denies-dns" && !strings.Contains(f.Message, "rule vendor") {
				t.Errorf("the rule that never matches is not named: %s", f.Message)
			}
			out = append(out, f.Check)
		}
		return out
	}
	if got := checks(names + ", {name: rest, action: Deny, to: [{networks: [0.0.0.0/0]}]}"); !slices.Equal(got, []string{"cluster-denies-dns", "cluster-one-family", "cluster-denies-pods"}) {
		t.Errorf("%q", got)
	}
	if got := checks(dnsRule + ", {action: Pass, to: [{namespaces: {}}]}, " + names + ", {name: rest, action: Deny, to: [{networks: [0.0.0.0/0, \"::/0\"]}]}"); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

// An annotation leaves out findings of a ClusterNetworkPolicy, and -n those of all.
func TestClusterPoliciesAreSuppressed(t *testing.T) {
	text := clusterWorld + strings.Replace(clusterPolicy("team", adminTeam+"ingress: []"), "{name: team}", "{name: team, annotations: {kidoban.dev/lint-ignore: cluster-empty-rules}}", 1)
	of := func(f Finding) bool { return f.Check == "cluster-empty-rules" }
	if out, suppressed := Run(read(t, text), Options{}); suppressed != 1 || slices.ContainsFunc(out, of) {
		t.Errorf("%d suppressed; %+v", suppressed, out)
	}
	if out := findings(read(t, strings.Replace(text, "kidoban.dev/lint-ignore", "a", 1)), Options{Namespaces: []string{"team"}}); slices.ContainsFunc(out, of) {
		t.Errorf("%+v", out)
	}
}
