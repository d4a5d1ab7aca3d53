//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/kidoban/kidoban/e2e/reach"
)

// newPods starts pods on each of the steady nodes, one after another, that call with their first instruction, while agents restart. In mode
// standard a pod that starts without an agent is open, so there each restart is over before the node's next pod; in mode guarded the agent
// restarts while the pod starts.
func newPods(t *testing.T) []caseRow {
	c := newcomersMayCall(t)
	var rows []caseRow
	for _, mode := range []string{"standard", "guarded"} {
		t.Run(mode, func(t *testing.T) {
			setMode(t, mode)
			sums, firsts := map[string]*tally{}, map[string]*firstConnections{}
			for _, node := range steady {
				sums[node], firsts[node] = &tally{}, &firstConnections{}
			}
			t.Run("nodes", func(t *testing.T) {
				for _, node := range steady {
					t.Run(node, func(t *testing.T) {
						t.Parallel()
						newPodsOf(t, node, mode == "standard", c, sums[node], firsts[node])
					})
				}
			})
			var sum tally
			var first firstConnections
			for _, node := range steady {
				sum.add(*sums[node])
				first.ownNode.add(firsts[node].ownNode)
				first.otherNode.add(firsts[node].otherNode)
			}
			when := map[string]string{"standard": "between them", "guarded": "while pods start"}[mode]
			rows = append(rows, caseRow{fmt.Sprintf("100 new pods, one after another on each node, 10 restarts of agents %s, mode %s", when, mode), nothingWrong, sum, &first})
			awaitRuntime(t, nodes...)
		})
	}
	return rows
}

// newPodsOf starts 50 pods on a node, and restarts its agent five times.
func newPodsOf(t *testing.T, node string, wait bool, c calls, sum *tally, first *firstConnections) {
	for i := range 50 {
		if i%10 == 5 {
			restartAgent(t, node)
			if wait {
				awaitRuntime(t, node)
			}
		}
		p := pod(fmt.Sprintf("new-%s-%d", node, i), newcomer, node, c.args(enoughRounds)...)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		create(t, p)
		done := awaitFinished(t, p.Name)
		c.judge(t, done, finishedResults(t, done), sum, first)
		remove(t, p)
	}
}

// restartAgent deletes a node's agent; its DaemonSet starts another.
func restartAgent(t *testing.T, node string) {
	t.Helper()
	for _, agent := range engineNow(t, "agent") {
		if agent.Spec.NodeName == node && agent.DeletionTimestamp == nil {
			must(t, api.Delete(t.Context(), &agent))
		}
	}
}

// podTerminating deletes a friend whose preStop hook calls for a minute, and a server whose hook only waits, and which is called meanwhile.
// Policies select a pod until it has ended.
func podTerminating(t *testing.T) []caseRow {
	seconds := int64(times(60, 8))
	var c calls
	for _, node := range steady {
		c.allowed = append(c.allowed, targets(member(t, server, node), "tcp", servedPort)...)
		c.denied = append(c.denied, targets(member(t, stranger, node), "tcp", servedPort)...)
		c.denied = append(c.denied, targets(member(t, server, node), "tcp", shutPort)...)
	}
	hook := []string{"/probe", "dial", "--output=/proc/1/fd/1", "--timeout=1s", fmt.Sprintf("--rounds=%d", seconds)} // a round is as long as a denied call
	for _, target := range slices.Concat(c.allowed, c.denied) {
		hook = append(hook, target.String())
	}
	caller := servingPod("terminating-friend", friend, steady[0])
	caller.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: hook}}}
	called := servingPod("terminating-server", server, steady[1])
	called.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}}
	for _, p := range []*corev1.Pod{caller, called} {
		p.Spec.TerminationGracePeriodSeconds = ptr.To(seconds + 60)
		create(t, p)
	}
	caller, called = awaitPod(t, caller.Name), awaitPod(t, called.Name)
	to := targets(called, "tcp", servedPort)
	eventually(t, "friends are let in", func(ctx context.Context) error {
		return errors.Join(want(ctx, caller, c.allowed, reach.Open), want(ctx, member(t, friend, steady[0]), to, reach.Open), want(ctx, member(t, friend, steady[1]), to, reach.Open))
	})
	log, err := os.Open(podLogPath(caller, "probe", 0)) // before the kubelet removes it
	must(t, err)
	defer log.Close()

	for _, p := range []*corev1.Pod{caller, called} {
		must(t, api.Delete(t.Context(), p))
	}
	var incoming tally
	for end := time.Now().Add(time.Duration(seconds-2) * time.Second); time.Now().Before(end); {
		for _, node := range steady {
			incoming.add(dial(t, member(t, friend, node), true, to...))
			results, err := test.Dial(t.Context(), member(t, stranger, node), to, 500*time.Millisecond)
			must(t, err)
			for _, r := range results {
				incoming.count("stranger-"+node, r, false)
			}
		}
	}
	within(t, 3*time.Minute, "both pods are gone", func(ctx context.Context) error {
		for _, p := range []*corev1.Pod{caller, called} {
			if _, err := getPod(ctx, p.Name); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s: %v", p.Name, err)
			}
		}
		return nil
	})
	content, err := io.ReadAll(log)
	must(t, err)
	var outgoing tally
	for _, r := range loggedResults(t, content) {
		outgoing.count(caller.Name, r, slices.Contains(c.allowed, r.Target))
	}
	if rounds := outgoing.connections / (len(c.allowed) + len(c.denied)); rounds < int(seconds) {
		t.Errorf("the preStop hook has made %d rounds of calls, not %d", rounds, seconds)
	}
	return []caseRow{
		{fmt.Sprintf("a pod in Terminating whose preStop hook connects for %d s", seconds), nothingWrong, outgoing, nil},
		{"… a server in Terminating is called meanwhile", nothingWrong, incoming, nil},
	}
}

