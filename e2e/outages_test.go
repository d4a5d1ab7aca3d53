//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
)

// leaseDuration is how long a controller leads without hearing of the API server, and more.
const leaseDuration = 20 * time.Second

// TestOutages ends, stops and cuts off each part while traffic goes on. Whatever is in force stays in force, and what is
// changed meanwhile is in force afterwards.
func TestOutages(t *testing.T) {
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	database.Spec.Ingress[0].Ports = tcp(5432)
	create(t, database)

	start := func(t *testing.T) *traffic {
		t.Helper()
		tables := awaitInForce(t)
		check(t, tables, "open: backend > database 5432")
		check(t, tables, "closed: backend > database 5440")
		return startTraffic(t, tables, "backend", // one pod on each node
			matrix.Column{Group: "database", Port: "5432"}, matrix.Column{Group: "database", Port: "5440"},
			matrix.Column{Group: "frontend", Port: "8080"}, matrix.Column{Group: "kube-dns", Port: "53/udp"})
	}
	// A change of what the policy says, to see that changes still arrive. It is undone by the next.
	port := int32(5432)
	toggle := func(t *testing.T) {
		t.Helper()
		port = 5432 + 5440 - port
		change(t, database, func() { database.Spec.Ingress[0].Ports = tcp(port) })
	}
	follows := func(t *testing.T) {
		t.Helper()
		for range 2 {
			toggle(t)
			check(t, awaitInForce(t), fmt.Sprintf("open: backend > database %d", port))
		}
	}

	t.Run("agents are killed", func(t *testing.T) {
		traffic := start(t)
		for _, agent := range enginePods(t, "agent") {
			kill(t, &agent)
		}
		traffic.await(t, 10)
		traffic.stop(t)
		follows(t)
	})
	t.Run("agents are replaced", func(t *testing.T) {
		traffic := start(t)
		for _, agent := range enginePods(t, "agent") {
			if err := store.Client.Delete(t.Context(), &agent); err != nil {
				t.Fatal(err)
			}
		}
		awaitEngine(t)
		traffic.await(t, 10)
		traffic.stop(t)
		follows(t)
	})
	t.Run("agents hang", func(t *testing.T) {
		traffic := start(t)
		agents := enginePods(t, "agent")
		for _, agent := range agents {
			signalPod(t, &agent, "STOP")
			t.Cleanup(func() { signalPod(t, &agent, "CONT") })
		}
		toggle(t) // nobody hears of it yet
		traffic.await(t, 10)
		traffic.stop(t)
		for _, agent := range agents {
			signalPod(t, &agent, "CONT")
		}
		awaitInForce(t)
		toggle(t)
	})
	t.Run("controllers are killed", func(t *testing.T) {
		traffic := start(t)
		for _, controller := range enginePods(t, "controller") {
			kill(t, &controller)
		}
		traffic.await(t, 10)
		traffic.stop(t)
		follows(t)
	})
	t.Run("the API server is away", func(t *testing.T) {
		traffic := start(t)
		agents := enginePods(t, "agent")
		signalAPIServer(t, syscall.SIGSTOP)
		t.Cleanup(func() { signalAPIServer(t, syscall.SIGCONT) })
		traffic.await(t, 10)
		signalPod(t, &agents[0], "KILL") // the other one stays, cut off
		traffic.await(t, int(leaseDuration/cluster.WatchInterval)+1)
		signalAPIServer(t, syscall.SIGCONT)
		awaitEngine(t)
		traffic.await(t, 10)
		traffic.stop(t)
		follows(t)
	})
}

// enginePods are the pods of one half of kidoban: agent or controller.
func enginePods(t *testing.T, component string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := store.Client.List(t.Context(), &list, client.InNamespace(engine.Namespace), client.MatchingLabels{
		"app.kubernetes.io/part-of": "kidoban", "app.kubernetes.io/component": component,
	}); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) == 0 {
		t.Fatalf("kidoban has no %s", component)
	}
	return list.Items
}

// kill ends a pod's container with SIGKILL and waits until the kubelet's next one is ready.
func kill(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	restarts := pod.Status.ContainerStatuses[0].RestartCount
	signalPod(t, pod, "KILL")
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		if err := store.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return false, err
		}
		status := pod.Status.ContainerStatuses[0]
		return status.RestartCount > restarts && status.Ready, nil
	})
	if err != nil {
		t.Fatalf("pod %s after it was killed: %v\n%s", pod.Name, err, engine.Describe(context.Background(), test))
	}
}

func signalPod(t *testing.T, pod *corev1.Pod, signal string) {
	t.Helper()
	// Not the test's context: this also runs as a cleanup.
	if err := test.SignalPod(context.Background(), pod, signal); err != nil {
		t.Error(err)
	}
}

func signalAPIServer(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := test.Signal("kube-apiserver", signal); err != nil {
		t.Fatal(err)
	}
}

// awaitEngine waits until both halves of kidoban are ready.
func awaitEngine(t *testing.T) {
	t.Helper()
	if err := engine.AwaitReady(t.Context(), test); err != nil {
		t.Fatal(err)
	}
}
