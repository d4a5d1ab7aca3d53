package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// settings are those that an overlay's ConfigMap has for a half.
func settings(t *testing.T, r rendered, half string) map[string]string {
	t.Helper()
	return decode[corev1.ConfigMap](t, r, "ConfigMap/"+half+"-settings-").Data
}

// Every setting in a ConfigMap is one that docs/configuration.md, which is made from the code, has for that half.
func TestSettingsExist(t *testing.T) {
	for half, known := range documented(t) {
		for _, dir := range installs(t) {
			for name := range settings(t, render(t, dir), "kidoban-"+half) {
				if !known[name] {
					t.Errorf("%s: the %s has no setting %s", dir, half, name)
				}
			}
		}
	}
}

// TestOverlaysChangeSettings covers each overlay and component.
func TestOverlaysChangeSettings(t *testing.T) {
	for dir, want := range map[string]map[string]string{
		"config/default":            {"ENFORCING_MODE": "standard", "AUDIT": "false", "EVENT_LOG_FILE": "/var/log/kidoban/flow.log"},
		"config/overlays/strict":    {"ENFORCING_MODE": "strict"},
		"config/overlays/audit":     {"AUDIT": "true", "ENFORCING_MODE": "standard"},
		"config/overlays/eks-audit": {"AUDIT": "true", "METRICS_BIND_ADDRESS": ":9162", "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:9163"},
		"config/overlays/eks":       {"METRICS_BIND_ADDRESS": ":9162", "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:9163"},
		"hack/manifests/testdata":   {"NRI_SOCKET": ""},
		"examples/terraform/eks/kidoban": {
			"ENABLE_CLOUDWATCH_LOGS": "true", "CLUSTER_NAME": "my-cluster", "REMOVE_STARTUP_TAINT": "true", "ENFORCING_MODE": "strict",
			"METRICS_BIND_ADDRESS": ":9162",
		},
	} {
		got := settings(t, render(t, dir), "kidoban-agent")
		for name, value := range want {
			if v, ok := got[name]; !ok || v != value {
				t.Errorf("%s: %s=%q, want %q", dir, name, v, value)
			}
		}
	}
}

// testdata has the components that no overlay has.
func TestComponents(t *testing.T) {
	r := render(t, "hack/manifests/testdata")
	volumes := map[string]string{} // the node's paths, by name
	for _, v := range agentOf(t, r).Spec.Template.Spec.Volumes {
		if v.HostPath != nil {
			volumes[v.Name] = v.HostPath.Path
		}
	}
	if volumes["nri"] != "" {
		t.Error("no-nri mounts the socket")
	}
	if socket := settings(t, r, "kidoban-agent")["VPC_CNI_SOCKET"]; socket != "/var/run/aws-node/npa.sock" || volumes["vpc-cni"] != filepath.Dir(socket) {
		t.Errorf("vpc-cni mounts %q for the socket %q", volumes["vpc-cni"], socket)
	}
	for _, id := range []string{"PodMonitor/kidoban-agent", "ServiceMonitor/kidoban-controller", "PrometheusRule/kidoban", "ConfigMap/kidoban-dashboard"} {
		if r[id] == nil {
			t.Errorf("the component prometheus lacks %s", id)
		}
	}
	for id, list := range map[string]string{"PodMonitor/kidoban-agent": "podMetricsEndpoints", "ServiceMonitor/kidoban-controller": "endpoints"} {
		spec := decode[map[string]any](t, r, id)["spec"].(map[string]any)
		endpoint := spec[list].([]any)[0].(map[string]any)
		if endpoint["scheme"] != "https" || endpoint["bearerTokenFile"] == nil || endpoint["tlsConfig"] == nil {
			t.Errorf("%s does not scrape secure metrics: %v", id, endpoint)
		}
	}
	for _, half := range []string{"kidoban-agent", "kidoban-controller"} {
		if settings(t, r, half)["SECURE_METRICS"] != "true" {
			t.Errorf("the metrics of %s are not secure", half)
		}
	}
	used := map[string]bool{}
	for _, file := range glob(t, "config/overlays/*/kustomization.yaml", "examples/terraform/eks/kidoban/kustomization.yaml", "hack/manifests/testdata/kustomization.yaml",
		"hack/manifests/testdata/boot-guard/kustomization.yaml", "hack/manifests/testdata/pod-events/kustomization.yaml", "hack/manifests/testdata/observer-ui/kustomization.yaml", "hack/manifests/testdata/cluster-network-policy*/kustomization.yaml") {
		var k struct{ Components []string }
		if err := yaml.Unmarshal(read(t, file), &k); err != nil {
			t.Fatal(err)
		}
		for _, c := range k.Components {
			used[filepath.Base(c)] = true
		}
	}
	for _, file := range glob(t, "config/components/*/kustomization.yaml") {
		if name := filepath.Base(filepath.Dir(file)); !used[name] {
			t.Errorf("no test renders the component %s", name)
		}
	}
}

// documented are the settings of each half, by the tables of docs/configuration.md.
func documented(t *testing.T) map[string]map[string]bool {
	t.Helper()
	page := string(read(t, filepath.Join(repo, "docs", "configuration.md")))
	out := map[string]map[string]bool{}
	for _, half := range []string{"agent", "controller"} {
		_, rest, ok1 := strings.Cut(page, "<!-- BEGIN "+half+" -->")
		table, _, ok2 := strings.Cut(rest, "<!-- END "+half+" -->")
		if !ok1 || !ok2 {
			t.Fatalf("no table of the %s", half)
		}
		out[half] = map[string]bool{}
		for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(table, -1) {
			out[half][m[1]] = true
		}
	}
	return out
}

func isComponent(t *testing.T, file string) bool {
	t.Helper()
	var k struct{ Kind string }
	if err := yaml.Unmarshal(read(t, file), &k); err != nil {
		t.Fatal(err)
	}
	return k.Kind == "Component"
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func glob(t *testing.T, patterns ...string) []string {
	t.Helper()
	var out []string
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(repo, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		out = append(out, files...)
	}
	return out
}
