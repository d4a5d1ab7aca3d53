package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

var chartDir = filepath.Join(repo, "charts", "kidoban")

type values = map[string]any

// equal are kustomizations, and the values with which the chart installs the same objects.
var equal = map[string]values{
	"config/default":          {},
	"config/overlays/audit":   {"audit": true},
	"config/overlays/strict":  {"mode": "strict"},
	"config/overlays/eks":     {"eks": true},
	"config/overlays/local":   {"image": values{"tag": "dev", "pullPolicy": "Never"}},
	"hack/manifests/testdata": {"nri": false, "prometheus": values{"enabled": true}, "secureMetrics": true, "vpcCNI": true},

	"config/overlays/observer":            {"observer": values{"enabled": true}},
	"hack/manifests/testdata/pod-events":  {"observer": values{"enabled": true, "settings": values{"POD_EVENTS": "true"}}},
	"hack/manifests/testdata/observer-ui": {"observer": values{"enabled": true, "settings": values{"UI_URL": "https://tools.example.com/kidoban/"}}},
	"config/overlays/eks-audit":           {"eks": true, "audit": true},
	"hack/manifests/testdata/boot-guard":  {"bootGuard": true},
	"examples/terraform/eks/kidoban": {
		"eks": true, "mode": "strict", "startupTaint": true, "cloudWatch": values{"enabled": true, "clusterName": "my-cluster"},
	},
}

// TestChartEqualsKustomizations covers each overlay and component. Names are equal too, with the hash of the settings, so that pods stay as they
// are when a cluster moves from one to the other. The chart leaves out the namespace, which a release needs before its objects, and Helm keeps
// the settings that pods may still refer to.
func TestChartEqualsKustomizations(t *testing.T) {
	for _, dir := range installs(t) {
		if equal[dir] == nil {
			t.Errorf("no values of the chart are compared with %s", dir)
		}
	}
	for dir, v := range equal {
		t.Run(dir, func(t *testing.T) {
			kustomized, charted := parse(t, render(t, dir)), parse(t, renderChart(t, "kidoban-system", v))
			delete(kustomized, "Namespace/kidoban-system")
			for id, o := range charted {
				annotations, _ := o["metadata"].(values)["annotations"].(values)
				keep := annotations["helm.sh/resource-policy"] == "keep"
				if settings := strings.Contains(id, "-settings-"); keep != settings {
					t.Errorf("%s: kept by Helm: %t, want %t", id, keep, settings)
				}
				delete(annotations, "helm.sh/resource-policy")
			}
			for id := range charted {
				if kustomized[id] == nil {
					t.Errorf("only the chart has %s", id)
				}
			}
			for id, o := range kustomized {
				if charted[id] == nil {
					t.Errorf("the chart lacks %s", id)
				} else if diff := cmp.Diff(o, charted[id]); diff != "" {
					t.Errorf("%s: kustomize (-), chart (+):\n%s", id, diff)
				}
			}
		})
	}
}

// TestChartRendersTheSameTwice also looks for what would make a difference on a cluster: Argo CD would never be in sync.
func TestChartRendersTheSameTwice(t *testing.T) {
	all := everything()
	if diff := cmp.Diff(renderChart(t, "kidoban-system", all), renderChart(t, "kidoban-system", all)); diff != "" {
		t.Error(diff)
	}
	for _, file := range glob(t, "charts/kidoban/templates/*") {
		for _, word := range []string{"lookup", "randAlpha", "randBytes", "genCA", "genSigned", "genSelf", "genPrivateKey", "uuidv4", " now", "helm.sh/hook", ".Capabilities"} {
			if bytes.Contains(read(t, file), []byte(word)) {
				t.Errorf("%s has %q", file, word)
			}
		}
	}
}

func TestChartInAnotherNamespace(t *testing.T) {
	for id, text := range renderChart(t, "policies", everything()) {
		if strings.Contains(string(text), "kidoban-system") && id != "ConfigMap/kidoban-dashboard" {
			t.Errorf("%s names kidoban-system", id)
		}
	}
}

func TestChartLint(t *testing.T) {
	for _, v := range []values{{}, everything()} {
		for _, m := range lint.RunAll(chartDir, v, "kidoban-system").Messages {
			if !strings.Contains(m.Err.Error(), "icon is recommended") {
				t.Errorf("%s: %v", m.Path, m.Err)
			}
		}
	}
}