// addressesOfCompletedPods leaves a node few addresses and completed pods in the API, each with an address that a later pod gets while the
// status of the completed one still has it. A friend's address comes to a stranger, and a stranger's to a friend.
func addressesOfCompletedPods(t *testing.T) []caseRow {
	const bits, addresses = 28, 16
	shrinkAddresses(t, third, addresses)
	roles := callsByRole(t)
	var sum tally
	var first firstConnections
	used := map[netip.Addr][]string{} // roles by address, in order
	for i := range 48 {
		// The next pod with the same address has the other role.
		role := []string{friend, stranger}[(i+i/addresses)%2]
		c := roles[role]
		p := pod(fmt.Sprintf("completed-%d", i), role, third, c.args(enoughRounds)...)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		create(t, p)
		done := awaitFinished(t, p.Name)
		c.judge(t, done, finishedResults(t, done), &sum, &first)
		address := netip.MustParseAddr(done.Status.PodIP)
		used[address] = append(used[address], role)
	}
	changed := 0
	for _, roles := range used {
		changed += len(slices.Compact(roles)) - 1
	}
	t.Logf("%d addresses; %d times an address came to a pod with another role", len(used), changed)
	if changed < 24 {
		t.Errorf("too seldom for a test: %v", used)
	}
	return []caseRow{{fmt.Sprintf("addresses of completed pods reused within a /%d", bits), nothingWrong, sum, &first}}
}

// shrinkAddresses limits the addresses of a node's next pods to n of each family, until the test's end.
func shrinkAddresses(t *testing.T, node string, n int) {
	t.Helper()
	file := test.Dir(node, "cni", "cni.conflist")
	before, err := os.ReadFile(file)
	must(t, err)
	write := func(content []byte) error {
		// containerd reads the directory when it changes: a file that is written in place may be read too early.
		if err := os.WriteFile(file+".new", content, 0o644); err != nil {
			return err
		}
		return os.Rename(file+".new", file)
	}
	t.Cleanup(func() {
		if err := write(before); err != nil {
			t.Error(err)
		}
	})
	var config struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	must(t, json.Unmarshal(before, &config))
	ipam := config.Plugins[0]["ipam"].(map[string]any)
	for _, set := range ipam["ranges"].([]any) {
		r := set.([]any)[0].(map[string]any)
		first := netip.MustParsePrefix(r["subnet"].(string)).Addr()
		for range 128 { // beyond the addresses of the pods that run
			first = first.Next()
		}
		last := first
		for range n - 1 {
			last = last.Next()
		}
		r["rangeStart"], r["rangeEnd"] = first.String(), last.String()
	}
	after, err := json.Marshal(config)
	must(t, err)
	must(t, write(after))
	// Until containerd has read it, pods get other addresses.
	low := netip.MustParseAddr(ipam["ranges"].([]any)[0].([]any)[0].(map[string]any)["rangeStart"].(string))
	for i := 0; ; i++ {
		p := startPod(t, servingPod(fmt.Sprintf("address-%d", i), stranger, node))
		address := netip.MustParseAddr(p.Status.PodIP)
		remove(t, p)
		if !address.Less(low) {
			break
		}
		if i > 20 {
			t.Fatalf("pods of %s still get addresses below %s", node, low)
		}
	}
	eventually(t, "the pods that tried the addresses are gone", func(ctx context.Context) error {
		for i := range 21 {
			if _, err := getPod(ctx, fmt.Sprintf("address-%d", i)); !apierrors.IsNotFound(err) {
				return fmt.Errorf("address-%d: %v", i, err)
			}
		}
		return nil
	})
}
