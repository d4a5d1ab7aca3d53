package migrate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExpandGlobalWithMissingNamespaces: GlobalNetworkPolicies name namespaces whose objects are not in the input.
func TestExpandGlobalWithMissingNamespaces(t *testing.T) {
	const shop = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: shop}}\n"
	const noMetadataService = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-metadata-service}
spec:
  order: 10
  types: [Egress]
  egress:
  - {action: Deny, destination: {nets: [169.254.169.254/32]}}
  - {action: Allow}
`
	policy := func(name, spec string) string {
		return "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " + name + "}\nspec: {types: [Ingress, Egress], " + spec + "}\n"
	}
	for name, tc := range map[string]struct {
		manifests string
		want      []string
		wantNot   string
	}{
		"excluded by name": {shop + "---" + noMetadataService + policy("deny", `namespaceSelector: 'projectcalico.org/name != "kube-system"'`),
			[]string{"Namespaces that are not in the input, and not in the proof\n  GlobalNetworkPolicy deny\n", "it names namespace kube-system:", "Proven", "exit code 0"}, "Notes"},
		"several excluded": {shop + "---" + noMetadataService + policy("deny", `namespaceSelector: 'kubernetes.io/metadata.name not in {"ops", "shop", "web"}'`),
			[]string{"it names namespace ops:", "it names namespace web:", "Proven", "exit code 0"}, "names namespace shop"},
		"excluded by the pods' selector": {shop + "---" + noMetadataService + policy("deny", `selector: 'projectcalico.org/namespace not in {"calico-system", "shop"}'`),
			[]string{"it names namespace calico-system:", "Proven", "exit code 0"}, "NOT PROVEN"},
		"a name that changes nothing": {shop + "---" + noMetadataService + policy("deny", `namespaceSelector: 'kubernetes.io/metadata.name == "gone" || kubernetes.io/metadata.name != "gone"'`),
			[]string{"it names namespace gone:", "Proven", "exit code 0"}, "NOT PROVEN"},
		"selected by name beside a policy for all": {shop + "---" + noMetadataService + policy("open", `namespaceSelector: 'kubernetes.io/metadata.name in {"lab", "shop"}', egress: [{action: Allow}]`),
			[]string{"namespace: lab", "Proven", "in 2 namespaces", "exit code 0"}, "NOT PROVEN"},
		"selected by name beside labels": {shop + "---" + noMetadataService + policy("open", `namespaceSelector: 'kubernetes.io/metadata.name in {"lab"}', egress: [{action: Allow}]`) +
			policy("team", `namespaceSelector: 'team == "shop"', order: 20, egress: [{action: Deny}]`),
			[]string{"the labels of namespace lab are not known", "give the Namespace object too", "exit code 1"}, "NOT PROVEN"},
		"none missing": {shop + "---" + noMetadataService + policy("deny", `namespaceSelector: 'kubernetes.io/metadata.name not in {"shop"}'`),
			[]string{"Proven", "exit code 0"}, "not in the input"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "in.yaml")
			if err := os.WriteFile(file, []byte(tc.manifests), 0o600); err != nil {
				t.Fatal(err)
			}
			got := runMigrate("calico", "convert", "--expand-global", "-f", file)
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if strings.Contains(got, tc.wantNot) {
				t.Errorf("%q is there", tc.wantNot)
			}
			if t.Failed() {
				t.Log(got)
			}
		})
	}
}
