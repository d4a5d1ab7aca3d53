//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// selectorEdited takes a server out of its policy by the policy's podSelector and puts it back, again and again. Callers are let in all the
// time, and their connections stay open; a stranger's connection, made while nothing isolates the server, is cut.
func selectorEdited(t *testing.T) []caseRow {
	policy := ingress("edited", "edited", caller, tcp(servedPort))
	create(t, policy, servingPod("edited", "edited", steady[0]))
	startCallers(t)
	to := targets(awaitPod(t, "edited"), "tcp", servedPort)
	selectPods := func(r string) {
		t.Helper()
		before := policy.DeepCopy()
		policy.Spec.PodSelector = *role(r)
		must(t, api.Patch(t.Context(), policy, client.MergeFrom(before)))
	}
	strangersGet := func(outcome reach.Outcome) {
		t.Helper()
		eventually(t, fmt.Sprintf("strangers' calls are %s", outcome), func(ctx context.Context) error {
			for _, node := range steady {
				if err := want(ctx, member(t, stranger, node), to, outcome); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, node := range steady {
		eventually(t, "callers are let in", func(ctx context.Context) error { return want(ctx, member(t, caller, node), to, reach.Open) })
	}
	strangersGet(reach.TimedOut)

	var sum tally
	stop := watchAll(t, caller, to)
	for range times(20, 1) {
		selectPods("nobody")
		strangersGet(reach.Open)
		w, err := test.WatchEvery(context.Background(), trafficInterval, member(t, stranger, steady[1]), nil, to, probeTimeout)
		must(t, err)
		await(t, w, 2)
		selectPods("edited")
		strangersGet(reach.TimedOut)
		for _, node := range steady {
			sum.add(dial(t, member(t, stranger, node), false, to...))
		}
		eventually(t, "the stranger's connections are cut", func(context.Context) error {
			cut := 0
			for _, r := range w.Results() {
				if r.Outcome != reach.Open {
					cut++
				}
			}
			if cut < len(to) {
				return fmt.Errorf("%d of %d", cut, len(to))
			}
			return nil
		})
		_, err = w.Stop()
		must(t, err)
	}
	for _, r := range stop() {
		sum.count(caller, r, true)
	}
	return []caseRow{{"a policy's podSelector edited to match nothing and back", nothingWrong, sum, nil}}
}

// watchAll calls targets from the pods of a role on the steady nodes, and holds connections to them, until stop, which returns the results.
func watchAll(t *testing.T, role string, to []reach.Target) (stop func() []reach.Result) {
	t.Helper()
	var watches []*cluster.Watch
	var results []reach.Result
	stop = func() []reach.Result {
		for _, w := range watches {
			more, err := w.Stop()
			if err != nil {
				t.Error(err)
			}
			results = append(results, more...)
		}
		watches = nil
		return results
	}
	t.Cleanup(func() { stop() })
	for _, node := range steady {
		w, err := test.WatchEvery(context.Background(), trafficInterval, member(t, role, node), to, to, probeTimeout)
		must(t, err)
		watches = append(watches, w)
		await(t, w, 1)
	}
	return stop
}

// connectionsHeld keeps connections open for ten minutes while 50 policies that do not select their pods come and go.
func connectionsHeld(t *testing.T) []caseRow {
	const policies = 50
	apart := 10 * time.Minute / policies
	tr := startTraffic(t)
	for i := range policies {
		p := ingress(fmt.Sprintf("unrelated-%d", i), fmt.Sprintf("unrelated-%d", i%5), fmt.Sprintf("peer-%d", i%7), tcp(servedPort), udp(9999))
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		must(t, api.Create(t.Context(), p))
		tr.run(t, apart*2/3)
		must(t, api.Delete(t.Context(), p))
		tr.run(t, apart/3)
	}
	counted := tr.take(t)
	tr.stop(t)
	return []caseRow{{fmt.Sprintf("connections held for 10 minutes while %d unrelated policies come and go", policies), nothingWrong, counted, nil}}
}
