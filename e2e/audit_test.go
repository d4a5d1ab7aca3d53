//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestAuditedPolicy brings a policy in as users do: under audit, a look at what would be denied, and then enforced.
func TestAuditedPolicy(t *testing.T) {
	np := ingressPolicy("staged", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	np.Labels = map[string]string{"kidoban.dev/enforcement": "audit"}
	create(t, np)
	from, to := pods(t, "frontend")[0], pods(t, "database")[0]
	const port = 5432
	outcome := func(want reach.Outcome) {
		t.Helper()
		if r := dial(t, &from, &to, port); r.Outcome != want {
			t.Errorf("a connection to the database: %+v, want %s", r, want)
		}
	}
	if out := kidoban(t, 0, "status", "policy", "shop/staged", "--wait"); !strings.Contains(out, "audited since 20") {
		t.Errorf("status: %s", out)
	}
	outcome(reach.Open)
	question := []string{"explain", "shop/" + from.Name, fmt.Sprintf("shop/%s:%d", to.Name, port), "--live"}
	if out := kidoban(t, 0, question...); !strings.Contains(out, "if audited policies were enforced, it would be denied") || strings.Contains(out, "≠") {
		t.Errorf("explain: %s", out)
	}
	eventually(t, "an event of what would be denied", func(context.Context) error {
		out := kidoban(t, 0, "events", "--since", "1m", "--verdict", "AUDIT", "--policy", "shop/staged")
		if !strings.Contains(out, "AUDIT-DENY") || !strings.Contains(out, "(audited: NetworkPolicy shop/staged)") {
			return fmt.Errorf("the events are %q", out)
		}
		return nil
	})

	label := func(value string) {
		t.Helper()
		if _, err := cluster.Output(test.Kubectl(t.Context(), "-n", "shop", "label", "networkpolicy", "staged", "kidoban.dev/enforcement"+value, "--overwrite")); err != nil {
			t.Fatal(err)
		}
		kidoban(t, 0, "status", "policy", "shop/staged", "--wait")
	}
	label("-")
	outcome(reach.TimedOut)
	if out := kidoban(t, 1, question...); strings.Contains(out, "if audited") || strings.Contains(out, "≠") {
		t.Errorf("explain: %s", out)
	}
	label("=audit")
	outcome(reach.Open)
}