// TestChartsVersion is the one of the images in config/default.
func TestChartsVersion(t *testing.T) {
	c := loadChart(t)
	if c.Metadata.AppVersion != "v"+c.Metadata.Version {
		t.Errorf("version %s, appVersion %s", c.Metadata.Version, c.Metadata.AppVersion)
	}
	if image := agentOf(t, render(t, "config/default")).Spec.Template.Spec.Containers[0].Image; !strings.HasSuffix(image, ":"+c.Metadata.AppVersion) {
		t.Errorf("config/default has the image %s", image)
	}
}

// TestDigestsOfImages: a digest takes the place of the tag.
func TestDigestsOfImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	r := renderChart(t, "kidoban-system", values{"image": values{"registry": "example.com/k", "tag": "v2", "digests": values{"agent": digest}}})
	want(t, "the agent's image", agentOf(t, r).Spec.Template.Spec.Containers[0].Image, "example.com/k/agent@"+digest)
	want(t, "the controller's image", controllerOf(t, r).Spec.Template.Spec.Containers[0].Image, "example.com/k/controller:v2")
}

// everything are the values with every part of the chart on.
func everything() values {
	return values{
		"mode": "strict", "audit": true, "eks": true, "vpcCNI": true, "bootGuard": true, "startupTaint": true, "secureMetrics": true,
		"cloudWatch": values{"enabled": true, "clusterName": "my-cluster"}, "prometheus": values{"enabled": true}, "observer": values{"enabled": true},
	}
}

// TestEveryProgramIsScraped: the alerts are about metrics of each program that has a port for them.
func TestEveryProgramIsScraped(t *testing.T) {
	r := renderChart(t, "kidoban-system", everything())
	scraped := map[string]bool{} // components
	programs := 0
	all := parse(t, r)
	for id, o := range all {
		if kind, _, _ := strings.Cut(id, "/"); kind == "PodMonitor" || kind == "ServiceMonitor" {
			selector := o["spec"].(values)["selector"].(values)["matchLabels"].(values)
			scraped[selector["app.kubernetes.io/component"].(string)] = true
		}
	}
	for id := range all {
		var pod corev1.PodTemplateSpec
		switch kind, _, _ := strings.Cut(id, "/"); kind {
		case "Deployment":
			pod = decode[appsv1.Deployment](t, r, id).Spec.Template
		case "DaemonSet":
			pod = decode[appsv1.DaemonSet](t, r, id).Spec.Template
		}
		for _, c := range pod.Spec.Containers {
			for _, p := range c.Ports {
				if p.Name != "metrics" {
					continue
				}
				programs++
				if component := pod.Labels["app.kubernetes.io/component"]; !scraped[component] {
					t.Errorf("no monitor selects the %s", component)
				}
			}
		}
	}
	if programs != 3 {
		t.Errorf("%d programs have metrics, want 3", programs)
	}
}

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func renderChart(t *testing.T, namespace string, v values) rendered {
	t.Helper()
	r, err := tryChart(t, namespace, v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tryChart renders the chart as `helm template` does. An error is also the schema's.
func tryChart(t *testing.T, namespace string, v values) (rendered, error) {
	t.Helper()
	c := loadChart(t)
	all, err := util.ToRenderValues(c, v, common.ReleaseOptions{Name: "kidoban", Namespace: namespace, Revision: 1, IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	out := rendered{}
	for _, crd := range c.CRDObjects() {
		out.add(t, crd.Filename, crd.File.Data)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			out.add(t, name, []byte(files[name]))
		}
	}
	return out, nil
}

// add adds the documents of a file.
func (r rendered) add(t *testing.T, name string, text []byte) {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		var o struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err == nil {
			err = yaml.Unmarshal(document, &o)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if o.Kind == "" {
			continue // only comments
		}
		id := o.Kind + "/" + o.Metadata.Name
		if r[id] != nil {
			t.Errorf("%s is there twice", id)
		}
		r[id] = document
	}
}

// parse reads all objects.
func parse(t *testing.T, r rendered) map[string]values {
	t.Helper()
	out := map[string]values{}
	for id, text := range r {
		var o values
		if err := yaml.Unmarshal(text, &o); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		out[id] = o
	}
	return out
}
