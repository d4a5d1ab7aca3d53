//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestVanishedObjects deletes the controller's objects, and then their kinds, under traffic: no connection goes another way than the
// policies say, also while an agent starts again. A policy that is deleted meanwhile is out of force, and all objects return with
// their kinds.
func TestVanishedObjects(t *testing.T) {
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	open, shut := int32(5432), int32(5440)
	database.Spec.Ingress[0].Ports = tcp(open)
	frontend := ingressPolicy("frontend", "frontend", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database, frontend)
	start := func() *traffic {
		return startTraffic(t, awaitInForce(t), "backend",
			matrix.Column{Group: "database", Port: "5432"}, matrix.Column{Group: "database", Port: "5440"}, matrix.Column{Group: "kube-dns", Port: "53/udp"})
	}
	written := func(policies ...*networkingv1.NetworkPolicy) {
		t.Helper()
		within(t, time.Minute, "the PolicyEndpoints are written again", func(ctx context.Context) error {
			for _, np := range policies {
				pe, err := endpointOf(ctx, np)
				if err != nil {
					return err
				}
				if len(pe.Status.Conditions) == 0 {
					return fmt.Errorf("%s has no conditions", pe.Name)
				}
			}
			return nil
		})
	}
	toggle := func() {
		open, shut = shut, open
		change(t, database, func() { database.Spec.Ingress[0].Ports = tcp(open) })
		tables := awaitInForce(t)
		check(t, tables, fmt.Sprintf("open: backend > database %d", open))
		check(t, tables, fmt.Sprintf("closed: backend > database %d", shut))
	}

	traffic := start()
	for _, namespace := range []string{"shop", engine.Namespace} {
		for _, obj := range []client.Object{&v1alpha1.PolicyEndpoint{}, &v1alpha1.PolicyEndpointSlice{}} {
			if err := store.Client.DeleteAllOf(t.Context(), obj, client.InNamespace(namespace)); err != nil {
				t.Fatal(err)
			}
		}
	}
	traffic.await(t, 10)
	traffic.stop(t)
	written(database, frontend)
	toggle()

	traffic = start()
	t.Cleanup(func() { applyOverlay(t, engine.Overlay{Root: test.Repo, Base: "config/overlays/local", Tag: "dev"}) })
	group := "." + v1alpha1.GroupVersion.Group
	if _, err := cluster.Output(test.Kubectl(t.Context(), "delete", "crd", "policyendpoints"+group, "policyendpointslices"+group, "--timeout=1m")); err != nil {
		t.Fatal(err)
	}
	traffic.await(t, 10)
	if err := store.Client.Delete(t.Context(), frontend); err != nil {
		t.Fatal(err)
	}
	for _, target := range targets(awaitInForce(t), "frontend", "8080") {
		expect(t, "database", target, reach.Open) // it is no longer in force
	}
	signalPod(t, &enginePods(t, "agent")[0], "KILL") // the next one waits for the kinds
	traffic.await(t, 10)
	applyOverlay(t, engine.Overlay{Root: test.Repo, Base: "config/overlays/local", Tag: "dev"})
	written(database)
	awaitEngine(t)
	traffic.await(t, 5)
	traffic.stop(t)
	toggle()
}
