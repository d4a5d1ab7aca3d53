package model

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPositionsOfBuiltObjects: what kustomize builds has the position of the file that it was built from.
func TestPositionsOfBuiltObjects(t *testing.T) {
	const np = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: %s\nspec:\n  podSelector: {}\n  ingress:\n  - {}\n"
	policy := func(name string) string { return strings.ReplaceAll(np, "%s", name) }
	dir := files(t, map[string]string{
		"base/kustomization.yaml": "resources: [two.yaml, pod.yaml]",
		"base/two.yaml":           "# two policies\n" + policy("web") + "---\n" + policy("web-metrics"),
		"base/pod.yaml":           "apiVersion: v1\nkind: Pod\nmetadata: {name: web}",
		"over/kustomization.yaml": "namespace: shop\nnamePrefix: eu-\nresources: [../base, own.yaml]\npatches:\n- patch: |-\n    - op: add\n      path: /spec/egress\n      value: [{}]\n  target: {kind: NetworkPolicy, name: web}\n",
		"over/own.yaml":           policy("own"),
		"json/kustomization.yml":  "{resources: [own.yaml]}",
		"json/own.yaml":           policy("own"),
	})
	for _, tc := range []struct{ root, object, path, want string }{
		{"base", "NetworkPolicy here/web", "spec.ingress[0]", "base/two.yaml:9"},
		{"base", "NetworkPolicy here/web-metrics", "spec.podSelector", "base/two.yaml:16"},
		{"over", "NetworkPolicy shop/eu-web", "metadata.name", "base/two.yaml:5"},
		{"over", "NetworkPolicy shop/eu-web", "spec.egress[0]", "base/two.yaml:6"}, // of the patch: the field above it
		{"over", "NetworkPolicy shop/eu-web-metrics", "spec.ingress", "base/two.yaml:17"},
		{"over", "NetworkPolicy shop/eu-own", "spec.ingress", "over/own.yaml:7"},
	} {
		c, err := ReadPaths([]string{filepath.Join(dir, tc.root)}, "here", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		file, line, _ := strings.Cut(tc.want, ":")
		at, ok := c.Position(tc.object, tc.path)
		if want := filepath.Join(dir, file); !ok || at.File != want || line != strconv.Itoa(at.Line) {
			t.Errorf("%s: %s %s is at %+v, %v; want %s", tc.root, tc.object, tc.path, at, ok, tc.want)
		}
		for i := range c.Policies {
			if len(c.Policies[i].Annotations) > 0 {
				t.Errorf("%s: annotations %v", tc.root, c.Policies[i].Annotations)
			}
		}
	}

	// A kustomization that no line can be added to is built as it is.
	c, err := ReadPaths([]string{filepath.Join(dir, "json")}, "here", strings.NewReader(""))
	if err != nil || len(c.Policies) != 1 {
		t.Fatalf("%v, %v", c, err)
	}
	if at, ok := c.Position("NetworkPolicy here/own", "spec"); ok {
		t.Errorf("%+v", at)
	}
}

// TestErrorsOfKustomizationsNameTheirOwnLines: the line that is added to a kustomization is in no message.
func TestErrorsOfKustomizationsNameTheirOwnLines(t *testing.T) {
	dir := files(t, map[string]string{"kustomization.yaml": "resources: [none.yaml]\nnonsense: true"})
	_, err := ReadPaths([]string{dir}, "here", strings.NewReader(""))
	if err == nil || !strings.Contains(err.Error(), "nonsense") || strings.Contains(err.Error(), "buildMetadata") {
		t.Errorf("%v", err)
	}
}
