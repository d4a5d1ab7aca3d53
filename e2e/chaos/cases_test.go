//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
)

// A churnCase is a change that clusters see all the time. Unlike in a fault, nothing is broken.
type churnCase struct {
	name  string
	short bool // part of `make e2e`
	run   func(*testing.T) []caseRow
}

func churnCases() []churnCase {
	return []churnCase{
		{"a Job recreated under its name with other labels", true, jobRecreated},
		{"a policy's podSelector edited to match nothing and back", true, selectorEdited},
		{"a pod in Terminating whose preStop hook connects", true, podTerminating},
		{"hostPort from allowed, denied and in-cluster sources", true, hostPorts},
		{"NodePort with externalTrafficPolicy Cluster and Local", true, nodePorts},
		{"addresses of completed pods reused", false, addressesOfCompletedPods},
		{"a running sandbox stopped through the CRI", true, sandboxStopped},
		{"new pods connect once at start while agents restart", false, newPods},
		{"short Jobs whose first packet counts", true, shortJobs},
		{"connections held while unrelated policies come and go", false, connectionsHeld},
	}
}

// TestChurn runs pods, Jobs and policies that come and go, as on any cluster, and counts connections that went wrong.
func TestChurn(t *testing.T) {
	for _, c := range churnCases() {
		if testing.Short() && !c.short {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			rows := c.run(t)
			lines := ""
			for _, r := range rows {
				row{name: r.name, promise: r.promise, tally: r.tally}.check(t)
				lines += r.line()
			}
			t.Logf("after %s:\n%s", time.Since(start).Round(time.Second), lines)
			if file := os.Getenv("CHAOS_REPORT"); file != "" {
				must(t, writeCases(file, rows))
			}
		})
	}
}

// A caseRow is a row of the table of cases.
type caseRow struct {
	name    string
	promise promise
	tally   tally
	first   *firstConnections // nil: not counted
}

// firstConnections are the first ones of new pods to destinations that policies allow. A lost one is not a wrong drop.
type firstConnections struct {
	ownNode, otherNode share
}

type share struct{ lost, of int }

func (s *share) add(o share) {
	s.lost += o.lost
	s.of += o.of
}

func (s share) String() string {
	if s.of == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d", s.lost, s.of)
}

const casesHead = "| case | promise | connections | wrong passes | wrong drops | first connections lost: own node | other node | on |\n|---|---|---:|---:|---:|---:|---:|---|\n"

func (r caseRow) line() string {
	own, other := "–", "–"
	if r.first != nil {
		own, other = r.first.ownNode.String(), r.first.otherNode.String()
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %s | %s | %s |\n", r.name, r.promise, r.tally.connections, r.tally.passes, r.tally.drops, own, other,
		time.Now().Format(time.DateOnly))
}

// writeCases puts rows into the table of a file, in the place of those of the same names, and leaves the others.
func writeCases(file string, rows []caseRow) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		old := strings.Count(line, " |") == strings.Count(strings.SplitN(casesHead, "\n", 2)[0], " |") &&
			!strings.HasPrefix(line, "| case ") && !strings.HasPrefix(line, "|-")
		if old {
			lines = append(lines, line)
		}
	}
	for _, r := range rows {
		same := func(line string) bool { return strings.HasPrefix(line, "| "+r.name+" |") }
		if i := slices.IndexFunc(lines, same); i >= 0 {
			lines[i] = r.line()
		} else {
			lines = append(lines, r.line())
		}
	}
	return writeSection(file, "churn", casesHead+strings.Join(lines, ""))
}

// times is how often a case repeats itself: n, or less where the run is a short one.
func times(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}

// calls are what a pod dials, by whether policies allow it.
type calls struct{ allowed, denied []reach.Target }

// args are those of a probe that dials all targets at the same time, and again until those that are allowed have answered. The time
// for each is shorter than TCP's first repetition, so that a lost packet is a lost connection.
func (c calls) args(rounds int) []string {
	args := []string{"dial", "--timeout=900ms", fmt.Sprintf("--rounds=%d", rounds)}
	for _, target := range c.allowed {
		args = append(args, "--until="+target.String())
	}
	for _, target := range slices.Concat(c.allowed, c.denied) {
		args = append(args, target.String())
	}
	return args
}

// judge counts the results of a pod of a node that made the calls. Allowed destinations must have answered in the last round; what the
// first round has lost is counted by itself.
func (c calls) judge(t *testing.T, pod *corev1.Pod, results []reach.Result, sum *tally, first *firstConnections) {
	t.Helper()
	round := len(c.allowed) + len(c.denied)
	if len(results) == 0 || len(results)%round != 0 {
		t.Errorf("pod %s has %d results of %d targets", pod.Name, len(results), round)
		return
	}
	for i, r := range results {
		allowed := slices.Contains(c.allowed, r.Target)
		if allowed && i < round && first != nil {
			s := &first.otherNode
			if onNodeOf(r.Target, pod.Spec.NodeName) {
				s = &first.ownNode
			}
			s.of++
			if r.Outcome != reach.Open {
				s.lost++
			}
		}
		if !allowed || r.Outcome == reach.Open || i >= len(results)-round {
			sum.count(pod.Name, r, allowed)
		}
	}
}

