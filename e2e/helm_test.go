//go:build e2e && helm

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// localImages are the values with which the chart installs the same as the overlay local.
var localImages = []string{"--set=image.tag=dev,image.pullPolicy=Never"}

// TestHelm goes through the life of a release as docs/helm.md describes it: from kustomize to Helm, upgrade, rollback, an interrupted upgrade, and
// back, while connections go on; then uninstall and another installation. Calls have --force-conflicts, because kubectl is still recorded as a
// manager of the fields that it applied before.
func TestHelm(t *testing.T) {
	local := engine.Overlay{Root: test.Repo, Base: "config/overlays/local"}
	t.Cleanup(func() {
		forgetRelease(t)
		applyOverlay(t, local)
	})
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	database.Spec.Ingress[0].Ports = tcp(5432)
	frontend := ingressPolicy("frontend", "frontend", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database, frontend)
	traffic := startTraffic(t, awaitInForce(t), "backend", // one pod on each node
		matrix.Column{Group: "database", Port: "5432"}, matrix.Column{Group: "database", Port: "5440"},
		matrix.Column{Group: "prometheus", Port: "9090"}, matrix.Column{Group: "kube-dns", Port: "53/udp"})

	t.Run("from kustomize", func(t *testing.T) {
		before := engineUIDs(t)
		install(t, "--take-ownership", "--force-conflicts")
		unchanged(t, before)
		traffic.await(t, 3)
	})
	const field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/policyRef/properties/uid"
	t.Run("older CRD", func(t *testing.T) {
		kubectl(t, "patch", "crd", "policyendpoints.networking.kidoban.dev", "--type=json", "-p", `[{"op": "remove", "path": "`+field+`"}]`)
		kubectl(t, "-n", engine.Namespace, "rollout", "restart", "deployment/kidoban-controller")
		if err := engine.AwaitReady(t.Context(), test); err != nil {
			t.Fatal(err)
		}
		changeUnder(t, frontend, traffic)
		if log := printed(t, "-n", engine.Namespace, "logs", "--tail=-1", "-l", "app.kubernetes.io/component=controller"); !strings.Contains(log, `unknown field \"spec.policyRef.uid\"`) {
			t.Errorf("the controller does not report the field that the CRD lacks:\n%s", log)
		}
		eventually(t, "an Event on the CRD", func(context.Context) error {
			if events := printed(t, "get", "events", "-A", "--field-selector=reason=CRDTooOld"); !strings.Contains(events, "spec.policyRef.uid") {
				return fmt.Errorf("there are:\n%s", events)
			}
			return nil
		})
	})
	t.Run("upgrade", func(t *testing.T) {
		if _, err := cluster.Output(test.Outside(t.Context(), "sh", "-c", helmProgram()+" show crds charts/kidoban | kubectl apply --server-side --force-conflicts -f -")); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "patch", "crd", "policyendpoints.networking.kidoban.dev", "--type=json", "--dry-run=server", "-p", `[{"op": "test", "path": "`+field+`/type", "value": "string"}]`)
		helm(t, "upgrade", "kidoban", "charts/kidoban", "--reset-then-reuse-values", "--set=agent.settings.EVENT_LOG_FORMAT=json", "--force-conflicts", "--wait", "--timeout=10m")
		hasSetting(t, "EVENT_LOG_FORMAT", "json")
		changeUnder(t, frontend, traffic)
	})
	t.Run("rollback", func(t *testing.T) {
		helm(t, "rollback", "kidoban", "--force-conflicts", "--wait", "--timeout=10m")
		hasSetting(t, "EVENT_LOG_FORMAT", "")
		changeUnder(t, frontend, traffic)
	})
	t.Run("interrupted", func(t *testing.T) {
		interruptUpgrade(t)
		if _, err := helmOutput(t.Context(), "upgrade", "kidoban", "charts/kidoban", "--reuse-values"); err == nil || !strings.Contains(err.Error(), "another operation") {
			t.Errorf("another upgrade: %v", err)
		}
		helm(t, "rollback", "kidoban", "--force-conflicts", "--wait", "--timeout=10m")
		if s := releaseStatus(t); s != "deployed" {
			t.Errorf("the release is %s", s)
		}
		hasSetting(t, "EVENT_LOG_FORMAT", "")
		changeUnder(t, frontend, traffic)
	})
	t.Run("to kustomize", func(t *testing.T) {
		before := engineUIDs(t)
		forgetRelease(t)
		applyOverlay(t, local)
		unchanged(t, before)
		traffic.await(t, 3)
	})
	traffic.stop(t)

	t.Run("uninstall", func(t *testing.T) {
		install(t, "--take-ownership", "--force-conflicts")
		tables := awaitInForce(t)
		kubectl(t, "-n", engine.Namespace, "delete", "daemonset", "kidoban-agent", "--cascade=foreground")
		cleanup := engine.Overlay{Root: test.Repo, Base: "config/cleanup", Tag: "dev"}
		if err := cleanup.Apply(t.Context(), test); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", "kidoban-cleanup", "rollout", "status", "--timeout=2m", "daemonset/kidoban-cleanup")
		helm(t, "uninstall", "kidoban", "--wait")
		kubectl(t, "delete", "namespace", "kidoban-cleanup")
		for _, node := range nodes {
			if left := leftOnNode(t, node, nil); left != "" {
				t.Errorf("on %s is left:\n%s", node, left)
			}
		}
		if left := printed(t, "get", "deployments,daemonsets,pods", "-n", engine.Namespace, "-o", "name"); left != "" {
			t.Errorf("left in the namespace: %s", left)
		}
		if endpoints := printed(t, "get", "policyendpoints", "-A", "-o", "name"); endpoints == "" {
			t.Error("no PolicyEndpoint is left")
		}
		expect(t, "frontend", targets(tables, "database", "5432")[0], reach.Open)
	})
	t.Run("install again", func(t *testing.T) {
		install(t)
		if err := engine.AwaitReady(t.Context(), test); err != nil {
			t.Fatal(err)
		}
		awaitInForce(t)
	})
}

