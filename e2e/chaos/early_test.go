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

var (
	withoutStream = early{"without the stream", []string{tokenSetting + "=", holdSetting + "-"}}
	announced     = early{"announced", []string{tokenSetting + "-", holdSetting + "=0s"}}
	held          = early{"announced and held", []string{tokenSetting + "-", holdSetting + "-"}}
	earlyModes    = []early{withoutStream, announced, held}
)

// earlyPods is how many new pods each row has: PODS, or so many that two cores take hours.
func earlyPods(t *testing.T) int {
	if s := os.Getenv("PODS"); s != "" {
		n, err := strconv.Atoi(s)
		must(t, err)
		return n
	}
	return times(200, 20)
}

// TestEarly starts pods that connect at their first instruction to a pod which only knows them by its policy's group, on their own node and on
// another one. It counts the first packets that are lost. Each part writes a section of its own.
func TestEarly(t *testing.T) {
	t.Cleanup(func() { setAgents(t, held) })
	modes, bursts := earlyModes, []int{1, 10, 20}
	if testing.Short() {
		modes, bursts = []early{held}, []int{10}
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			setAgents(t, mode)
			var rows earlyRows
			for _, burst := range bursts {
				rows.measure(t, mode, "", burst, earlyPods(t), nil)
			}
			rows.report(t, mode.name)
		})
	}
	if !testing.Short() {
		t.Run("far API server", earlyFar)
		t.Run("leader", earlyLeader)
	}
	t.Run("kinds", earlyKinds)
	t.Run("servers", newServers)
	t.Run("reuse", addressTaken)
}

// earlyFar is as above with an API server that is further away.
func earlyFar(t *testing.T) {
	p := startProxy(t)
	t.Cleanup(func() {
		through(t, "-", "-")
		if err := engine.AwaitReady(context.Background(), test); err != nil {
			t.Error(err)
		}
	})
	p.set(trouble{write: 60 * time.Millisecond, event: 30 * time.Millisecond})
	through(t, "=172.30.0.10", "=7443")
	must(t, engine.AwaitReady(t.Context(), test))
	var rows earlyRows
	for _, mode := range earlyModes {
		setAgents(t, mode)
		for _, burst := range []int{1, 10} {
			rows.measure(t, mode, ", API server far away", burst, earlyPods(t), nil)
		}
	}
	rows.report(t, "far API server")
}

// earlyLeader is with a change of the leader while the pods start.
func earlyLeader(t *testing.T) {
	var rows earlyRows
	for _, how := range []struct {
		name string
		end  func(*corev1.Pod) error
	}{
		{", leader deleted", func(leader *corev1.Pod) error { return api.Delete(t.Context(), leader) }},
		{", leader killed", func(leader *corev1.Pod) error { return test.SignalPod(t.Context(), leader, "KILL") }},
	} {
		rows.measure(t, held, how.name, 20, min(earlyPods(t), 60), func() {
			leader := leaderNow(t)
			must(t, how.end(&leader))
		})
		awaitEngine(t)
	}
	rows.report(t, "leader")
}

// lostFirst reports whether an attempt lost its first packet. A late answer to the first one is none: the machine is busy.
func lostFirst(r reach.Result) bool { return r.Outcome != reach.Open || r.Answered > 1 }

// earlyRow is what became of some new pods.
type earlyRow struct {
	mode     early
	name     string
	burst    int
	lost     map[string]int // pods that lost a first packet, by protocol
	losers   map[string]int // how often a pod of this name did
	names    map[string]struct{}
	pods     int
	sameNode int // of those that lost one, on the node of the pod that they call
	starts   []time.Duration
}

func newRow(mode early, name string, burst int) *earlyRow {
	return &earlyRow{mode: mode, name: mode.name + name, burst: burst, lost: map[string]int{}, losers: map[string]int{}, names: map[string]struct{}{}}
}

// called is the pod that new pods call.
func called(t *testing.T) *corev1.Pod { return member(t, server, steady[0]) }

// callsAtOnce are the arguments of a probe that calls it.
func callsAtOnce(t *testing.T) []string {
	args := []string{"dial", "--timeout=5s"}
	for _, protocol := range []string{"tcp", "udp"} {
		for _, target := range targets(called(t), protocol, servedPort) {
			args = append(args, target.String())
		}
	}
	return args
}

// judge takes in what a new pod has printed, and returns the time of its first instruction.
func (r *earlyRow) judge(t *testing.T, p *corev1.Pod, printed string) (start time.Time) {
	t.Helper()
	lost := map[string]bool{}
	for _, result := range printedResults(t, printed) {
		if start.IsZero() || result.Start.Before(start) {
			start = result.Start
		}
		if lostFirst(result) {
			lost[result.Target.Protocol] = true
			t.Logf("%s on %s: %s %s after %s", p.Name, p.Spec.NodeName, result.Target, result.Outcome, result.Took.Round(time.Millisecond))
		}
	}
	if start.IsZero() {
		t.Fatalf("%s has called nothing: %s", p.Name, printed)
	}
	r.pods++
	r.names[p.Name] = struct{}{}
	for protocol := range lost {
		r.lost[protocol]++
	}
	if len(lost) > 0 {
		r.losers[p.Name]++
		if p.Spec.NodeName == called(t).Spec.NodeName {
			r.sameNode++
		}
	}
	return start
}

