//go:build e2e

package chaos

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/engine"
)

// A fault is something that goes wrong while traffic goes on.
type fault struct {
	name    string
	promise promise
	short   bool // part of `make e2e`
	run     func(*testing.T, *trial)
}

// A promise says what must not happen, whatever else does.
type promise struct {
	passes, drops bool   // none is wrong
	why           string // where one is not given
}

var (
	nothingWrong = promise{passes: true, drops: true}
	nothingOpen  = func(why string) promise { return promise{passes: true, why: why} }
	noPromise    = func(why string) promise { return promise{why: why} }
)

func faults() []fault {
	return []fault{
		{"agents killed", nothingWrong, true, agentsKilled},
		{"agents hung", nothingWrong, false, agentsHung},
		{"leading controller killed", nothingWrong, false, leaderKilled},
		{"agents and controllers gone, pods come and go", nothingWrong, false, bothGone},
		{"API server and etcd stopped", nothingWrong, false, apiStopped},
		{"etcd restored from an older snapshot", nothingWrong, false, etcdRestored},
		{"watches expired by compaction", nothingWrong, false, watchesExpired},
		{"API slow and failing", nothingWrong, false, apiFailing},
		{"roles taken away", nothingWrong, false, rolesTaken},
		{"node rebooted", nothingWrong, false, nodeRebooted},
		{"runtimes, kubelets and kube-proxies killed", nothingWrong, false, runtimesKilled},
		{"pods rolled at once", nothingWrong, false, podsRolled},
		{"addresses used again at once", nothingWrong, false, addressesReused},
		{"namespaces relabelled in a storm", nothingWrong, false, namespacesRelabelled},
		{"policies created and deleted in a storm", nothingWrong, true, policiesStorm},
		{"disk full for flow logs", nothingWrong, false, diskFull},
		{"observer killed, hung, its disk full", nothingWrong, false, observerFails},
		{"a pod floods with denied packets", nothingWrong, false, flood},
		{"conntrack table full", nothingOpen("the kernel drops new connections, whatever policies say"), false, conntrackFull},
	}
}

// A trial is one fault's run.
type trial struct {
	traffic *traffic
	canary  *canary
	heal    time.Duration
	rows    []row // beside the traffic's own
}

// aside adds what was counted beside the steady traffic.
func (x *trial) aside(name string, p promise, counted tally) {
	x.rows = append(x.rows, row{name: name, promise: p, tally: counted, heal: -1})
}

// briefly is how long a storm lasts.
func briefly() time.Duration {
	if testing.Short() {
		return 4 * time.Second
	}
	return 10 * time.Second
}

var toggled canary // the change of policy canary lasts from one fault to the next

func TestChaos(t *testing.T) {
	for _, f := range faults() {
		if testing.Short() && !f.short {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			x := &trial{traffic: startTraffic(t), canary: &toggled, heal: -1}
			start := time.Now()
			f.run(t, x)
			counted := x.traffic.take(t)
			x.traffic.stop(t)
			var lines strings.Builder
			for _, row := range append([]row{{name: f.name, promise: f.promise, tally: counted, heal: x.heal}}, x.rows...) {
				row.check(t)
				lines.WriteString(row.line())
			}
			t.Logf("after %s:\n%s", time.Since(start).Round(time.Second), lines.String())
			if file := os.Getenv("CHAOS_REPORT"); file != "" {
				must(t, report{f.name: lines.String()}.write(file))
			}
		})
	}
}

// engineNow are kidoban's pods of a half, agent or controller, that run now.
func engineNow(t *testing.T, component string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	must(t, api.List(t.Context(), &list, client.InNamespace(engine.Namespace), client.MatchingLabels{
		"app.kubernetes.io/part-of": "kidoban", "app.kubernetes.io/component": component,
	}))
	return list.Items
}

func keyOf(o client.Object) client.ObjectKey { return client.ObjectKeyFromObject(o) }

// awaitEngine waits until both halves are ready, all pods of them.
func awaitEngine(t *testing.T) {
	t.Helper()
	eventually(t, "both halves are ready", func(context.Context) error {
		for _, component := range []string{"agent", "controller"} {
			for _, pod := range engineNow(t, component) {
				if !isReady(&pod) {
					return errNotReady(pod.Name)
				}
			}
		}
		return nil
	})
	must(t, engine.AwaitReady(t.Context(), test))
}

type errNotReady string

func (e errNotReady) Error() string { return string(e) + " is not ready" }
