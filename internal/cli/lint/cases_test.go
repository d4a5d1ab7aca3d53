package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// The parts of manifests that the cases share.
const (
	sep     = "\n---\n"
	clients = "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: team, labels: {app: client}}\nspec: {containers: [{name: c, ports: [{containerPort: 9000}]}]}"
	coreDNS = "apiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}\nspec: {containers: [{name: dns}]}"
	toDNS   = "{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}"
)

func np(spec string) string {
	return sep + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: np, namespace: team}\nspec: " + spec
}

func podOf(namespace, name, labels, spec string) string {
	return sep + fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s, labels: %s}\nspec: %s", name, namespace, labels, spec)
}

func egress(rules string) string {
	return np("{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [" + rules + "]}")
}

func ingress(from string) string {
	return np("{podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress], ingress: [{from: [" + from + "]}]}")
}

const container = "{containers: [{name: c}]}"

// TestCases: of each check what it must find, as "severity path", and what it must not.
func TestCases(t *testing.T) {
	gateway := podOf("gateways", "gw", "{app: gw}", container)
	dns5353 := sep + `apiVersion: v1
kind: Service
metadata: {name: dns-default, namespace: openshift-dns}
spec: {selector: {dns: default}, ports: [{name: dns, port: 53, protocol: UDP, targetPort: 5353}, {name: dns-tcp, port: 53, protocol: TCP, targetPort: dns-tcp}]}` +
		podOf("openshift-dns", "dns-1", "{dns: default}", "{containers: [{name: dns, ports: [{name: dns, containerPort: 5353, protocol: UDP}, {name: dns-tcp, containerPort: 5353}]}]}")
	toDNSPorts := func(port int) string {
		return fmt.Sprintf("{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openshift-dns}}}], ports: [{port: %[1]d, protocol: UDP}, {port: %[1]d}]}", port)
	}
	service := sep + "apiVersion: v1\nkind: Service\nmetadata: {name: clients, namespace: team}\nspec: {selector: {app: client}, ports: [{port: 80, targetPort: 9000}]}"
	onHost := podOf("ops", "exporter", "{app: exporter}", "{hostNetwork: true, containers: [{name: c}]}")
	nodeCache := podOf("kube-system", "node-local-dns-x", "{k8s-app: node-local-dns}", "{hostNetwork: true, containers: [{name: c}]}")
	private := "except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]"
	for _, tc := range []struct {
		name, check, manifests string
		want                   string // severity path, or empty for no finding
	}{
		{"a type in small letters", "invalid", clients + np("{podSelector: {}, policyTypes: [egress]}"), "error spec.policyTypes[0]"},
		{"a type that is none", "invalid", clients + np("{podSelector: {}, policyTypes: [Ingress, Egres]}"), "error spec.policyTypes[1]"},
		{"a protocol in small letters", "invalid", clients + np("{podSelector: {}, ingress: [{ports: [{port: 80, protocol: udp}]}]}"), "error spec.ingress[0].ports[0].protocol"},
		{"an end without a port", "invalid", clients + np("{podSelector: {}, ingress: [{ports: [{endPort: 100}]}]}"), "error spec.ingress[0].ports[0].endPort"},
		{"an except outside", "invalid", clients + ingress("{ipBlock: {cidr: 10.0.0.0/16, except: [10.1.0.0/24]}}"), "error spec.ingress[0].from[0].ipBlock.except[0]"},
		{"an empty peer", "invalid", clients + ingress("{}"), "error spec.ingress[0].from[0]"},
		{"valid", "invalid", clients + np("{podSelector: {}, policyTypes: [Ingress, Egress]}"), ""},

		{"all pods here after namespaces", "selectors-or", clients + gateway + ingress("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}, {podSelector: {}}"), ""},
		{"all pods here before namespaces", "selectors-or", clients + gateway + ingress("{podSelector: {}}, {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}"), ""},
		{"some pods here, none there", "selectors-or", clients + gateway + ingress("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}, {podSelector: {matchLabels: {app: client}}}"), ""},
		{"some pods there, none here", "selectors-or", clients + gateway + ingress("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}, {podSelector: {matchLabels: {app: gw}}}"), "warning spec.ingress[0].from[1]"},
		{"some pods here and there", "selectors-or", clients + gateway + podOf("gateways", "c", "{app: client}", container) + ingress("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}}, {podSelector: {matchLabels: {app: client}}}"), "info spec.ingress[0].from[1]"},

		{"an empty selector without pods", "peer-matches-nothing", strings.TrimPrefix(ingress("{podSelector: {}}"), sep), "info spec.ingress[0].from[0]"},
		{"an empty selector with an empty expression list", "peer-matches-nothing", strings.TrimPrefix(ingress("{podSelector: {matchLabels: {}, matchExpressions: []}}"), sep), "info spec.ingress[0].from[0]"},
		{"labels, and no pods at all", "peer-matches-nothing", strings.TrimPrefix(ingress("{podSelector: {matchLabels: {app: x}}}"), sep), "info spec.ingress[0].from[0].podSelector"},
		{"labels, and other pods", "peer-matches-nothing", clients + ingress("{podSelector: {matchLabels: {app: x}}}"), "warning spec.ingress[0].from[0].podSelector"},
		{"a policy alone", "selects-nothing", strings.TrimPrefix(np("{podSelector: {matchLabels: {app: x}}}"), sep), "info spec.podSelector"},
		{"a policy beside other pods", "selects-nothing", clients + np("{podSelector: {matchLabels: {app: x}}}"), "warning spec.podSelector"},

		{"a peer on the host network", "peer-on-host-network", clients + onHost + egress("{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: exporter}}}], ports: [{port: 9100}]}"), "warning spec.egress[0].to[0]"},
		{"is not reported twice", "peer-matches-nothing", clients + onHost + egress("{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: exporter}}}]}"), ""},
		{"some of the peers", "peer-on-host-network", clients + onHost + podOf("ops", "e2", "{app: exporter}", container) + egress("{to: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [exporter]}]}}]}"), "info spec.egress[0].to[0]"},
		{"all pods of a namespace", "peer-on-host-network", clients + onHost + podOf("ops", "e2", "{app: exporter}", container) + egress("{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]}"), ""},

		{"DNS servers on another port", "dns-forgotten", clients + dns5353 + egress(toDNSPorts(53)), "warning spec.egress"},
		{"DNS servers on another port, by rule", "service-port", clients + dns5353 + egress(toDNSPorts(53)), "warning spec.egress[0].ports[0]"},
		{"DNS servers on another port, allowed", "dns-forgotten", clients + dns5353 + egress(toDNSPorts(5353)), ""},
		{"DNS servers on another port, allowed, by rule", "service-port", clients + dns5353 + egress(toDNSPorts(5353)), ""},
		{"a Service's port", "service-port", clients + service + np("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"), "warning spec.ingress[0].ports[0]"},
		{"a Service's port, egress", "service-port", clients + service + egress("{to: [{podSelector: {}}], ports: [{port: 80, protocol: TCP}]}"), "warning spec.egress[0].ports[0]"},
		{"a Service's port of another protocol", "service-port", clients + service + np("{podSelector: {}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}"), ""},
		{"both ports", "service-port", clients + service + np("{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 9000}]}]}"), ""},
		{"the pods' port", "service-port", clients + service + np("{podSelector: {}, ingress: [{ports: [{port: 9000}]}]}"), ""},
		{"a Service's port in a range", "service-port", clients + service + np("{podSelector: {}, ingress: [{ports: [{port: 79, endPort: 90}]}]}"), "warning spec.ingress[0].ports[0]"},
		{"both ports in a range", "service-port", clients + service + np("{podSelector: {}, ingress: [{ports: [{port: 79, endPort: 9001}]}]}"), ""},
		{"a node port", "service-port", clients + strings.Replace(service, "targetPort: 9000", "targetPort: 9000, nodePort: 30080", 1) + np("{podSelector: {}, ingress: [{ports: [{port: 30080}]}]}"), "warning spec.ingress[0].ports[0]"},
		{"a node port among the peers'", "service-port", clients + strings.Replace(service, "targetPort: 9000", "targetPort: 9000, nodePort: 30080", 1) + egress("{to: [{podSelector: {}}], ports: [{port: 30000, endPort: 32767}]}"), "warning spec.egress[0].ports[0]"},
		{"a cluster IP", "service-address", clients + strings.Replace(service, "selector", "clusterIP: 10.96.0.7, selector", 1) + egress("{to: [{ipBlock: {cidr: 10.96.0.7/32}}]}"), "warning spec.egress[0].to[0].ipBlock"},
		{"an IPv6 cluster IP", "service-address", clients + strings.Replace(service, "selector", "clusterIPs: ['fd00::7'], selector", 1) + egress("{to: [{ipBlock: {cidr: 'fd00::7/128'}}]}"), "warning spec.egress[0].to[0].ipBlock"},
		{"a load balancer's address", "service-address", clients + strings.Replace(service, "selector", "externalIPs: [203.0.113.7], selector", 1) + egress("{to: [{ipBlock: {cidr: 203.0.113.7/32}}]}"), "warning spec.egress[0].to[0].ipBlock"},
		{"a block that holds a cluster IP", "service-address", clients + strings.Replace(service, "selector", "clusterIP: 10.96.0.7, selector", 1) + egress("{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}"), ""},
		{"to anywhere", "service-port", clients + service + egress("{ports: [{port: 80}]}"), ""},

		{"the node's own cache by its address", "dns-forgotten", clients + sep + coreDNS + egress("{to: [{ipBlock: {cidr: 169.254.20.10/32}}], ports: [{port: 53, protocol: UDP}]}"), ""},
		{"the node's own cache by a wider block", "dns-forgotten", clients + sep + coreDNS + egress("{to: [{ipBlock: {cidr: 169.254.20.0/24}}]}"), ""},
		{"the metadata service is no DNS", "dns-forgotten", clients + sep + coreDNS + egress("{to: [{ipBlock: {cidr: 169.254.169.254/32}}]}"), "warning spec.egress"},
		{"a cache on the nodes, and no rule", "dns-forgotten", clients + sep + coreDNS + nodeCache + egress("{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}"), "info spec.egress"},
		{"Internet only, DNS known", "dns-forgotten", clients + sep + coreDNS + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, "+private+"}}]}"), "warning spec.egress"},
		{"Internet only, DNS not known", "dns-forgotten", clients + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, "+private+"}}]}"), "warning spec.egress"},
		{"Internet and DNS", "dns-forgotten", clients + sep + coreDNS + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, "+private+"}}]}, "+toDNS), ""},
		{"everything", "dns-forgotten", clients + sep + coreDNS + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}"), ""},
		{"a resolver outside", "dns-forgotten", clients + egress("{to: [{ipBlock: {cidr: 203.0.113.53/32}}], ports: [{port: 53, protocol: UDP}]}"), ""},

		{"everything less the private ranges", "block-covers-cluster", clients + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, "+private+"}}]}"), ""},
		{"everything less two of the private ranges", "block-covers-cluster", clients + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [172.16.0.0/12, 192.168.0.0/16]}}]}"), "info spec.egress[0].to[0].ipBlock"},
		{"everything less halves of the private ranges", "block-covers-cluster", clients + egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/9, 10.128.0.0/9, 172.16.0.0/12, 192.168.0.0/16]}}]}"), ""},
		{"everything IPv6 less the local ranges", "block-covers-cluster", clients + egress("{to: [{ipBlock: {cidr: '::/0', except: ['fc00::/7', 'fe80::/10']}}]}"), ""},
		{"a block that may hold pods", "block-covers-cluster", clients + egress("{to: [{ipBlock: {cidr: 10.20.0.0/16}}]}"), ""},

		{"an empty egress", "empty-rules", clients + np("{podSelector: {}, egress: []}"), "warning spec.egress"},
		{"an empty egress beside rules for ingress", "empty-rules", clients + np("{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: []}"), "warning spec.egress"},
		{"an empty ingress", "empty-rules", clients + np("{podSelector: {}, policyTypes: [Egress], ingress: []}"), "warning spec.ingress"},
		{"an empty ingress that isolates", "empty-rules", clients + np("{podSelector: {}, ingress: []}"), ""},
		{"an empty egress that isolates", "empty-rules", clients + np("{podSelector: {}, policyTypes: [Egress], egress: []}"), ""},

		{"a chart's version", "versioned-label", clients + np("{podSelector: {matchLabels: {helm.sh/chart: shop-2.0.1}}}"), "warning spec.podSelector"},
		{"an application's version", "versioned-label", clients + ingress("{podSelector: {matchLabels: {app.kubernetes.io/version: '2.0'}}}"), "warning spec.ingress[0].from[0].podSelector"},
		{"a hash, by an expression", "versioned-label", clients + egress("{to: [{podSelector: {matchExpressions: [{key: pod-template-hash, operator: In, values: [abc]}]}}]}"), "warning spec.egress[0].to[0].podSelector"},
		{"that a hash is there", "versioned-label", clients + egress("{to: [{podSelector: {matchExpressions: [{key: pod-template-hash, operator: Exists}]}}]}"), ""},
		{"names that stay", "versioned-label", clients + np("{podSelector: {matchLabels: {app.kubernetes.io/name: shop, app.kubernetes.io/instance: a}}}"), ""},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			findings, _ := Run(read(t, tc.manifests), Options{})
			of := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Check != tc.check })
			switch {
			case tc.want == "" && len(of) > 0:
				t.Errorf("found %+v", of)
			case tc.want != "" && !slices.ContainsFunc(of, func(f Finding) bool { return string(f.Severity)+" "+f.Path == tc.want }):
				t.Errorf("not found; but %+v", findings)
			}
		})
	}
}

