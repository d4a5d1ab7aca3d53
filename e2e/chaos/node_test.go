//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/reach"
)

// nodeRebooted ends a node with all that runs there and makes its namespaces anew; its disk stays.
func nodeRebooted(t *testing.T, x *trial) {
	victim := startPod(t, servingPod("rebooted-server", server, third))
	x.canary.awaitAt(t, time.Now(), victim)
	before := victim.Status.PodIPs
	start := stop(t, third)
	x.traffic.run(t, 5*time.Second)
	x.canary.toggle(t)
	start()
	back := time.Now()
	t.Logf("%s runs again", third)

	// Until the agent runs again, nothing of kidoban is in the node's new kernel tables.
	var meanwhile tally
	eventually(t, "the node's pods and its agent are up again", func(ctx context.Context) error {
		pod, err := getPod(ctx, victim.Name)
		if err != nil {
			return err
		}
		if len(pod.Status.PodIPs) > 0 && !slices.Equal(pod.Status.PodIPs, before) {
			meanwhile.add(dial(t, member(t, stranger, steady[0]), false, targets(pod, "tcp", servedPort)...))
		}
		victim = pod
		if !isReady(pod) || slices.Equal(pod.Status.PodIPs, before) {
			return fmt.Errorf("pod %s is %s", pod.Name, pod.Status.Phase)
		}
		for _, agent := range engineNow(t, "agent") {
			if agent.Spec.NodeName == third && !agentAnswers(ctx, &agent) {
				return errNotReady(agent.Name)
			}
		}
		return nil
	})
	x.canary.awaitAt(t, back, victim)
	x.heal = x.canary.await(t, back)
	x.heal = max(x.heal, x.canary.awaitAt(t, back, victim))
	if meanwhile.connections > 0 {
		x.aside("… strangers call the node's pods before its agent is ready", noPromise("in mode standard a pod is open until an agent has run once after the boot"), meanwhile)
	}
	x.aside("… strangers call them afterwards", nothingWrong, dial(t, member(t, stranger, steady[0]), false, targets(victim, "tcp", servedPort)...))
	awaitEngine(t)
}

// runtimesKilled ends what runs pods on two nodes, with SIGKILL. Containers go on without it, and the nodes start it again.
func runtimesKilled(t *testing.T, x *trial) {
	const kill = `for p in /proc/[0-9]*; do case "$(tr '\0' '\n' <$p/cmdline | head -n1)" in */containerd | */kubelet | */kube-proxy) kill -KILL "${p#/proc/}" && echo "$p" ;; esac; done 2>/dev/null`
	for _, node := range steady {
		if n := len(strings.Fields(onNode(t, node, "sh", "-c", kill))); n != 3 {
			t.Fatalf("%d programs of %s were killed, not 3", n, node)
		}
	}
	killed := time.Now()
	x.canary.toggle(t)
	create(t, servingPod("newcomer", server, steady[0])) // the first thing that the new runtime does
	var first, after tally
	var newcomer *corev1.Pod
	within(t, 2*time.Minute, "a new pod is ready", func(ctx context.Context) (err error) {
		if newcomer, err = getPod(ctx, "newcomer"); err != nil {
			return err
		}
		if len(newcomer.Status.PodIPs) > 0 {
			first.add(dial(t, member(t, stranger, steady[1]), false, targets(newcomer, "tcp", servedPort)...))
		}
		if !isReady(newcomer) {
			return fmt.Errorf("it is %s", newcomer.Status.Phase)
		}
		return nil
	})
	x.heal = x.canary.await(t, killed)
	x.heal = max(x.heal, x.canary.awaitAt(t, killed, newcomer))
	after.add(dial(t, member(t, stranger, steady[1]), false, targets(newcomer, "tcp", servedPort)...))
	after.add(dial(t, member(t, friend, steady[1]), true, targets(newcomer, "tcp", servedPort)...))
	x.aside("… strangers call a server that the new runtime starts", noPromise("in mode standard a new pod is open until the agent is connected to the runtime again"), first)
	x.aside("… strangers and friends call it afterwards", nothingWrong, after)
	awaitEngine(t)
}

// agentAnswers asks the agent itself: the kubelet's word of it may be from before the boot.
func agentAnswers(ctx context.Context, agent *corev1.Pod) bool {
	return test.OnNode(ctx, agent.Spec.NodeName, "curl", "-sf", "http://127.0.0.1:8163/readyz").Run() == nil
}

// want is an error unless all targets answer a pod as wanted.
func want(ctx context.Context, from *corev1.Pod, to []reach.Target, outcome reach.Outcome) error {
	results, err := test.Dial(ctx, from, to, time.Second)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Outcome != outcome {
			return fmt.Errorf("%s → %s: %s %s, want %s", from.Name, r.Target, r.Outcome, r.Error, outcome)
		}
	}
	return nil
}
