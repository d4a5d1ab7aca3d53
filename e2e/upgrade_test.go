//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
)

// TestUpgrade goes from the previous release to this one and back, with the controller first and the agents after, as apply -k does it.
// Connections go on all the time: none that is allowed fails, none that is not is made. Between the halves a policy is
// changed: each works with the other of the neighbouring release.
func TestUpgrade(t *testing.T) {
	old := engine.Overlay{Root: t.TempDir(), Base: "config/overlays/local", Tag: engine.PreviousTag}
	commit, tars, err := engine.MakePrevious(t.Context(), test.Repo, old.Root, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("the previous release is", commit)
	if err := test.Load(t.Context(), tars...); err != nil {
		t.Fatal(err)
	}
	current := engine.Overlay{Root: test.Repo, Base: "config/overlays/local", Tag: "dev"}
	t.Cleanup(func() { applyOverlay(t, current) })
	applyOverlay(t, old)

	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	database.Spec.Ingress[0].Ports = tcp(5432)
	frontend := ingressPolicy("frontend", "frontend", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database, frontend)
	traffic := startTraffic(t, awaitInForce(t), "backend", // one pod on each node
		matrix.Column{Group: "database", Port: "5432"}, matrix.Column{Group: "database", Port: "5440"},
		matrix.Column{Group: "prometheus", Port: "9090"}, matrix.Column{Group: "kube-dns", Port: "53/udp"})

	for _, step := range []struct {
		name               string
		overlay            engine.Overlay
		controller, agents string // tags of the images that run then
	}{
		{"controller forward", held(current), current.Tag, old.Tag},
		{"agents forward", current, current.Tag, current.Tag},
		{"controller back", held(old), old.Tag, current.Tag},
		{"agents back", old, old.Tag, old.Tag},
	} {
		t.Run(step.name, func(t *testing.T) {
			applyOverlay(t, step.overlay)
			checkImages(t, "controller", step.controller)
			checkImages(t, "agent", step.agents)
			for _, from := range []string{"prometheus", "backend"} {
				change(t, frontend, func() {
					frontend.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{
						PodSelector: workload(from), NamespaceSelector: &metav1.LabelSelector{},
					}
				})
				check(t, awaitInForce(t), "open: "+from+" > frontend 8080")
			}
			traffic.await(t, 3)
		})
	}
	traffic.stop(t)
}

// held keeps the agents as they are.
func held(o engine.Overlay) engine.Overlay {
	o.Agents = "{type: OnDelete}"
	return o
}

// applyOverlay applies an overlay and waits until what it changes is ready. It also runs as a cleanup.
func applyOverlay(t *testing.T, o engine.Overlay) {
	t.Helper()
	ctx := context.Background()
	if err := o.Apply(ctx, test); err != nil {
		t.Fatal(err)
	}
	if o.Agents == held(o).Agents { // kubectl does not wait for these
		if _, err := cluster.Output(test.Kubectl(ctx, "-n", engine.Namespace, "rollout", "status", "--timeout=2m", "deployment/kidoban-controller")); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := engine.AwaitReady(ctx, test); err != nil {
		t.Fatal(err)
	}
}

// checkImages wants all pods of a half that are not on their way out to have the images of a tag.
func checkImages(t *testing.T, component, tag string) {
	t.Helper()
	for _, pod := range enginePods(t, component) {
		if image := pod.Spec.Containers[0].Image; pod.DeletionTimestamp == nil && !strings.HasSuffix(image, ":"+tag) {
			t.Errorf("%s has %s, want :%s", pod.Name, image, tag)
		}
		if err := ready(&pod); err != nil && pod.DeletionTimestamp == nil {
			t.Error(err)
		}
	}
}

func ready(pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
			return fmt.Errorf("%s is not ready: %s", pod.Name, c.Message)
		}
	}
	return nil
}
