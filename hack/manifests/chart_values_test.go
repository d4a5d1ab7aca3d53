package manifests

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestEveryValueChangesTheChart: a value that changes nothing would be one that its user relies on in vain.
func TestEveryValueChangesTheChart(t *testing.T) {
	base := values{"prometheus": values{"enabled": true}, "observer": values{"enabled": true}, "cloudWatch": values{"enabled": true, "clusterName": "some-cluster"}}
	before := renderChart(t, "kidoban-system", base)
	for _, leaf := range leaves(t) {
		t.Run(leaf.name(), func(t *testing.T) {
			now := leaf.of(base)
			if now == nil {
				now = leaf.value
			}
			v := with(base, leaf.path, leaf.schema.other(t, now))
			if reflect.DeepEqual(before, renderChart(t, "kidoban-system", v)) {
				t.Errorf("%v renders the same", v)
			}
		})
	}
}

// TestNoValueTakesAgentsOffTheirNodes: null is an error of the schema, and what is empty leaves the agents' place, priority and limits as they are.
func TestNoValueTakesAgentsOffTheirNodes(t *testing.T) {
	standard := agentOf(t, renderChart(t, "kidoban-system", nil)).Spec.Template.Spec
	if !slices.Contains(standard.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists}) || standard.PriorityClassName != "system-node-critical" ||
		!reflect.DeepEqual(standard.NodeSelector, map[string]string{"kubernetes.io/os": "linux"}) || standard.Affinity != nil {
		t.Fatalf("agents do not run on each Linux node, of whatever architecture: %+v", standard)
	}
	for _, leaf := range leaves(t) {
		if _, err := tryChart(t, "kidoban-system", with(values{}, leaf.path, nil)); err == nil {
			t.Errorf("%s: null is accepted", leaf.name())
		}
		for _, empty := range []any{"", 0, false, []any{}, values{}} {
			r, err := tryChart(t, "kidoban-system", with(values{}, leaf.path, empty))
			if err != nil {
				continue
			}
			agent := agentOf(t, r).Spec.Template.Spec
			if !reflect.DeepEqual(agent.Tolerations, standard.Tolerations) || agent.PriorityClassName != standard.PriorityClassName ||
				!reflect.DeepEqual(agent.NodeSelector, standard.NodeSelector) || !reflect.DeepEqual(agent.Affinity, standard.Affinity) ||
				agent.Containers[0].Resources.Limits.Memory().IsZero() || controllerOf(t, r).Spec.Template.Spec.Containers[0].Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: %#v changes where agents run, or what limits them", leaf.name(), empty)
			}
		}
	}
}

// TestValuesThatAreErrors covers those that the chart does not have, in each of its maps, and others that would not work.
func TestValuesThatAreErrors(t *testing.T) {
	wrong := map[string]values{
		"a mode":                   {"mode": "permissive"},
		"a setting":                {"agent": values{"settings": values{"EVENT_LOG_FORMATS": "json"}}},
		"a reserved setting":       {"agent": values{"settings": values{"CLEANUP": "true"}}},
		"a value's setting":        {"agent": values{"settings": values{"AUDIT": "true"}}},
		"a setting of another":     {"controller": values{"settings": values{"EVENT_LOG_FORMAT": "json"}}},
		"a number as a setting":    {"agent": values{"settings": values{"EVENT_BURST": 1000000}}},
		"CloudWatch, no cluster":   {"cloudWatch": values{"enabled": true}},
		"boot guard, no NRI":       {"bootGuard": true, "nri": false},
		"another system":           {"controller": values{"nodeSelector": values{"kubernetes.io/os": "windows"}}},
		"no agents at once":        {"agent": values{"maxUnavailable": 0}},
		"a digest":                 {"image": values{"digests": values{"agent": "sha256:123"}}},
		"a boolean that is quoted": {"audit": "false"},
		"null for a map":           {"agent": nil},
		"null below a map":         {"agent": values{"resources": values{"limits": nil}}},
	}
	var maps func(path []string, v values)
	maps = func(path []string, v values) {
		if s := schemaOf(t, path); s.AdditionalProperties == nil || s.AdditionalProperties == false {
			wrong[strings.Join(append(path, "unknown"), ".")] = with(values{}, append(slices.Clone(path), "unknown"), "x")
		}
		for name, below := range v {
			if below, ok := below.(values); ok {
				maps(append(slices.Clone(path), name), below)
			}
		}
	}
	maps(nil, defaults(t))
	if len(wrong) < 20 {
		t.Errorf("only %d cases", len(wrong))
	}
	for name, v := range wrong {
		if _, err := tryChart(t, "kidoban-system", v); err == nil {
			t.Errorf("%s: %v is accepted", name, v)
		}
	}
}

