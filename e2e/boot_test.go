//go:build e2e && vpc

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// bootTimeout is how long a pod may take to run again after its node's boot. The kubelet waits longer after each failed start.
const bootTimeout = 5 * time.Minute

// TestBoot reboots a node under traffic, in mode standard with config/components/boot-guard: pods that connect from
// their first instruction make no connection that their policy denies. Agents reach the API server by its ClusterIP.
func TestBoot(t *testing.T) {
	if !bootIsGuarded() {
		t.Fatal("the container runtime starts containers without the agent: add --nri-required=kidoban to CLUSTER_FLAGS")
	}
	x := startEager(t, 5)
	x.reboot(t, func() {})
	// The API server is away during the boot. The node comes up by itself when it is back.
	if err := test.Stop(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	x.reboot(t, func() {
		if err := test.Start(t.Context(), "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
	})
	x.end(t)
}

// end deletes the pods, and waits until the shop's own are ready after the boots.
func (x *eager) end(t *testing.T) {
	t.Helper()
	for _, pod := range x.pods {
		if err := store.Client.Delete(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	within(t, bootTimeout, "the shop is ready", store.AwaitReady)
}

// eager are pods of the first node that connect from their first instruction, to where their policy allows it and to where it does not.
type eager struct {
	allowed, denied reach.Target
	pods            []*corev1.Pod
	restarts        int32
}

// startEager starts such pods.
func startEager(t *testing.T, count int) *eager {
	t.Helper()
	addr := partner[0]
	if netip.MustParseAddr(pods(t, "frontend")[0].Status.PodIP).Is6() {
		addr = partner[1]
	}
	x := &eager{allowed: partnerPort(addr, 443), denied: partnerPort(addr, 8443)}
	create(t, partnerOnly("eager"))
	awaitInForce(t)
	image := pods(t, "frontend")[0].Spec.Containers[0].Image
	for i := range count {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("eager-%d", i), Labels: map[string]string{matrix.WorkloadLabel: "eager"}},
			Spec: corev1.PodSpec{
				NodeName: nodes[0], TerminationGracePeriodSeconds: ptr.To[int64](0), AutomountServiceAccountToken: ptr.To(false),
				Containers: []corev1.Container{{
					Name: "eager", Image: image, Stdin: true, // it ends with it
					Args: []string{"watch", "--interval=5ms", "--timeout=500ms", x.allowed.String(), x.denied.String()},
				}},
			},
		}
		create(t, pod)
		x.pods = append(x.pods, pod)
	}
	x.check(t)
	return x
}

// reboot reboots the node; then runs when it has started.
func (x *eager) reboot(t *testing.T, then func()) {
	t.Helper()
	if err := test.Stop(t.Context(), nodes[0]); err != nil {
		t.Fatal(err)
	}
	if err := test.Start(t.Context(), nodes[0]); err != nil {
		t.Fatal(err)
	}
	then()
	x.restarts++
	x.check(t)
}

// check waits until each pod has got through where it may, and counts what passed elsewhere.
func (x *eager) check(t *testing.T) {
	t.Helper()
	for _, pod := range x.pods {
		leaks := 0
		within(t, bootTimeout, fmt.Sprintf("pod %s gets through after %d boots, and is denied", pod.Name, x.restarts), func(ctx context.Context) error {
			if err := store.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			if s := pod.Status.ContainerStatuses; len(s) == 0 || s[0].RestartCount < x.restarts || s[0].State.Running == nil {
				return fmt.Errorf("containers %+v", s)
			}
			results, err := logged(ctx, pod)
			if err != nil {
				return err
			}
			through, after := false, 0
			leaks = 0
			for _, r := range results {
				through = through || r.Target == x.allowed && r.Outcome == reach.Open
				if r.Target == x.denied && r.Outcome == reach.Open {
					leaks++
				}
				if through && r.Target == x.denied && r.Outcome == reach.TimedOut {
					after++
				}
			}
			if after < 50 {
				return fmt.Errorf("through: %t, %d attempts denied after, of %d", through, after, len(results))
			}
			return nil
		})
		t.Logf("pod %s after %d boots: %d connections passed that the policy denies", pod.Name, x.restarts, leaks)
		if leaks > 0 {
			t.Errorf("%d connections passed that the policy denies", leaks)
		}
	}
}
