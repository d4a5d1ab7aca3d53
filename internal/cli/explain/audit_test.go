package explain

import (
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

const staged = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: db, ports: [{containerPort: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: staged, namespace: shop, labels: {kidoban.dev/enforcement: audit}}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-egress, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: to-web, labels: {kidoban.dev/enforcement: audit}}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress: [{action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]
`

func TestAuditedPoliciesAreExplainedBesideTheEnforcedOnes(t *testing.T) {
	m := &model.Manifests{Namespace: "shop"}
	if err := m.Read("staged", strings.NewReader(staged)); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		from, to      string
		now, enforced Verdict // enforced is empty where nothing would change
		text          string
	}{
		{"web", "db:5432", Allowed, Denied, "audit: if audited policies were enforced, it would be denied:\n\n  ✘ Ingress of shop/db: denied"},
		{"db", "web:80", Denied, Allowed, "audit: if audited policies were enforced, it would be allowed:\n\n  ✔ Egress of shop/db: allowed by ClusterNetworkPolicy to-web"},
		{"web", "192.0.2.1:80", Allowed, "", ""},
	} {
		answer, err := Ask(c, "shop", tc.from, tc.to)
		if err != nil {
			t.Fatal(err)
		}
		f := &answer.Flows[0]
		var would Verdict
		if f.IfEnforced != nil {
			would = f.IfEnforced.Verdict
		}
		if f.Verdict != tc.now || would != tc.enforced {
			t.Errorf("%s → %s: %s, and %q if enforced; want %s and %q", tc.from, tc.to, f.Verdict, would, tc.now, tc.enforced)
		}
		var out strings.Builder
		write(&out, false, answer)
		if !strings.Contains(out.String(), tc.text) {
			t.Errorf("%s → %s: %s\nlacks %q", tc.from, tc.to, out.String(), tc.text)
		}
	}
}
