//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestRevocation takes a permission away while connections use it: they are cut, and those beside them are not.
func TestRevocation(t *testing.T) {
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database)
	table := awaitInForce(t)[0]

	revoked := map[reach.Target]bool{}
	var watches []*cluster.Watch
	for _, pod := range pods(t, "backend") { // one on each node: one of them beside the database
		var hold []reach.Target
		for _, p := range table.Probes {
			if p.Source.Name != pod.Namespace+"/"+pod.Name {
				continue
			}
			switch p.Endpoint.Column {
			case matrix.Column{Group: "database", Port: "5432"}:
				revoked[p.Endpoint.Target] = true
				hold = append(hold, p.Endpoint.Target)
			case matrix.Column{Group: "frontend", Port: "8080"}:
				hold = append(hold, p.Endpoint.Target)
			}
		}
		watch, err := test.Watch(context.Background(), &pod, nil, hold, probeTimeout)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := watch.Stop(); err != nil {
				t.Error(err)
			}
		})
		if err := watch.Await(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		watches = append(watches, watch)
	}
	change(t, database, func() { database.Spec.Ingress[0].From[0].PodSelector = workload("frontend") })
	awaitInForce(t)
	for _, watch := range watches {
		eventually(t, "connections to the database are cut", func(context.Context) error {
			for target, r := range last(watch) {
				if revoked[target] && r.Outcome != reach.TimedOut {
					return fmt.Errorf("%s: %s", target, r.Outcome)
				}
			}
			return nil
		})
		for target, r := range last(watch) {
			if !revoked[target] && r.Outcome != reach.Open {
				t.Errorf("%s was allowed all the time: %s %s", target, r.Outcome, r.Error)
			}
		}
	}
}

// last is the last result of each target of a watch.
func last(watch *cluster.Watch) map[reach.Target]reach.Result {
	out := map[reach.Target]reach.Result{}
	for _, r := range watch.Results() {
		out[r.Target] = r
	}
	return out
}
