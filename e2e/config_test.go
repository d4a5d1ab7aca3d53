//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestConfig asks the API server to validate every kustomization, and installs the overlays one after the other.
func TestConfig(t *testing.T) {
	t.Run("validated by the API server", func(t *testing.T) {
		overlays, err := filepath.Glob(filepath.Join(test.Repo, "config", "overlays", "*"))
		if err != nil || len(overlays) == 0 {
			t.Fatal(overlays, err)
		}
		for _, dir := range append(overlays,
			filepath.Join(test.Repo, "config", "default"),
			filepath.Join(test.Repo, "config", "samples"),
			filepath.Join(test.Repo, "examples", "terraform", "eks", "kidoban"),
		) {
			if _, err := cluster.Output(test.Kubectl(t.Context(), "apply", "--dry-run=server", "--validate=strict", "-k", dir)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("restricted", testRestricted)

	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database)
	tables := awaitInForce(t)
	closed, unselected := targets(tables, "database", "5432")[0], targets(tables, "prometheus", "9090")[0]
	t.Cleanup(func() {
		applyOverlay(t, overlay("overlays/local"))
		deleteObject(t, &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: engine.Namespace, Name: "kidoban-controller"}})
	})

	t.Run("default", func(t *testing.T) {
		applyOverlay(t, overlay("default"))
		expect(t, "frontend", closed, reach.TimedOut)
		expect(t, "frontend", unselected, reach.Open)
	})
	t.Run("strict", func(t *testing.T) {
		applyOverlay(t, overlay("overlays/strict"))
		expect(t, "frontend", unselected, reach.TimedOut)
		// The controller is a pod as well, and closed but for what the overlay says of it.
		restart := test.Kubectl(t.Context(), "-n", engine.Namespace, "rollout", "restart", "deployment/kidoban-controller")
		if _, err := cluster.Output(restart); err != nil {
			t.Fatal(err)
		}
		awaitEngine(t)
		awaitLeader(t)
	})
	t.Run("audit", func(t *testing.T) {
		applyOverlay(t, overlay("overlays/audit"))
		expect(t, "frontend", closed, reach.Open)
		expect(t, "frontend", unselected, reach.Open)
	})
	t.Run("audit on eks, then eks", func(t *testing.T) {
		applyOverlay(t, overlay("overlays/eks-audit"))
		expect(t, "frontend", closed, reach.Open)
		applyOverlay(t, overlay("overlays/eks"))
		expect(t, "frontend", closed, reach.TimedOut)
		for _, node := range nodes {
			metrics := func(ctx context.Context, port int) (string, error) {
				return cluster.Output(test.Kubectl(ctx, "get", "--raw", fmt.Sprintf("/api/v1/nodes/%s:%d/proxy/metrics", node, port)))
			}
			eventually(t, "metrics on port 9162 of "+node, func(ctx context.Context) error {
				out, err := metrics(ctx, 9162)
				if err == nil && !strings.Contains(out, "kidoban_agent_build_info") {
					err = errors.New("they are not the agent's")
				}
				return err
			})
			if _, err := metrics(t.Context(), 8162); err == nil {
				t.Errorf("port 8162 of %s, which the VPC CNI needs, is taken", node)
			}
		}
	})
}

// overlay is a directory of config, with the images of this build and without waiting between nodes.
func overlay(dir string) engine.Overlay {
	return engine.Overlay{
		Root: test.Repo, Base: "config/" + dir, Tag: "dev",
		Agents: "{type: RollingUpdate, rollingUpdate: {maxUnavailable: 100%}}",
	}
}

// testRestricted has the API server hold the pods against the Pod Security Standard "restricted": the controller's passes.
func testRestricted(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "restricted", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	create(t, namespace)
	admit := func(ctx context.Context, template corev1.PodTemplateSpec) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "restricted"}, Spec: template.Spec}
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "", ""
		pod.Spec.AutomountServiceAccountToken = ptr.To(false)
		return store.Client.Create(ctx, pod, client.DryRunAll)
	}
	var deployment appsv1.Deployment
	var daemonSet appsv1.DaemonSet
	for name, object := range map[string]client.Object{"kidoban-controller": &deployment, "kidoban-agent": &daemonSet} {
		if err := store.Client.Get(t.Context(), client.ObjectKey{Namespace: engine.Namespace, Name: name}, object); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the controller's pod is admitted", func(ctx context.Context) error { return admit(ctx, deployment.Spec.Template) })
	if err := admit(t.Context(), daemonSet.Spec.Template); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "restricted") {
		t.Errorf("the agent's pod: %v", err)
	}
}

// awaitLeader waits until one of the controllers that run now leads.
func awaitLeader(t *testing.T) {
	t.Helper()
	eventually(t, "a controller that runs leads", func(ctx context.Context) error {
		holder, err := cluster.Output(test.Kubectl(ctx, "-n", engine.Namespace, "get", "lease", "kidoban-controller", "-o", "jsonpath={.spec.holderIdentity}"))
		if err != nil {
			return err
		}
		for _, pod := range enginePods(t, "controller") {
			if pod.DeletionTimestamp == nil && strings.HasPrefix(holder, pod.Name+"_") {
				return nil
			}
		}
		return fmt.Errorf("the lease is held by %q", holder)
	})
}

func deleteObject(t *testing.T, object client.Object) {
	t.Helper()
	if err := store.Client.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}
