package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

func read(t testing.TB, text string) *model.Cluster {
	t.Helper()
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("test", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func findings(c *model.Cluster, o Options) []Finding {
	out, _ := Run(c, o)
	return out
}

// A cluster of which nothing is to be said.
const good = `
apiVersion: v1
kind: Pod
metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {containers: [{name: dns, ports: [{name: dns, containerPort: 53, protocol: UDP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: [{name: web, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: a}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: a}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: http}]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{port: 53, protocol: UDP}, {port: 53}]
`

func TestNothingIsFoundWhereNothingIsWrong(t *testing.T) {
	for _, f := range findings(read(t, good), Options{}) {
		t.Errorf("%+v", f)
	}
}

// Each change to what is good is found by the check that is for it.
func TestEachCheckFindsItsOwn(t *testing.T) {
	for _, tc := range []struct{ check, old, new string }{
		{"invalid", "from: [{podSelector: {matchLabels: {app: web}}}]", "from: [{ipBlock: {cidr: 10.0.0.0/40}}]"},
		{"ignored-rules", "podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]", "podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress]"},
		{"empty-rules", "spec: {podSelector: {}, policyTypes: [Ingress, Egress]}", "spec: {podSelector: {}, egress: []}"},
		{"peer-on-host-network", "from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: http}]\n  egress", "from: [{podSelector: {matchLabels: {app: agent}}}]\n    ports: [{port: http}]\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: agent, namespace: a, labels: {app: agent}}\nspec: {hostNetwork: true, containers: [{name: c}]}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: egress, namespace: a}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress"},
		{"versioned-label", "from: [{podSelector: {matchLabels: {app: web}}}]", "from: [{podSelector: {matchLabels: {app: web, helm.sh/chart: web-1.2.3}}}]"},
		{"service-port", "ports: [{port: http}]\n  egress", "ports: [{port: 8000}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a}\nspec: {selector: {app: web}, ports: [{port: 8000, targetPort: http}]}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: egress, namespace: a}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress"},
		{"selects-nothing", "podSelector: {matchLabels: {app: web}}\n", "podSelector: {matchLabels: {app: wbe}}\n"},
		{"selects-host-network", "spec: {containers: [{name: web,", "spec: {hostNetwork: true, containers: [{name: web,"},
		{"peer-matches-nothing", "from: [{podSelector: {matchLabels: {app: web}}}]", "from: [{podSelector: {matchLabels: {app: wbe}}}]"},
		{"selectors-or", "kube-system}}, podSelector", "kube-system}}}, {podSelector"},
		{"open-peer", "from: [{podSelector: {matchLabels: {app: web}}}]", "from: [{namespaceSelector: {}}]"},
		{"named-port", "port: http}]\n  egress", "port: https}]\n  egress"},
		{"port-protocol", "[{port: 53, protocol: UDP}, {port: 53}]", "[{port: 53}]"},
		{"block-covers-cluster", "from: [{podSelector: {matchLabels: {app: web}}}]", "from: [{ipBlock: {cidr: 0.0.0.0/0}}]"},
		{"dns-forgotten", "ports: [{port: 53, protocol: UDP}, {port: 53}]", "ports: [{port: 443}]"},
		{"shadowed-rule", "ports: [{port: http}]\n  egress", "ports: [{port: http}]\n  - from: [{podSelector: {matchLabels: {app: web}}}]\n  egress"},
		{"enforcement", "{name: default-deny,", "{name: default-deny, labels: {kidoban.dev/enforcement: Audit},"},
		{"no-default-deny", "spec: {podSelector: {}, policyTypes: [Ingress, Egress]}", "spec: {podSelector: {matchLabels: {app: none}}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: other, namespace: a}\nspec: {containers: [{name: c}]}"},
	} {
		t.Run(tc.check, func(t *testing.T) {
			if strings.Count(good, tc.old) != 1 {
				t.Fatalf("%q stands %d times in what is good", tc.old, strings.Count(good, tc.old))
			}
			findings, _ := Run(read(t, strings.Replace(good, tc.old, tc.new, 1)), Options{})
			if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Check == tc.check && f.Fix != "" }) {
				t.Errorf("not found; but %+v", findings)
			}
			skipped, _ := Run(read(t, strings.Replace(good, tc.old, tc.new, 1)), Options{Skip: []string{tc.check}})
			if slices.ContainsFunc(skipped, func(f Finding) bool { return f.Check == tc.check }) {
				t.Error("found although it is left out")
			}
		})
	}
}

// An audited policy is checked as if it were enforced.
func TestAnAuditedPolicyIsOnlyWorthKnowing(t *testing.T) {
	audited := strings.Replace(good, "{name: default-deny,", "{name: default-deny, labels: {kidoban.dev/enforcement: audit},", 1)
	if got := findings(read(t, audited), Options{}); len(got) != 1 || got[0].Check != "enforcement" || got[0].Severity != Info {
		t.Errorf("%+v", got)
	}
}

// The servers that are known may be of another family than the pods: a Deployment's are given IPv4 addresses.
func TestDNSServersOfAnotherFamily(t *testing.T) {
	const servers = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec: {template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {containers: [{name: dns}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a}
spec: {containers: [{name: web}]}
status: {phase: Running, podIPs: [{ip: "fd00::1"}]}
`
	const policy = `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: a}
`
	for name, tc := range map[string]struct {
		policy string
		found  bool
	}{
		"the pod is open":           {"", false},
		"a rule has DNS's port":     {policy + "spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]}", false},
		"no rule has DNS's port":    {policy + "spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}", true},
		"only ingress is isolated":  {policy + "spec: {podSelector: {}, policyTypes: [Ingress]}", false},
		"nothing may go out at all": {policy + "spec: {podSelector: {}, policyTypes: [Egress]}", true},
	} {
		t.Run(name, func(t *testing.T) {
			findings, _ := Run(read(t, servers+tc.policy), Options{})
			if got := slices.ContainsFunc(findings, func(f Finding) bool { return f.Check == "dns-forgotten" }); got != tc.found {
				t.Errorf("found %v: %+v", got, findings)
			}
		})
	}
}

func BenchmarkLintBigCluster(b *testing.B) {
	var text strings.Builder
	for n := range 100 {
		for w := range 20 {
			fmt.Fprintf(&text, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app-%[2]d, namespace: ns-%[1]d}\nspec: {replicas: 10, template: {metadata: {labels: {app: app-%[2]d}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}}}\n---\n", n, w)
			fmt.Fprintf(&text, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: app-%[2]d, namespace: ns-%[1]d}\nspec: {podSelector: {matchLabels: {app: app-%[2]d}}, ingress: [{from: [{podSelector: {matchLabels: {app: app-0}}}, {namespaceSelector: {matchLabels: {team: t}}, podSelector: {matchLabels: {app: app-1}}}], ports: [{port: http}]}]}\n---\n", n, w)
		}
	}
	c := read(b, text.String())
	for b.Loop() {
		Run(c, Options{})
	}
}

// A pipeline may compare the output with an earlier one.
func TestWhatIsToldIsTheSameEachTime(t *testing.T) {
	c := read(t, strings.Replace(good, "{matchLabels: {app: web}}\n  policyTypes", "{matchLabels: {app: x1, tier: x2, zone: x3}}\n  policyTypes", 1))
	first, _ := Run(c, Options{})
	for range 20 {
		if again, _ := Run(c, Options{}); !slices.Equal(again, first) {
			t.Fatalf("%+v, and before %+v", again, first)
		}
	}
}
