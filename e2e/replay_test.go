//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// recordedPair is a connection that TestReplayAndRecommend makes several times.
type recordedPair struct {
	from, to corev1.Pod
	port     uint16
}

// TestReplayAndRecommend records connections of the shop, replays policies that deny one of them, and applies the policies that are recommended.
func TestReplayAndRecommend(t *testing.T) {
	installObserver(t)
	frontend, backend, database := pods(t, "frontend")[0], pods(t, "backend")[0], pods(t, "database")[0]
	recorded := []recordedPair{{frontend, backend, 8000}, {backend, database, 5432}, {frontend, database, 5432}}
	began := time.Now().Add(-time.Second)
	record(t, connectToObserver(t), began, recorded)
	since := began.UTC().Format(time.RFC3339)

	t.Run("a policy that denies one pair", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policies.yaml")
		text := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: database, namespace: shop}\n" +
			"spec: {podSelector: {matchLabels: {app.kubernetes.io/name: database}}, ingress: [{from: [{podSelector: {matchLabels: {app.kubernetes.io/name: backend}}}]}]}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		type party struct{ Namespace, Name string }
		var report struct {
			Unchanged struct{ Connections uint64 }
			Changes   []struct {
				From, To    party
				Port        uint16
				After       string
				Connections uint64
			}
		}
		kidobanJSON(t, 1, &report, "replay", "-f", file, "--since", since)
		if len(report.Changes) != 1 || report.Unchanged.Connections < 6 {
			t.Fatalf("%+v", report)
		}
		c := report.Changes[0]
		if c.From != (party{"shop", "frontend"}) || c.To != (party{"shop", "database"}) || c.Port != 5432 || c.After != "Denied" || c.Connections < 3 {
			t.Errorf("%+v", c)
		}
		contains(t, kidoban(t, 1, "replay", "-f", file, "--since", since, "-o", "markdown"), "shop/frontend", "isolated by shop/database")
	})
	t.Run("the page's commands", func(t *testing.T) {
		runDocs(t, "observer")
		if _, err := store.AwaitInForce(t.Context(), inForceTimeout); err != nil {
			t.Error(err)
		}
	})
	t.Run("recommended policies", func(t *testing.T) {
		text, err := cluster.Output(kidobanCommand(t, t.Context(), "recommend", "-n", "shop", "--since", since))
		if err != nil {
			t.Fatal(err)
		}
		contains(t, text, "Proven:", "kind: NetworkPolicy")
		apply(t, text)
		if _, err := store.AwaitInForce(t.Context(), inForceTimeout); err != nil {
			t.Fatal(err)
		}
		checkReached(t, recorded)
		if r := dial(t, &backend, &frontend, 8080); r.Outcome != reach.TimedOut {
			t.Errorf("what was not recorded is not denied: %+v", r)
		}
	})
}

func checkReached(t *testing.T, recorded []recordedPair) {
	t.Helper()
	for _, p := range recorded {
		if r := dial(t, &p.from, &p.to, p.port); r.Outcome != reach.Open {
			t.Errorf("%s does not reach %s: %+v", p.from.Name, p.to.Name, r)
		}
	}
}

// record connects pairs until the observer has three connections of each since a time.
func record(t *testing.T, o *observer, since time.Time, recorded []recordedPair) {
	t.Helper()
	eventually(t, "the recorded connections", func(ctx context.Context) error {
		checkReached(t, recorded)
		var list observerapi.FlowList
		if err := o.get(ctx, observerapi.PathFlows, url.Values{"namespace": {"shop"}, "since": {since.UTC().Format(time.RFC3339)}}, &list); err != nil {
			return err
		}
		for _, p := range recorded {
			n := uint64(0)
			for i := range list.Flows {
				f := &list.Flows[i]
				if f.Source.Pod == p.from.Name && f.Destination.Pod == p.to.Name && f.Port == p.port && f.Sides == observerapi.Complete {
					n += f.Connections
				}
			}
			if n < 3 {
				return fmt.Errorf("%d connections from %s to %s", n, p.from.Name, p.to.Name)
			}
		}
		return nil
	})
}
