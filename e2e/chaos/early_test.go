//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
)

// early is how agents treat new pods.
type early struct {
	name     string
	settings []string // environment of the agents, as `kubectl set env` takes it
}

const (
	holdSetting  = "KIDOBAN_HOLD_TIMEOUT"
	tokenSetting = "KIDOBAN_CONTROLLER_TOKEN_FILE"
)

var earlyModes = []early{
	{"without the stream", []string{tokenSetting + "=", holdSetting + "-"}},
	{"announced", []string{tokenSetting + "-", holdSetting + "=0s"}},
	{"announced and held", []string{tokenSetting + "-", holdSetting + "-"}},
}

// firstPacketLost is after how long an answer shows that the first packet was lost. TCP sends its SYN again after a second; the probe repeats its
// datagram after reach.Resend.
var firstPacketLost = map[string]time.Duration{"tcp": 900 * time.Millisecond, "udp": reach.Resend}

// earlyPods is how many new pods each row has: PODS, or so many that two cores take an hour.
func earlyPods(t *testing.T) int {
	if s := os.Getenv("PODS"); s != "" {
		n, err := strconv.Atoi(s)
		must(t, err)
		return n
	}
	if testing.Short() {
		return 20
	}
	return 200
}

// TestEarly starts pods that connect at their first instruction to a pod which only knows them by its policy's group, on their own node and on
// another one. It counts the first packets that are lost.
func TestEarly(t *testing.T) {
	modes, bursts := earlyModes, []int{1, 10, 20}
	if testing.Short() {
		modes, bursts = modes[2:], []int{10}
	}
	to := member(t, server, steady[0])
	aim := slices.Concat(targets(to, "tcp", servedPort), targets(to, "udp", servedPort))
	t.Cleanup(func() { setAgents(t, earlyModes[2].settings) })
	var b strings.Builder
	b.WriteString("| new pods | bursts of | pods | lost TCP | lost UDP | of these on the same node | started unknown | start p50 | start p99 |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, mode := range modes {
		setAgents(t, mode.settings)
		for _, burst := range bursts {
			before := unknownStarts(t)
			sum := starters{}
			for sum.pods < earlyPods(t) {
				startBurst(t, burst, aim, &sum)
			}
			unknown := unknownStarts(t) - before
			slices.Sort(sum.starts)
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d ms | %d ms |\n", mode.name, burst, sum.pods, sum.lost["tcp"], sum.lost["udp"], sum.sameNode,
				unknown, sum.starts[len(sum.starts)/2].Milliseconds(), sum.starts[len(sum.starts)*99/100].Milliseconds())
			t.Logf("%s, bursts of %d: %+v, %d started unknown", mode.name, burst, sum.lost, unknown)
			if lost := max(sum.lost["tcp"], sum.lost["udp"]); mode.name == "announced and held" && lost > unknown {
				t.Errorf("%s, bursts of %d: %d pods lost a first packet, and only %d pods started unknown", mode.name, burst, lost, unknown)
			}
		}
	}
	t.Logf("\n%s", b.String())
	if file := os.Getenv("EARLY_REPORT"); file != "" && !testing.Short() {
		must(t, writeSection(file, "early", b.String()))
	}
}

// starters counts what became of new pods.
type starters struct {
	pods     int
	lost     map[string]int // pods that lost a first packet, by protocol
	sameNode int            // of these, on the node of the pod that they call
	starts   []time.Duration
}

// startBurst starts some pods at once and counts the first packets that they lose.
func startBurst(t *testing.T, n int, to []reach.Target, sum *starters) {
	t.Helper()
	if sum.lost == nil {
		sum.lost = map[string]int{}
	}
	args := []string{"dial", "--timeout=5s"}
	for _, target := range to {
		args = append(args, target.String())
	}
	var names []string
	created := map[string]time.Time{}
	for i := range n {
		p := pod(fmt.Sprintf("early-%d", sum.pods+i), friend, steady[(sum.pods+i)%len(steady)], args...)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		created[p.Name] = time.Now()
		must(t, api.Create(t.Context(), p))
		t.Cleanup(func() { remove(t, p) })
		names = append(names, p.Name)
	}
	for i, name := range names {
		var said string
		eventually(t, name+" has called", func(ctx context.Context) error {
			now, err := getPod(ctx, name)
			if err != nil {
				return err
			}
			if now.Status.Phase != corev1.PodSucceeded {
				return fmt.Errorf("it is %s", now.Status.Phase)
			}
			said, err = cluster.Output(test.Kubectl(ctx, "-n", namespace, "logs", name))
			return err
		})
		lost := map[string]bool{}
		start := time.Time{}
		for line := range strings.Lines(said) {
			var r reach.Result
			must(t, json.Unmarshal([]byte(line), &r))
			if start.IsZero() || r.Start.Before(start) {
				start = r.Start
			}
			if r.Outcome != reach.Open || r.Took > firstPacketLost[r.Target.Protocol] {
				lost[r.Target.Protocol] = true
			}
		}
		for protocol := range lost {
			sum.lost[protocol]++
		}
		if len(lost) > 0 && (sum.pods+i)%len(steady) == 0 {
			sum.sameNode++
		}
		sum.starts = append(sum.starts, start.Sub(created[name]))
		p, err := getPod(t.Context(), name)
		must(t, err)
		remove(t, p)
	}
	sum.pods += n
}

// setAgents changes the agents' settings and waits until they have them.
func setAgents(t *testing.T, settings []string) {
	t.Helper()
	_, err := cluster.Output(test.Kubectl(context.Background(), append([]string{"-n", engine.Namespace, "set", "env", "daemonset/kidoban-agent"}, settings...)...))
	must(t, err)
	must(t, engine.AwaitReady(context.Background(), test))
}

// unknownStarts is how many pods started before they were known, on all nodes since their agents started.
func unknownStarts(t *testing.T) int {
	t.Helper()
	sum := 0
	for _, node := range nodes {
		eventually(t, "metrics of "+node, func(ctx context.Context) error {
			names, err := cluster.Output(test.Kubectl(ctx, "-n", engine.Namespace, "get", "pods", "-l", "app.kubernetes.io/component=agent",
				"--field-selector=spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}"))
			if err != nil {
				return err
			}
			text, err := cluster.Output(test.Kubectl(ctx, "get", "--raw", "/api/v1/namespaces/"+engine.Namespace+"/pods/"+strings.TrimSpace(names)+":8162/proxy/metrics"))
			if err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				if value, ok := strings.CutPrefix(line, "kidoban_agent_unknown_pod_starts_total{"); ok {
					n, err := strconv.Atoi(strings.Fields(value)[1])
					must(t, err)
					sum += n
				}
			}
			return nil
		})
	}
	return sum
}
