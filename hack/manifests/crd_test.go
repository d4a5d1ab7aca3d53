package manifests

import (
	"path/filepath"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/crdify/pkg/config"
	"sigs.k8s.io/crdify/pkg/runner"
	"sigs.k8s.io/yaml"
)

// The CRDs can take the place of the last release's, whose copies are in testdata/released: no field is gone, none is needed that was not, no
// bound is tighter. A change that the check does not know, as one of a CEL rule, counts as incompatible: look at it, and if whatever was
// valid still is, copy the new CRD.
func TestCRDsFollowTheLastRelease(t *testing.T) {
	for _, file := range glob(t, "config/crd/bases/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if why := incompatible(t, released(t, file), crd(t, file)); why != "" {
				t.Error(why)
			}
		})
	}
	if got, want := len(glob(t, "config/crd/bases/*.yaml")), len(glob(t, "hack/manifests/testdata/released/*.yaml")); got < want {
		t.Errorf("%d CRDs of %d that were released", got, want)
	}
}

// The check sees what it has to.
func TestIncompatibleChangesAreSeen(t *testing.T) {
	file := glob(t, "config/crd/bases/*policyendpoints.yaml")[0]
	type schema = apiextensionsv1.JSONSchemaProps
	for name, tc := range map[string]struct {
		edit func(spec *schema)
		want bool
	}{
		"a new field": {func(s *schema) { s.Properties["new"] = schema{Type: "string"} }, false},
		"a new field with a default": {func(s *schema) {
			s.Properties["new"] = schema{Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"a"`)}}
		}, true},
		"a new field that must be": {func(s *schema) { s.Properties["new"] = schema{Type: "string"}; s.Required = append(s.Required, "new") }, true},
		"a field less":             {func(s *schema) { delete(s.Properties, "priority") }, true},
		"a field of another type":  {func(s *schema) { edit(s, "priority", func(p *schema) { p.Type = "string" }) }, true},
		"a tighter bound":          {func(s *schema) { edit(s, "priority", func(p *schema) { *p.Maximum = 10 }) }, true},
		"a wider bound":            {func(s *schema) { edit(s, "priority", func(p *schema) { *p.Maximum = 10000 }) }, false},
		"fewer items":              {func(s *schema) { edit(s, "ingress", func(p *schema) { *p.MaxItems = 1 }) }, true},
		"a value less":             {func(s *schema) { edit(s, "tier", func(p *schema) { p.Enum = p.Enum[1:] }) }, true},
		"one more rule":            {func(s *schema) { edit(s, "egress", func(p *schema) { p.XValidations = nil }) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			changed := crd(t, file)
			spec := changed.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
			tc.edit(&spec)
			changed.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = spec
			if why := incompatible(t, crd(t, file), changed); (why != "") != tc.want {
				t.Errorf("incompatible: %q, want %t", why, tc.want)
			}
		})
	}
	t.Run("a version less", func(t *testing.T) {
		changed := crd(t, file)
		changed.Spec.Versions[0].Name = "v1beta1"
		if incompatible(t, crd(t, file), changed) == "" {
			t.Error("it is not seen")
		}
	})
}

func edit(s *apiextensionsv1.JSONSchemaProps, property string, f func(*apiextensionsv1.JSONSchemaProps)) {
	p := s.Properties[property]
	f(&p)
	s.Properties[property] = p
}

// incompatible says what of the old CRD's is not kept; nothing: "".
func incompatible(t *testing.T, old, changed *apiextensionsv1.CustomResourceDefinition) string {
	t.Helper()
	cfg := &config.Config{}
	if err := config.ValidateConfig(cfg); err != nil { // and fill in its defaults
		t.Fatal(err)
	}
	checks, err := runner.New(cfg, runner.DefaultRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range old.Spec.Versions {
		if !slices.ContainsFunc(changed.Spec.Versions, func(c apiextensionsv1.CustomResourceDefinitionVersion) bool {
			return c.Name == v.Name && (c.Served || !v.Served)
		}) {
			return "version " + v.Name + " is no longer served"
		}
	}
	if field := newDefault("", old.Spec.Versions[0].Schema.OpenAPIV3Schema, changed.Spec.Versions[0].Schema.OpenAPIV3Schema); field != "" {
		return field + " is new and has a default: the API server would add it to objects of writers that do not know it, and older agents isolate their pods"
	}
	results := checks.Run(old, changed)
	if !results.HasFailures() {
		return ""
	}
	return results.RenderPlainText()
}

// newDefault names a field with a default that the old schema does not have.
func newDefault(path string, old, changed *apiextensionsv1.JSONSchemaProps) string {
	for name, p := range changed.Properties {
		before, known := old.Properties[name]
		if !known {
			if p.Default != nil {
				return path + "." + name
			}
			continue // the API server adds nothing below an absent field
		}
		if field := newDefault(path+"."+name, &before, &p); field != "" {
			return field
		}
		if p.Items != nil && p.Items.Schema != nil {
			items := &apiextensionsv1.JSONSchemaProps{}
			if before.Items != nil && before.Items.Schema != nil {
				items = before.Items.Schema
			}
			if field := newDefault(path+"."+name, items, p.Items.Schema); field != "" {
				return field
			}
		}
	}
	return ""
}

func released(t *testing.T, file string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	return crd(t, filepath.Join("testdata", "released", filepath.Base(file)))
}

func crd(t *testing.T, file string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	out := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(read(t, file), out); err != nil {
		t.Fatal(err)
	}
	return out
}