// TestValuesAreDocumented compares the table of docs/helm.md with values.yaml.
func TestValuesAreDocumented(t *testing.T) {
	page := string(read(t, filepath.Join(repo, "docs", "helm.md")))
	for _, leaf := range leaves(t) {
		names := leaf.path
		for !strings.Contains(page, "| `"+strings.Join(names, ".")+"`") {
			if names = names[:len(names)-1]; len(names) == 0 {
				t.Errorf("docs/helm.md lacks %s", leaf.name())
				break
			}
		}
	}
}

// A leaf is a value of values.yaml that is no map, or one whose keys its user chooses.
type leaf struct {
	path   []string
	value  any
	schema schema
}

func (l leaf) name() string { return strings.Join(l.path, ".") }

// of is what some values have for it.
func (l leaf) of(v values) any {
	var at any = v
	for _, name := range l.path {
		m, ok := at.(values)
		if !ok {
			return nil
		}
		at = m[name]
	}
	return at
}

func leaves(t *testing.T) []leaf {
	t.Helper()
	var out []leaf
	var walk func(path []string, v any)
	walk = func(path []string, v any) {
		m, ok := v.(values)
		if !ok || len(m) == 0 {
			out = append(out, leaf{path, v, schemaOf(t, path)})
			return
		}
		for name, below := range m {
			walk(append(slices.Clone(path), name), below)
		}
	}
	walk(nil, defaults(t))
	if len(out) < 25 {
		t.Fatalf("only %d values were found", len(out))
	}
	return out
}

func defaults(t *testing.T) values {
	t.Helper()
	var v values
	if err := yaml.Unmarshal(read(t, filepath.Join(chartDir, "values.yaml")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// with returns a copy of the values with another one at a path.
func with(v values, path []string, value any) values {
	out := values{}
	for name, x := range v {
		out[name] = x
	}
	if len(path) == 1 {
		out[path[0]] = value
		return out
	}
	below, _ := out[path[0]].(values)
	out[path[0]] = with(below, path[1:], value)
	return out
}

// schema is what these tests read of a JSON schema.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Enum, Examples       []any
	Properties           map[string]schema
	Definitions          map[string]schema
	AdditionalProperties any
}

func schemaOf(t *testing.T, path []string) schema {
	t.Helper()
	var root schema
	if err := json.Unmarshal(read(t, filepath.Join(chartDir, "values.schema.json")), &root); err != nil {
		t.Fatal(err)
	}
	s := root
	for _, name := range path {
		below, ok := s.Properties[name]
		if !ok {
			t.Fatalf("the schema has no %s", strings.Join(path, "."))
		}
		if below.Ref != "" {
			examples := below.Examples
			if below, ok = root.Definitions[strings.TrimPrefix(below.Ref, "#/definitions/")]; !ok {
				t.Fatalf("the schema has no definition for %s", strings.Join(path, "."))
			}
			if examples != nil {
				below.Examples = examples
			}
		}
		s = below
	}
	return s
}

// other returns a valid value that is not the one given.
func (s schema) other(t *testing.T, now any) any {
	t.Helper()
	for _, v := range append(s.Examples, s.Enum...) {
		if !reflect.DeepEqual(v, now) {
			return v
		}
	}
	switch v := now.(type) {
	case bool:
		return !v
	case float64:
		return v + 1
	}
	t.Fatalf("the schema has no example that is not %v", now)
	return nil
}