// install installs the chart with the images of this build.
func install(t *testing.T, flags ...string) {
	t.Helper()
	helm(t, append(append([]string{"install", "kidoban", "charts/kidoban", "--wait", "--timeout=10m"}, localImages...), flags...)...)
}

// interruptUpgrade kills Helm in the middle of an upgrade.
func interruptUpgrade(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	upgrade := test.Outside(t.Context(), "sh", "-c", `echo $$ >"$0"; exec "$@"`, file,
		helmProgram(), "-n", engine.Namespace, "upgrade", "kidoban", "charts/kidoban", "--reset-then-reuse-values", "--set=agent.settings.EVENT_LOG_FORMAT=json",
		"--force-conflicts", "--wait")
	if err := upgrade.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an upgrade is under way", func(context.Context) error {
		if s := releaseStatus(t); s != "pending-upgrade" {
			return fmt.Errorf("the release is %s", s)
		}
		return nil
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := upgrade.Wait(); err == nil {
		t.Fatal("the upgrade was through before it was interrupted")
	}
	if s := releaseStatus(t); s != "pending-upgrade" {
		t.Fatalf("the release is %s", s)
	}
}

// changeUnder changes a policy twice, and looks that it comes into force while other connections go on.
func changeUnder(t *testing.T, frontend *networkingv1.NetworkPolicy, traffic *traffic) {
	t.Helper()
	for _, from := range []string{"prometheus", "backend"} {
		change(t, frontend, func() {
			frontend.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{PodSelector: workload(from), NamespaceSelector: &metav1.LabelSelector{}}
		})
		check(t, awaitInForce(t), "open: "+from+" > frontend 8080")
	}
	traffic.await(t, 3)
}

func helmProgram() string { return filepath.Join(test.Repo, "bin", "helm") }

func helmOutput(ctx context.Context, args ...string) (string, error) {
	return cluster.Output(test.Outside(ctx, append([]string{helmProgram(), "-n", engine.Namespace}, args...)...))
}

func helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := helmOutput(t.Context(), args...)
	if err != nil {
		ctx := context.WithoutCancel(t.Context())
		t.Fatalf("%v\n%s", err, engine.Describe(ctx, test))
	}
	return out
}

// printed is what kubectl prints.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cluster.Output(test.Kubectl(t.Context(), args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func releaseStatus(t *testing.T) string {
	t.Helper()
	var release struct{ Info struct{ Status string } }
	if err := json.Unmarshal([]byte(helm(t, "status", "kidoban", "-o", "json")), &release); err != nil {
		t.Fatal(err)
	}
	return release.Info.Status
}

// forgetRelease deletes what Helm has stored of the release, and nothing else. It also runs as a cleanup.
func forgetRelease(t *testing.T) {
	t.Helper()
	if _, err := cluster.Output(test.Kubectl(context.Background(), "-n", engine.Namespace, "delete", "secrets", "-l", "owner=helm,name=kidoban")); err != nil {
		t.Fatal(err)
	}
}

// engineUIDs are those of all pods of both halves.
func engineUIDs(t *testing.T) []string {
	t.Helper()
	var uids []string
	for _, component := range []string{"controller", "agent"} {
		for _, pod := range enginePods(t, component) {
			uids = append(uids, pod.Name+" "+string(pod.UID))
		}
	}
	slices.Sort(uids)
	return uids
}

func unchanged(t *testing.T, before []string) {
	t.Helper()
	if err := engine.AwaitReady(t.Context(), test); err != nil {
		t.Fatal(err)
	}
	if now := engineUIDs(t); !slices.Equal(before, now) {
		t.Errorf("pods were replaced: %q, before %q", now, before)
	}
}

// hasSetting wants all agents to have a setting; empty: none of them.
func hasSetting(t *testing.T, name, value string) {
	t.Helper()
	for _, pod := range enginePods(t, "agent") {
		settings := pod.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name
		got := printed(t, "-n", engine.Namespace, "get", "configmap", settings, "-o", "jsonpath={.data."+name+"}")
		if pod.DeletionTimestamp == nil && got != value {
			t.Errorf("%s: %s is %q, want %q", pod.Name, name, got, value)
		}
	}
}
