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
	// The backend reaches the database on the first and not on the second. What follows an outage is a change of it, to see that
	// changes still arrive.
	open, shut := int32(5432), int32(5440)
	database.Spec.Ingress[0].Ports = tcp(open)
	create(t, database)
	toggle := func(t *testing.T) {
		t.Helper()
		open, shut = shut, open
		change(t, database, func() { database.Spec.Ingress[0].Ports = tcp(open) })
	}
	look := func(t *testing.T) []*matrix.Table {
		t.Helper()
		tables := awaitInForce(t)
		check(t, tables, fmt.Sprintf("open: backend > database %d", open))
		check(t, tables, fmt.Sprintf("closed: backend > database %d", shut))
		return tables
	}
	start := func(t *testing.T) *traffic {
		t.Helper()
		return startTraffic(t, look(t), "backend", // one pod on each node
			matrix.Column{Group: "database", Port: "5432"}, matrix.Column{Group: "database", Port: "5440"},
			matrix.Column{Group: "frontend", Port: "8080"}, matrix.Column{Group: "kube-dns", Port: "53/udp"})
	}

	t.Run("agents are killed", func(t *testing.T) {
		traffic := start(t)
		kill(t, enginePods(t, "agent"))
		traffic.await(t, 10)
		traffic.stop(t)
		toggle(t)
		look(t)
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
		toggle(t)
		look(t)
	})
	t.Run("agents hang", func(t *testing.T) {
		traffic := start(t)
		agents := enginePods(t, "agent")
		for _, agent := range agents {
			signalPod(t, &agent, "STOP")
			t.Cleanup(func() { signalPod(t, &agent, "CONT") })
		}
		toggle(t) // no agent hears of it yet
		traffic.await(t, 10)
		traffic.stop(t)
		for _, agent := range agents {
			signalPod(t, &agent, "CONT")
		}
		look(t)
	})
	t.Run("controllers are killed", func(t *testing.T) {
		traffic := start(t)
		kill(t, enginePods(t, "controller"))
		traffic.await(t, 10)
		traffic.stop(t)
		toggle(t)
		look(t)
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
		toggle(t)
		look(t)
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

// kill ends the pods' containers with SIGKILL and waits until those that the kubelets start next are ready.
func kill(t *testing.T, pods []corev1.Pod) {
	t.Helper()
	for i := range pods {
		signalPod(t, &pods[i], "KILL")
	}
	for i := range pods {
		pod := &pods[i]
		before := pod.Status.ContainerStatuses[0].RestartCount
		eventually(t, "pod "+pod.Name+" is ready again", func(ctx context.Context) error {
			if err := store.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			status := pod.Status.ContainerStatuses[0]
			if status.RestartCount == before || !status.Ready {
				return fmt.Errorf("%d restarts, ready: %t", status.RestartCount-before, status.Ready)
			}
			return nil
		})
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
