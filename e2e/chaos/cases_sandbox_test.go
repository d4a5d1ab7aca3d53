//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/reach"
)

// sandboxStopped stops the sandboxes of a server and of a friend without the kubelet's knowledge. The kubelet gives each pod another sandbox, with
// other addresses, in which the same policies are in force from the first packet on.
func sandboxStopped(t *testing.T) []caseRow {
	c := callsByRole(t)[friend]
	var incoming, outgoing tally
	var first firstConnections
	for i := range times(10, 1) {
		// Other pods each time: the kubelet waits longer before each restart of one.
		caller := servingPod(fmt.Sprintf("stopped-friend-%d", i), friend, third)
		// Init containers run again in each sandbox, before the others.
		calling := caller.Spec.Containers[0]
		calling.Name, calling.Args = "calls", c.args(enoughRounds)
		caller.Spec.InitContainers = []corev1.Container{calling}
		called := servingPod(fmt.Sprintf("stopped-server-%d", i), server, third)
		create(t, caller, called)
		s, f := awaitPod(t, called.Name), awaitPod(t, caller.Name)
		next := addressesFrom(t, s, 3)
		to := targetsAt(next, servedPort)
		allocateNext(t, third, next)
		strangers, err := test.WatchEvery(context.Background(), 50*time.Millisecond, member(t, stranger, steady[0]), to, nil, 500*time.Millisecond)
		must(t, err)
		await(t, strangers, 1)
		must(t, test.StopSandbox(t.Context(), s))
		s = awaitNewSandbox(t, s)
		if !slices.Equal(s.Status.PodIPs, next) {
			t.Errorf("the server has got %v, and strangers have called %v: nothing is tested", s.Status.PodIPs, next)
		}
		for _, node := range steady {
			eventually(t, "friends are let in at the new address", func(ctx context.Context) error { return want(ctx, member(t, friend, node), to, reach.Open) })
			incoming.add(dial(t, member(t, friend, node), true, to...))
			incoming.add(dial(t, member(t, stranger, node), false, to...))
		}
		results, err := strangers.Stop()
		must(t, err)
		for _, r := range results {
			incoming.count("stranger", r, false)
		}

		must(t, test.StopSandbox(t.Context(), f))
		f = awaitNewSandbox(t, f)
		log, err := os.ReadFile(podLogPath(f, "calls", int(f.Status.InitContainerStatuses[0].RestartCount)))
		must(t, err)
		c.judge(t, f, loggedResults(t, log), &outgoing, &first)
		remove(t, caller)
		remove(t, called)
	}
	return []caseRow{
		{"a running sandbox of a server stopped through the CRI", nothingWrong, incoming, nil},
		{"a running sandbox of a client stopped through the CRI", nothingWrong, outgoing, &first},
	}
}

// awaitNewSandbox waits until a pod is ready in another sandbox.
func awaitNewSandbox(t *testing.T, before *corev1.Pod) *corev1.Pod {
	t.Helper()
	var after *corev1.Pod
	eventually(t, "pod "+before.Name+" is ready in another sandbox", func(ctx context.Context) error {
		pod, err := getPod(ctx, before.Name)
		if err == nil && (!isReady(pod) || pod.Status.PodIP == before.Status.PodIP) {
			err = fmt.Errorf("it is %s with address %s", pod.Status.Phase, pod.Status.PodIP)
		}
		after = pod
		return err
	})
	return after
}

// addressesFrom are those a number of steps beyond a pod's.
func addressesFrom(t *testing.T, pod *corev1.Pod, steps int) []corev1.PodIP {
	t.Helper()
	var out []corev1.PodIP
	for _, ip := range pod.Status.PodIPs {
		address := netip.MustParseAddr(ip.IP)
		for range steps {
			address = address.Next()
		}
		out = append(out, corev1.PodIP{IP: address.String()})
	}
	return out
}

func targetsAt(addresses []corev1.PodIP, port uint16) []reach.Target {
	var out []reach.Target
	for _, ip := range addresses {
		out = append(out, reach.Target{Protocol: "tcp", Address: netip.AddrPortFrom(netip.MustParseAddr(ip.IP), port)})
	}
	return out
}
