//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

func agentsKilled(t *testing.T, x *trial) {
	var killed time.Time
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		killed = time.Now()
		killAll(t, engineNow(t, "agent"))
		x.canary.toggle(t)
		x.traffic.run(t, time.Second)
		x.heal = x.canary.await(t, killed)
	}
	awaitEngine(t)
}

// killAll ends the pods' containers with SIGKILL.
func killAll(t *testing.T, pods []corev1.Pod) {
	t.Helper()
	for _, pod := range pods {
		must(t, test.SignalPod(t.Context(), &pod, "KILL"))
	}
}

func agentsHung(t *testing.T, x *trial) {
	agents := engineNow(t, "agent")
	for _, agent := range agents {
		must(t, test.SignalPod(t.Context(), &agent, "STOP"))
		t.Cleanup(func() { _ = test.SignalPod(context.Background(), &agent, "CONT") })
	}
	x.canary.toggle(t)
	x.traffic.run(t, 10*time.Second)
	for _, agent := range agents {
		must(t, test.SignalPod(t.Context(), &agent, "CONT"))
	}
	x.heal = x.canary.await(t, time.Now())
}

func leaderKilled(t *testing.T, x *trial) {
	leader := leaderNow(t)
	killed := time.Now()
	killAll(t, []corev1.Pod{leader})
	x.canary.toggle(t)
	x.heal = x.canary.await(t, killed)
	awaitEngine(t)
}

// leaderNow is the pod of the controller that leads.
func leaderNow(t *testing.T) corev1.Pod {
	t.Helper()
	var lease coordinationv1.Lease
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: engine.Namespace, Name: "kidoban-controller"}, &lease))
	for _, pod := range engineNow(t, "controller") {
		if strings.HasPrefix(*lease.Spec.HolderIdentity, pod.Name+"_") {
			return pod
		}
	}
	t.Fatalf("the lease is held by %s, which is no pod", *lease.Spec.HolderIdentity)
	return corev1.Pod{}
}

// bothGone takes kidoban's pods away. What they left in force is all there is.
func bothGone(t *testing.T, x *trial) {
	patch := func(kind, name, patch string) {
		t.Helper()
		if _, err := cluster.Output(test.Kubectl(context.Background(), "-n", engine.Namespace, "patch", kind, name, "--type=merge", "-p", patch)); err != nil {
			t.Error(err)
		}
	}
	restore := func() {
		patch("deployment", "kidoban-controller", `{"spec":{"replicas":2}}`)
		patch("daemonset", "kidoban-agent", `{"spec":{"template":{"spec":{"nodeSelector":{"kidoban.dev/none":null}}}}}`)
	}
	t.Cleanup(restore)
	patch("deployment", "kidoban-controller", `{"spec":{"replicas":0}}`)
	patch("daemonset", "kidoban-agent", `{"spec":{"template":{"spec":{"nodeSelector":{"kidoban.dev/none":"true"}}}}}`)
	eventually(t, "kidoban's pods are gone", func(context.Context) error {
		if n := len(engineNow(t, "agent")) + len(engineNow(t, "controller")); n > 0 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	x.canary.toggle(t)

	var known, servers, friends tally
	newServer := startPod(t, servingPod("late-server", server, third))
	for i := range 2 {
		newStranger := startPod(t, servingPod(fmt.Sprintf("late-stranger-%d", i), stranger, third))
		newFriend := startPod(t, servingPod(fmt.Sprintf("late-friend-%d", i), friend, third))
		for _, node := range steady {
			known.add(dial(t, newStranger, false, targets(member(t, server, node), "tcp", servedPort)...))
			friends.add(dial(t, newFriend, true, targets(member(t, server, node), "tcp", servedPort)...))
			servers.add(dial(t, member(t, stranger, node), false, targets(newServer, "tcp", servedPort)...))
		}
		remove(t, newStranger)
		remove(t, newFriend)
	}
	x.aside("… new pods call servers that were there", nothingWrong, known)
	x.aside("… new friends call servers that were there", nothingOpen("no agent announces new pods' addresses"), friends)
	x.aside("… strangers call new servers", noPromise("in mode standard a new pod is open while no agent runs; in guarded and strict it is closed"), servers)

	restore()
	x.heal = x.canary.await(t, time.Now())
	awaitEngine(t)
	x.canary.awaitAt(t, time.Now(), newServer)
	var after tally
	for _, node := range steady {
		after.add(dial(t, member(t, stranger, node), false, targets(newServer, "tcp", servedPort)...))
		after.add(dial(t, member(t, friend, node), true, targets(newServer, "tcp", servedPort)...))
	}
	x.aside("… the same new servers afterwards", nothingWrong, after)
}

// rolesTaken takes away all that kidoban may ask of the API server. Watches that live are not asked again, so agents start anew.
func rolesTaken(t *testing.T, x *trial) {
	var taken []*rbacv1.ClusterRoleBinding
	for _, name := range []string{"kidoban-agent", "kidoban-controller"} {
		binding := &rbacv1.ClusterRoleBinding{}
		must(t, api.Get(t.Context(), client.ObjectKey{Name: name}, binding))
		taken = append(taken, binding)
	}
	giveBack := func() {
		for _, b := range taken {
			fresh := &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: b.Name, Labels: b.Labels, Annotations: b.Annotations},
				RoleRef:    b.RoleRef, Subjects: b.Subjects,
			}
			if err := api.Create(context.Background(), fresh); client.IgnoreAlreadyExists(err) != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(giveBack)
	over := refusals.expect()
	for _, b := range taken {
		must(t, api.Delete(t.Context(), b))
	}
	killAll(t, append(engineNow(t, "agent"), engineNow(t, "controller")...))
	x.canary.toggle(t)
	x.traffic.run(t, 15*time.Second)
	giveBack()
	x.heal = x.canary.await(t, time.Now())
	over()
	awaitEngine(t)
}