type earlyRows struct {
	text strings.Builder
	n    int
}

// measure starts pods in bursts, calls meanwhile after the first one was created, and adds a row.
func (rows *earlyRows) measure(t *testing.T, mode early, name string, burst, pods int, meanwhile func()) {
	t.Helper()
	rows.n++
	row := newRow(mode, name, burst)
	for row.pods < pods {
		// Pods that start one by one are judged and removed ten at a time.
		row.start(t, fmt.Sprintf("early-%d-%d", rows.n, row.pods), max(burst, min(10, pods-row.pods)), meanwhile)
	}
	rows.add(t, row)
}

// start starts some pods at once or, one by one, each when the one before it has started.
func (r *earlyRow) start(t *testing.T, prefix string, n int, meanwhile func()) {
	t.Helper()
	var pods []*corev1.Pod
	created := map[string]time.Time{}
	for i := range n {
		p := pod(fmt.Sprintf("%s-%d", prefix, i), friend, steady[(r.pods+i)%len(steady)], callsAtOnce(t)...)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		created[p.Name] = time.Now()
		create(t, p)
		pods = append(pods, p)
		if r.burst == 1 {
			awaitPhase(t, p, corev1.PodRunning, corev1.PodSucceeded)
		}
	}
	if meanwhile != nil {
		meanwhile()
	}
	for _, p := range pods {
		awaitPhase(t, p, corev1.PodSucceeded)
		r.starts = append(r.starts, r.judge(t, p, printedBy(t, p, "probe")).Sub(created[p.Name]))
		remove(t, p)
	}
}

// awaitPhase waits until a pod is in one of some phases.
func awaitPhase(t *testing.T, p *corev1.Pod, phases ...corev1.PodPhase) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is %s", p.Name, phases), func(ctx context.Context) error {
		now, err := getPod(ctx, p.Name)
		if err == nil && !slices.Contains(phases, now.Status.Phase) {
			err = fmt.Errorf("it is %s", now.Status.Phase)
		}
		return err
	})
}

// printedResults are those that a probe has printed.
func printedResults(t *testing.T, printed string) []reach.Result {
	t.Helper()
	var out []reach.Result
	for line := range strings.Lines(printed) {
		var r reach.Result
		must(t, json.Unmarshal([]byte(line), &r))
		out = append(out, r)
	}
	return out
}

func printedBy(t *testing.T, p *corev1.Pod, container string) string {
	t.Helper()
	var printed string
	eventually(t, "logs of "+p.Name, func(ctx context.Context) (err error) {
		printed, err = cluster.Output(test.Kubectl(ctx, "-n", p.Namespace, "logs", p.Name, "-c", container))
		return err
	})
	return printed
}

// add adds a row. With the hold, no pod that starts known may lose a packet.
func (rows *earlyRows) add(t *testing.T, r *earlyRow) {
	t.Helper()
	unknown := unknownStarts(t)
	sum, known := 0, 0
	for name := range r.names {
		sum += unknown[name]
		known += max(0, r.losers[name]-unknown[name])
	}
	if r.mode.name == held.name && known > 0 {
		t.Errorf("%s, bursts of %d: %d pods started known and lost a first packet", r.name, r.burst, known)
	}
	start := "– | –"
	if n := len(r.starts); n > 0 {
		slices.Sort(r.starts)
		start = fmt.Sprintf("%d ms | %d ms", r.starts[n/2].Milliseconds(), r.starts[n*99/100].Milliseconds())
	}
	fmt.Fprintf(&rows.text, "| %s | %d | %d | %d | %d | %d | %d | %d | %s |\n", r.name, r.burst, r.pods, r.lost["tcp"], r.lost["udp"], r.sameNode, sum, known, start)
}

func (rows *earlyRows) report(t *testing.T, part string) {
	t.Helper()
	writeEarly(t, part, "| new pods | bursts of | pods | lost TCP | lost UDP | of these on the same node | started unknown | lost though known | start p50 | start p99 |\n"+
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"+rows.text.String())
}

// writeEarly writes a part's table into the report.
func writeEarly(t *testing.T, part, text string) {
	t.Helper()
	t.Logf("\n%s", text)
	if file := os.Getenv("EARLY_REPORT"); file != "" && !testing.Short() {
		must(t, writeSection(file, "early: "+part, text))
	}
}

// setAgents changes the agents' settings and waits until they have them.
func setAgents(t *testing.T, mode early) {
	t.Helper()
	_, err := cluster.Output(test.Kubectl(context.Background(), append([]string{"-n", engine.Namespace, "set", "env", "daemonset/kidoban-agent"}, mode.settings...)...))
	must(t, err)
	must(t, engine.AwaitReady(context.Background(), test))
}

// unknownStarts is how often pods of a name started before their addresses were known, since the agents started.
func unknownStarts(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, agent := range engineNow(t, "agent") {
		for line := range strings.Lines(printedBy(t, &agent, "agent")) {
			if !strings.Contains(line, "A pod starts before its addresses are known") {
				continue
			}
			_, rest, _ := strings.Cut(line, `"name":"`)
			name, _, found := strings.Cut(rest, `"`)
			if !found {
				t.Fatalf("a line without a pod: %s", line)
			}
			out[name]++
		}
	}
	return out
}