// TestPodCIDR: where the pods' block is known, blocks in it are reported and others are not.
func TestPodCIDR(t *testing.T) {
	for block, want := range map[string]string{
		"cidr: 10.20.0.0/16": "warning", "cidr: 10.0.0.0/8": "warning", "cidr: 10.99.0.0/16": "", "cidr: 0.0.0.0/0": "info",
		"cidr: 0.0.0.0/0, except: [10.20.0.0/16]": "", "cidr: 0.0.0.0/0, except: [10.20.0.0/17]": "info",
	} {
		m := &model.Manifests{Namespace: "default", Addressing: model.Addressing{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}}}
		if err := m.Read("test", strings.NewReader(clients+egress("{to: [{ipBlock: {"+block+"}}]}"))); err != nil {
			t.Fatal(err)
		}
		c, err := m.Cluster()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, f := range findings(c, Options{}) {
			if f.Check == "block-covers-cluster" {
				got = string(f.Severity)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", block, got, want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	c := read(t, clients+np("{podSelector: {matchLabels: {app: x}}}")+podOf("other", "p", "{app: p}", container))
	for _, f := range findings(c, Options{Namespaces: []string{"other"}}) {
		if f.Object != "Namespace other" {
			t.Errorf("%+v", f)
		}
	}
	if len(findings(c, Options{Namespaces: []string{"other"}})) == 0 || len(findings(c, Options{Namespaces: []string{"other", "team"}})) != len(findings(c, Options{})) {
		t.Error("findings are missing")
	}
}
