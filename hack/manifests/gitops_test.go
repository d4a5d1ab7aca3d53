package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// TestGitOpsExamples looks that the manifests for Argo CD and Flux can be read, that the values in them are valid, and that their paths and
// versions are the repository's.
func TestGitOpsExamples(t *testing.T) {
	n := 0
	for _, file := range glob(t, "examples/gitops/*/*.yaml") {
		for _, o := range documents(t, file) {
			n++
			spec, _ := o["spec"].(values)
			switch o["kind"] {
			case "Application":
				source := spec["source"].(values)
				if helm, ok := source["helm"].(values); ok {
					checkSource(t, file, source["targetRevision"], source["path"])
					checkValues(t, file, helm["valuesObject"])
				}
			case "HelmRelease":
				checkSource(t, file, nil, spec["chart"].(values)["spec"].(values)["chart"])
				checkValues(t, file, spec["values"])
				want(t, file+": CRDs on upgrade", spec["upgrade"].(values)["crds"], any("CreateReplace"))
			case "GitRepository":
				if tag := spec["ref"].(values)["tag"]; tag != nil {
					checkSource(t, file, tag, "charts/kidoban")
				}
			case "Kustomization":
				for _, check := range spec["healthChecks"].([]any) {
					id := check.(values)["kind"].(string) + "/" + check.(values)["name"].(string)
					if render(t, "config/default")[id] == nil {
						t.Errorf("%s: there is no %s", file, id)
					}
				}
			case "ConfigMap", "Namespace":
			default:
				t.Errorf("%s: no test covers the kind %v", file, o["kind"])
			}
		}
	}
	if n < 6 {
		t.Errorf("only %d objects were found", n)
	}
}

func checkSource(t *testing.T, file string, revision, path any) {
	t.Helper()
	if revision != nil {
		want(t, file+": version", revision, any(loadChart(t).Metadata.AppVersion))
	}
	if _, err := os.Stat(filepath.Join(repo, path.(string), "Chart.yaml")); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

func checkValues(t *testing.T, file string, v any) {
	t.Helper()
	if _, err := tryChart(t, "kidoban-system", v.(values)); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// TestHealthForArgoCD runs the script as Argo CD does: with the object as obj.
func TestHealthForArgoCD(t *testing.T) {
	var settings corev1.ConfigMap
	if err := yaml.UnmarshalStrict(read(t, filepath.Join(repo, "examples", "gitops", "argocd", "settings.yaml")), &settings); err != nil {
		t.Fatal(err)
	}
	for kind, prefix := range map[string]string{
		"policy.networking.k8s.io_ClusterNetworkPolicy": "kidoban.dev/",
		"networking.kidoban.dev_PolicyEndpoint":         "",
		"networking.kidoban.dev_ClusterPolicyEndpoint":  "",
	} {
		script := settings.Data["resource.customizations.health."+kind]
		condition := func(name, status string, generation int) string {
			return fmt.Sprintf(`{type: %s%s, status: %q, observedGeneration: %d, message: m}`, prefix, name, status, generation)
		}
		for name, tc := range map[string]struct {
			conditions []string // none: no status
			want       string
		}{
			"no status":                 {nil, "Progressing"},
			"no condition of ours":      {[]string{`{type: example.com/Ready, status: "True"}`}, "Progressing"},
			"resolved, without reports": {[]string{condition("Resolved", "True", 2)}, "Healthy"},
			"an older generation":       {[]string{condition("Resolved", "True", 1), condition("InForce", "True", 1)}, "Progressing"},
			"not resolved":              {[]string{condition("Resolved", "False", 2), condition("InForce", "True", 2)}, "Degraded"},
			"in force":                  {[]string{condition("InForce", "True", 2), condition("Resolved", "True", 2)}, "Healthy"},
			"not in force":              {[]string{condition("Resolved", "True", 2), condition("InForce", "False", 2)}, "Progressing"},
			"the older one in force":    {[]string{condition("Resolved", "True", 2), condition("InForce", "True", 1)}, "Progressing"},
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				text := `{metadata: {generation: 2}}`
				if tc.conditions != nil {
					text = `{metadata: {generation: 2}, status: {conditions: [` + strings.Join(tc.conditions, ", ") + `]}}`
				}
				want(t, "status", healthOf(t, script, text), tc.want)
			})
		}
	}
}

// healthOf runs a script about an object.
func healthOf(t *testing.T, script, text string) string {
	t.Helper()
	var object values
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	l := lua.NewState()
	defer l.Close()
	l.SetGlobal("obj", toLua(l, object))
	if err := l.DoString(script); err != nil {
		t.Fatal(err)
	}
	health, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returns %v", l.Get(-1))
	}
	return health.RawGetString("status").String()
}

func toLua(l *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case values:
		table := l.NewTable()
		for key, x := range v {
			table.RawSetString(key, toLua(l, x))
		}
		return table
	case []any:
		table := l.NewTable()
		for _, x := range v {
			table.Append(toLua(l, x))
		}
		return table
	case string:
		return lua.LString(v)
	case float64:
		return lua.LNumber(v)
	case int64:
		return lua.LNumber(v)
	}
	return lua.LNil
}

// documents reads all objects of a file.
func documents(t *testing.T, file string) []values {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(read(t, file))))
	var out []values
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		var o values
		if err == nil {
			err = yaml.UnmarshalStrict(document, &o)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if strings.TrimSpace(string(document)) != "" {
			out = append(out, o)
		}
	}
}
