//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

// idle is how long nothing happens. What is logged in it is too much.
const idle = 45 * time.Second

// TestQuietLogs counts the lines that both halves log, at the level that users have: none while nothing happens, and few that are no
// errors while policies and pods come and go.
func TestQuietLogs(t *testing.T) {
	create(t, ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")}))
	awaitInForce(t)

	t.Run("idle", func(t *testing.T) {
		before := logs(t)
		select { // the passing of time is what is tested
		case <-time.After(idle):
		case <-t.Context().Done():
		}
		for pod, lines := range logs(t) {
			if more := lines[len(before[pod]):]; len(more) > 0 {
				t.Errorf("%s logged %d lines in %s:\n%s", pod, len(more), idle, strings.Join(more, "\n"))
			}
		}
	})
	t.Run("churn", func(t *testing.T) {
		before := logs(t)
		const policies = 20
		for i := range policies {
			np := ingressPolicy(fmt.Sprint("churn-", i), "backend", networkingv1.NetworkPolicyPeer{PodSelector: workload("frontend")})
			create(t, np)
			if i%2 == 0 {
				change(t, np, func() { np.Spec.Ingress[0].Ports = tcp(int32(1000 + i)) })
			}
		}
		replaced := 0
		for range 3 {
			changePods(t, func() {
				for _, pod := range pods(t, "backend") {
					replaced++
					if err := store.Client.Delete(t.Context(), &pod); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
		awaitInForce(t)
		events := policies + policies/2 + 2*replaced
		for pod, lines := range logs(t) {
			more := lines[len(before[pod]):]
			t.Logf("%s: %d lines for %d events", pod, len(more), events)
			if len(more) > events {
				t.Errorf("%s logged %d lines for %d events:\n%s", pod, len(more), events, strings.Join(more, "\n"))
			}
			for _, line := range more {
				checkLine(t, pod, line)
			}
		}
	})
	t.Run("every line so far", func(t *testing.T) {
		for pod, lines := range logs(t) {
			for _, line := range lines {
				if !json.Valid([]byte(line)) {
					t.Errorf("%s: no JSON: %s", pod, line)
				}
			}
		}
	})
}

// checkLine wants one object, which is no error and has no stack trace.
func checkLine(t *testing.T, pod, line string) {
	t.Helper()
	var l struct{ Level, Msg, Stacktrace string }
	if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level == "error" || l.Stacktrace != "" || strings.Contains(line, "goroutine ") {
		t.Errorf("%s: %s", pod, line)
	}
}

// logs are the lines of both halves' containers, by pod and restart.
func logs(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, component := range []string{"agent", "controller"} {
		for _, pod := range enginePods(t, component) {
			eventually(t, "the log of "+pod.Name, func(ctx context.Context) error {
				text, err := cluster.Output(test.Kubectl(ctx, "-n", engine.Namespace, "logs", pod.Name))
				if err != nil {
					return err
				}
				key := fmt.Sprintf("%s, start %d", pod.Name, pod.Status.ContainerStatuses[0].RestartCount)
				out[key] = cluster.Lines(text)
				return nil
			})
		}
	}
	return out
}
