package cli_test

import (
	"strings"
	"testing"
)

// explain decides by all tiers, and prints the chain of tiers with the rule that decides.
func TestExplainPrintsTheTiers(t *testing.T) {
	for _, tc := range []struct {
		policies, from, to, verdict string
		want                        []string
	}{
		{"names", "crawl/crawler", "10.70.0.10:53/UDP", "DENIED", []string{
			"denied by ClusterNetworkPolicy crawl-names, rule everything-else (spec.egress[1])",
			"Admin:         Deny by ClusterNetworkPolicy crawl-names, rule everything-else (spec.egress[1]), priority 20",
			"NetworkPolicy: not reached", "Baseline:      not reached"}},
		{"names", "crawl/crawler", "10.70.2.1:8080", "DENIED", []string{"rule everything-else"}},
		{"names", "crawl/crawler", "198.51.100.9:443", "DENIED", []string{
			"rule sources (spec.egress[0]) would allow it under the names news.example, *.feeds.example"}},
		{"names", "crawl/crawler", "[2001:db8:ff::1]:443", "ALLOWED", []string{"Admin:         no rule matches", "NetworkPolicy: not isolated"}},
		{"names", "crawl/crawler", "[2001:db8:ff::1]:25", "ALLOWED", nil},
		{"names-repaired", "crawl/crawler", "kube-system/resolver:53/UDP", "ALLOWED", []string{"allowed by ClusterNetworkPolicy crawl-names, rule dns (spec.egress[0])"}},
		{"names-repaired", "crawl/crawler", "shop/cart:8080", "ALLOWED", []string{"Admin:         Pass by ClusterNetworkPolicy crawl-names, rule pods (spec.egress[1])"}},
		{"names-repaired", "crawl/crawler", "198.51.100.9:443", "DENIED", []string{"under the names news.example"}},
		{"names-repaired", "crawl/crawler", "[2001:db8:ff::1]:25", "DENIED", []string{"rule everything-else (spec.egress[3])"}},
		{"baseline", "198.51.100.4", "shop/cart:8080", "ALLOWED", []string{"Baseline:      no rule matches"}},
		{"baseline", "crawl/crawler", "shop/cart:8080", "DENIED", []string{
			"denied by ClusterNetworkPolicy closed-by-default, rule no-pods (spec.ingress[0])",
			"Baseline:      Deny by ClusterNetworkPolicy closed-by-default, rule no-pods (spec.ingress[0]), priority 3"}},
		{"baseline", "192.168.7.1", "shop/cart:8080", "ALLOWED", nil},
		{"order", "shop/cart", "10.3.9.9:5432", "ALLOWED", []string{
			"not evaluated: ClusterNetworkPolicy.networking.k8s.aws sales", "allowed by ClusterNetworkPolicy sales, rule ledger"}},
		{"order", "shop/cart", "10.3.9.9:80", "ALLOWED", []string{"Pass by ClusterNetworkPolicy sales, rule teams-choice"}},
		{"order", "shop/cart", "10.3.9.7:5432", "ALLOWED", []string{"Pass by ClusterNetworkPolicy sales, rule teams-choice"}},
		{"order", "shop/cart", "10.3.1.1:80", "DENIED", []string{"denied by ClusterNetworkPolicy sales, rule rest"}},
		{"order", "shop/cart", "10.3.5.5:443", "DENIED", []string{"denied by ClusterNetworkPolicy sales, rule rest"}},
		{"order", "shop/cart", "198.51.100.1:443", "ALLOWED", nil},
		{"node", "shop/cart", "192.168.7.1:22", "DENIED", []string{"denied by ClusterNetworkPolicy no-nodes, rule nodes"}},
		{"node", "shop/cart", "192.168.7.1:10250", "ALLOWED", []string{"NetworkPolicies do not apply between a pod and its own node"}},
		{"node", "192.168.7.1", "shop/cart:22", "ALLOWED", []string{"a node always reaches the pods that run on it"}},
		{"node", "shop/cart", "shop/cart:8080", "ALLOWED", []string{"a pod always reaches itself"}},
		{"node", "shop/cart", "svc/shop/cart:80", "DENIED", []string{"denied by ClusterNetworkPolicy no-nodes, rule itself"}},
	} {
		t.Run(tc.policies+" "+tc.from+" "+tc.to, func(t *testing.T) {
			got := run(nil, "explain", "-f", "testdata/tiers/world.yaml", "-f", "testdata/tiers/"+tc.policies+".yaml", tc.from, tc.to)
			for _, want := range append(tc.want, tc.verdict+"  ") {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in\n%s", want, got)
				}
			}
		})
	}
}

// diff compares what ClusterNetworkPolicies allow, exactly.
func TestDiffOfTheTiers(t *testing.T) {
	got := run(nil, "diff", "--base", "testdata/tiers/world.yaml", "--base", "testdata/tiers/names.yaml", "-f", "testdata/tiers/world.yaml", "-f", "testdata/tiers/names-repaired.yaml")
	for _, want := range []string{
		"~ ClusterNetworkPolicy crawl-names", "+   crawl/crawler   kube-system/resolver   all ports", "+   crawl/crawler   shop/cart              all ports",
		"-   crawl/crawler   ::/0   all ports   2^128", "exit code 1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if got := run(nil, "diff", "--base", "testdata/tiers/world.yaml", "-f", "testdata/tiers/world.yaml", "-f", "testdata/tiers/names.yaml"); !strings.Contains(got, "Ports that become reachable by name") ||
		!strings.Contains(got, "+   crawl/crawler   *.feeds.example   TCP 443") || strings.Contains(got, "not reachable by name") {
		t.Errorf("the names are not among the changes:\n%s", got)
	}
	if got := run(nil, "diff", "--base", "testdata/tiers/world.yaml", "--base", "testdata/tiers/names.yaml", "-f", "testdata/tiers/world.yaml"); !strings.Contains(got, "-   crawl/crawler   news.example      TCP 443") {
		t.Errorf("the names are not among the losses:\n%s", got)
	}
	if got := run(nil, "diff", "--base", "testdata/tiers/world.yaml", "--base", "testdata/tiers/names.yaml", "-f", "testdata/tiers/world.yaml"); !strings.Contains(got, "- ClusterNetworkPolicy crawl-names") {
		t.Errorf("a policy that is only in the base is not removed:\n%s", got)
	}
}

// No command evaluates a policy that is spelt as another kind's, and the error gives its file, its line and the right spelling.
func TestEveryCommandReadsClusterPoliciesStrictly(t *testing.T) {
	text := []byte("apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: wide}\nspec:\n  tier: Admin\n  priority: 1\n" +
		"  subject: {namespaces: {}}\n  egress:\n  - action: Accept\n    to: [{networks: [0.0.0.0/0]}]\n    ports: [{portNumber: {protocol: TCP, port: 443}}]\n")
	for _, args := range [][]string{
		{"lint"}, {"explain", "crawl/crawler", "shop/cart:8080"}, {"matrix"}, {"diff", "--base", "testdata/tiers/world.yaml"},
	} {
		got := run(text, append(args, "-f", "testdata/tiers/world.yaml", "-f", "-")...)
		for _, want := range []string{"stdin: document 1: ClusterNetworkPolicy wide: line 11: spec.egress[0].ports", "protocols[].tcp.destinationPort.number"} {
			if !strings.Contains(got, want) {
				t.Errorf("%v: %q is not in\n%s", args, want, got)
			}
		}
	}
}