// onNodeOf reports whether a target is a pod of the node: n1 has the pods of 10.244.1.0/24 and fd44:0:0:1::/64.
func onNodeOf(target reach.Target, node string) bool {
	address := target.Address.Addr()
	index := address.AsSlice()[2]
	if address.Is6() {
		index = address.AsSlice()[7]
	}
	return fmt.Sprintf("n%d", index) == node
}

// podLogPath is where the kubelet keeps what a container wrote after a number of restarts.
func podLogPath(pod *corev1.Pod, container string, restarts int) string {
	return test.Dir(pod.Spec.NodeName, "var", "log", "pods", fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID), container, fmt.Sprintf("%d.log", restarts))
}

// loggedResults are what a probe has printed. Each line of a log has three words before what the container wrote.
func loggedResults(t *testing.T, log []byte) []reach.Result {
	t.Helper()
	var results []reach.Result
	for line := range strings.Lines(string(log)) {
		words := strings.SplitN(line, " ", 4)
		if len(words) < 4 || !strings.HasPrefix(words[3], "{") {
			continue
		}
		var r reach.Result
		must(t, json.Unmarshal([]byte(words[3]), &r))
		results = append(results, r)
	}
	return results
}

// finishedResults are those of a pod that has completed.
func finishedResults(t *testing.T, pod *corev1.Pod) []reach.Result {
	t.Helper()
	log, err := os.ReadFile(podLogPath(pod, pod.Spec.Containers[0].Name, 0))
	must(t, err)
	return loggedResults(t, log)
}

// awaitFinished waits until a pod has completed.
func awaitFinished(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	var done *corev1.Pod
	eventually(t, "pod "+name+" has completed", func(ctx context.Context) error {
		pod, err := getPod(ctx, name)
		if err == nil && pod.Status.Phase != corev1.PodSucceeded {
			err = fmt.Errorf("it is %s", pod.Status.Phase)
		}
		done = pod
		return err
	})
	return done
}

// setMode restarts all agents in a mode and waits until their container runtimes call them. The test's end restores the default.
func setMode(t *testing.T, mode string) {
	t.Helper()
	patch := func(env string) error {
		_, err := cluster.Output(test.Kubectl(context.Background(), "-n", engine.Namespace, "patch", "daemonset", "kidoban-agent", "-p", fmt.Sprintf(
			`{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"100%%"}},"template":{"spec":{"containers":[{"name":"agent","env":[%s]}]}}}}`, env)))
		if err == nil {
			err = engine.AwaitReady(context.Background(), test)
		}
		return err
	}
	if mode == "strict" {
		// kidoban's controllers, which no policy selects, are isolated too.
		controller := filepath.Join(test.Repo, "config", "components", "strict", "controller_policy_endpoint.yaml")
		_, err := cluster.Output(test.Kubectl(t.Context(), "apply", "-f", controller))
		must(t, err)
		t.Cleanup(func() {
			if _, err := cluster.Output(test.Kubectl(context.Background(), "delete", "-f", controller)); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		if err := patch(`{"name":"KIDOBAN_ENFORCING_MODE","$patch":"delete"}`); err != nil {
			t.Error(err)
		}
	})
	must(t, patch(fmt.Sprintf(`{"name":"KIDOBAN_ENFORCING_MODE","value":%q}`, mode)))
	awaitRuntime(t, nodes...)
}

// awaitRuntime waits until the agents of some nodes are ready and their container runtimes call them.
func awaitRuntime(t *testing.T, of ...string) {
	t.Helper()
	eventually(t, "the agents are connected to their container runtimes", func(ctx context.Context) error {
		connected := 0
		for _, agent := range engineNow(t, "agent") {
			if !slices.Contains(of, agent.Spec.NodeName) {
				continue
			}
			if !isReady(&agent) { // or one that ends beside its successor
				return errNotReady(agent.Name)
			}
			out, err := cluster.Output(test.Kubectl(ctx, "-n", agent.Namespace, "logs", agent.Name))
			if err != nil {
				return err
			}
			if !strings.Contains(out, "Connected to the container runtime") {
				return errNotReady(agent.Name)
			}
			connected++
		}
		if connected != len(of) {
			return fmt.Errorf("%d agents of %d", connected, len(of))
		}
		return nil
	})
}
