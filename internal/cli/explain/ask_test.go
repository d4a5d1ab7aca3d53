package explain

import (
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

const database = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec: {replicas: 3, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, ports: [{name: sql, containerPort: 5432}]}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: client}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: second, namespace: shop}
spec: {podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: db-1}}, policyTypes: [Ingress, Egress]}
`

func askDatabase(from, to string) (*Answer, error) {
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("database", strings.NewReader(database)); err != nil {
		return nil, err
	}
	c, err := m.Cluster()
	if err != nil {
		return nil, err
	}
	return Ask(c, "default", from, to)
}

// A workload is all of its pods: what holds for the first need not hold for the others.
func TestPodsOfAWorkloadThatAreJudgedDifferently(t *testing.T) {
	for name, tc := range map[string]struct{ from, to, want string }{
		"to a workload":      {"shop/client", "shop/db:sql", "client db-0 true, client db-1 false"},
		"from a workload":    {"shop/db", "shop/client:80", "db-0 client true, db-1 client false"},
		"to an address":      {"shop/db", "192.0.2.1:443", "db-0  true, db-1  false"},
		"from an address":    {"192.0.2.1", "shop/db:sql", " db-0 true,  db-1 false"},
		"to one of the pods": {"shop/client", "shop/db-2:sql", "client db-2 true"},
		"between replicas":   {"shop/db", "shop/db:sql", "db-1 db-0 false, db-2 db-0 true, db-0 db-1 false"},
		"to a Service":       {"shop/client", "svc/shop/db:5432/TCP", "client db-0 true, client db-1 false"},
	} {
		answer, err := askDatabase(tc.from, tc.to)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, f := range answer.Flows {
			allowed := "false"
			if f.Allowed {
				allowed = "true"
			}
			got = append(got, f.Source.Pod+" "+f.Destination.Pod+" "+allowed)
		}
		if text := strings.Join(got, ", "); text != tc.want || answer.Allowed == strings.Contains(text, "false") {
			t.Errorf("%s: %q, want %q; allowed %t", name, text, tc.want, answer.Allowed)
		}
	}
}

func TestTheWayOutIsOne(t *testing.T) {
	_, err := askDatabase("shop/client", "2001:db8::1")
	if err == nil || !strings.HasSuffix(err.Error(), "as [2001:db8::1]:443") {
		t.Error(err)
	}
}
