package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func podNames(c *Cluster) string {
	var names []string
	for i := range c.Pods {
		names = append(names, c.Pods[i].Name)
	}
	return strings.Join(names, " ")
}

func TestWhereDocumentsEnd(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n--- # next\napiVersion: v1\nkind: Pod\nmetadata: {name: b}":                                    "a b",
		"---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\n# nothing\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n---":            "a b",
		"apiVersion: v1\r\nkind: Pod\r\nmetadata: {name: a}\r\n---\r\napiVersion: v1\r\nkind: Pod\r\nmetadata: {name: b}\r\n":                           "a b",
		"\xef\xbb\xbfapiVersion: v1\nkind: Pod\nmetadata: {name: a}\n":                                                                                  "a",
		"%YAML 1.1\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n":                                                                              "a",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n...\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n":                                         "a b",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n... # the end\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n...\n":                     "a b",
		`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}}`:                  "a b",
		`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}` + "\n---\n" + `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}}`: "a b",
		`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}` + "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n":                    "a b",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n" + `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}}`:                      "a b",
		"{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: b}}\n":                                     "a b",
		"{\n\t\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}}\n":                                                            "a",
		`{"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}`:                                  "a b",
		"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- kind: List\n  apiVersion: v1\n" +
			"  items: [{apiVersion: v1, kind: Pod, metadata: {name: b}}]\n": "a b",
		"kind: ConfigMap\napiVersion: v1\nmetadata: {name: c}\ndata:\n  text: |\n    ---\n    {{ not a template }}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n": "a",
	} {
		c, err := read(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := podNames(c); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

const deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: a}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n"

func TestInputThatCannotBeRead(t *testing.T) {
	for text, want := range map[string]string{
		"kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: a, namespace: b}\nspec: {podselector: {}}": `document 1: NetworkPolicy b/a: unknown field "spec.podselector"`,
		"kind: Pod\napiVersion: v1\nmetadata: {name: a, lables: {app: a}}":                                                  `unknown field "metadata.lables"`,
		deny + "---\nkind: Pod\napiVersion: v1\nspec: {containers: 5}":                                                      "document 2: Pod",
		"- kind: Pod\n- kind: Pod":                                                                                                                        "document 1: not a Kubernetes object: put ---",
		"kind: Pod\nmetadata: {name: {{ .Values.name }}}":                                                                                                 "an unrendered template",
		"{{- if .Values.on }}\nkind: Pod\n{{- end }}":                                                                                                     "an unrendered template",
		"kind: Pod\napiVersion: v1\nmetadata: {name: \"{{ .Release.Name }}-web\"}":                                                                        "an unrendered template",
		"kind: Pod\napiVersion: v1\nmetadata: {name: web, labels: {app: \"{{ .Values.app }}\"}}":                                                          "an unrendered template",
		"kind: Pod\napiVersion: v1\nmetadata: {name: web, labels: {app: \"${APP}\"}}":                                                                     "an unrendered template",
		strings.Replace(deny, "podSelector: {}", `podSelector: {matchLabels: {app: "{{ .Values.app }}"}}`, 1):                                             "an unrendered template",
		strings.Replace(deny, "Ingress", `"{{ .Values.type }}"`, 1):                                                                                       "an unrendered template",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: \"{{ .Values.n }}\"}":                                               "an unrendered template",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: c, image: \"{{ .Values.image }}\"}]}}}": "an unrendered template",
		"--- {kind: Pod}\n": "document 1",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: Web_1}":                                          "metadata.name: Invalid value",
		"apiVersion: v1\nkind: Pod\nmetadata: {}":                                                     "metadata.name: Required value",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: a b}}":                          "metadata.labels: Invalid value",
		"apiVersion: v1\nmetadata: {name: a}":                                                         "it has no kind",
		"kind: Pod\nmetadata: {name: a}":                                                              "it has no apiVersion",
		"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]":       "render it first",
		"apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {}":          `no kind "NetworkPolicy" in version "extensions/v1beta1": write kind NetworkPolicy, apiVersion networking.k8s.io/v1`,
		"apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {}":   `no kind "NetworkPolicy" in version "networking.k8s.io/v1beta1"`,
		"apiVersion: v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {}":                          `no kind "NetworkPolicy" in version "v1"`,
		"apiVersion: networking.k8s.io/v1\nkind: networkpolicy\nmetadata: {name: a}\nspec: {}":        `no kind "networkpolicy"`,
		"apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {}}": `no kind "Deployment" in version "extensions/v1beta1"`,
		"apiVersion: batch/v1beta1\nkind: CronJob\nmetadata: {name: a}\nspec: {}":                     `no kind "CronJob" in version "batch/v1beta1"`,
		"apiVersion: v1\nkind: Pod\nmetadata: {name: y}":                                              "document 1: Pod true: json: cannot unmarshal bool",
		// keys that occur twice, as text and as JSON
		deny + "kind: ConfigMap\n": `line 5: duplicate field "kind"`,
		strings.Replace(deny, "policyTypes: [Ingress]", "ingress: [{}], ingress: []", 1):                                                                          `duplicate field "ingress"`,
		"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {app: a}\n  labels: {app: b}\n":                                                               `line 6: duplicate field "labels"`,
		`{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingress": [], "ingress": [{}]}}`: `duplicate field "spec.ingress"`,
		`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b", "a": "c"}}}`:                                                          `duplicate field "metadata.labels.a"`,
	} {
		if _, err := read(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Fields that kubectl prints and this version does not know change nothing; an override of a merged key is no duplicate.
func TestInputThatKubectlAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"an empty status":                     deny + "status: {}\n",
		"fields of another version":           "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, uid: 5-6, clusterName: \"\", managedFields: [{manager: kubectl}]}\nspec: {podSelector: {}}\nstatus: {conditions: []}\n",
		"a pod as a newer server has it":      "apiVersion: v1\nkind: Pod\nmetadata: {name: p, uid: 5-6}\nspec: {containers: [{name: c}], futureField: 1}\nstatus: {future: 2}\n",
		"a merged key is overridden":          "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, labels: &l {app: a, tier: b}}\nspec: {podSelector: {matchLabels: {<<: *l, app: c}}}\n",
		"numbers and booleans quoted":         "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {on: \"yes\", n: \"1\"}}\n",
		"a template's marks in an annotation": "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {t: \"{{ .Values.x }}\"}}\nspec: {containers: [{name: c, args: [\"{{ x }}\", \"${HOME}\"]}]}\n",
	} {
		if _, err := read(t, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := mustRead(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, labels: &l {app: a, tier: b}}\nspec: {podSelector: {matchLabels: {<<: *l, app: c}}}\n")
	if got := c.Policies[0].Spec.PodSelector.MatchLabels; got["app"] != "c" || got["tier"] != "b" {
		t.Errorf("%v", got)
	}
}

func TestObjectsWithGeneratedNamesAreSeveral(t *testing.T) {
	np := strings.Replace(deny, "name: deny", "generateName: p-", 1)
	c := mustRead(t, np+"---\n"+np+"---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\n")
	if len(c.Policies) != 2 || c.Policies[0].Name == c.Policies[1].Name || podNames(c) != "p-00001 p-00002" {
		t.Errorf("%+v, %s", c.Policies, podNames(c))
	}
}

func TestPoliciesOfOtherEnginesAreNoted(t *testing.T) {
	foreign := ""
	for _, o := range []string{
		"{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: x, namespace: acme}}",
		"{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: yy}}",
		"{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: z, namespace: b}}",
		"{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: w}}",
		"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: v, namespace: b}}",
	} {
		foreign += "---\n" + o + "\n"
	}
	want := []string{
		"not evaluated: CiliumNetworkPolicy acme/x, NetworkPolicy.projectcalico.org b/z, ClusterNetworkPolicy.crd.antrea.io w, AuthorizationPolicy b/v",
		"not evaluated, as nothing enforces them (" + HintAdminPolicy + "): AdminNetworkPolicy yy",
	}
	c := mustRead(t, deny+foreign)
	if len(c.Policies) != 1 || len(c.ClusterPolicies) != 0 || !slices.Equal(c.Notes, want) {
		t.Errorf("%d policies, %q", len(c.Policies), c.Notes)
	}
	// a name that YAML takes for a boolean or a number
	c = mustRead(t, deny+"---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: y}}\n"+
		"---\n{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: 10, namespace: b}}\n")
	if len(c.Notes) != 1 || c.Notes[0] != "not evaluated: GlobalNetworkPolicy true, CiliumNetworkPolicy b/10" {
		t.Errorf("%q", c.Notes)
	}
	// in the style of files, whose kind stands in plain sight
	c = mustRead(t, "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: x\nspec: {endpointSelector: {}}\n---\n"+deny)
	if len(c.Notes) != 1 || c.Notes[0] != "not evaluated: CiliumClusterwideNetworkPolicy x" {
		t.Errorf("%q", c.Notes)
	}
}

// files writes files below a directory.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const onePod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"

func TestFilesOfOtherProgramsBesideManifests(t *testing.T) {
	for name, text := range map[string]string{
		"results.json": `[{"expected": true}]`, "number.json": "5", "package.json": `{"name": "a", "kind": ""}`,
		"values.yaml": "image: a\nreplicas: 2\n", "list.yml": "- a\n- b\n", "words.yaml": "only words\n",
	} {
		dir := files(t, map[string]string{"a.yaml": onePod, name: text})
		m := &Manifests{Namespace: "here"}
		if err := m.ReadPaths([]string{dir}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(m.Notes) != 1 || !strings.HasPrefix(m.Notes[0], "skipped "+filepath.Join(dir, name)) {
			t.Errorf("%s: %q", name, m.Notes)
		}
		if _, err := ReadPaths([]string{filepath.Join(dir, name)}, "here", nil); err == nil || !strings.Contains(err.Error(), "not a Kubernetes object") {
			t.Errorf("%s, named: %v", name, err)
		}
	}
	// an object beside something else in one file is a mistake
	dir := files(t, map[string]string{"a.yaml": onePod + "---\n- a\n"})
	if _, err := ReadPaths([]string{dir}, "here", nil); err == nil || !strings.Contains(err.Error(), "document 2: not a Kubernetes object") {
		t.Error(err)
	}
}

func TestPathsWithoutObjects(t *testing.T) {
	dir := files(t, map[string]string{
		"empty.yaml": "", "comments.yaml": "# nothing\n---\n# here\n", "list.yaml": "apiVersion: v1\nkind: List\nitems: []\n", "none/README.md": "kind: Pod",
		"kustomization.yaml": "resources: [pod.yaml]\n", "pod.yaml": onePod, "other.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
	})
	for path, want := range map[string]string{
		"empty.yaml": "no Kubernetes objects", "comments.yaml": "no Kubernetes objects", "list.yaml": "only empty Lists", "none": "no manifests there",
		"kustomization.yaml": "give its directory (-f " + dir + ")", "missing.yaml": "no such file",
	} {
		if _, err := ReadPaths([]string{filepath.Join(dir, path)}, "here", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := ReadPaths([]string{"-"}, "here", strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "stdin: no Kubernetes objects") {
		t.Error(err)
	}
	// what was read has none that count, which is an answer; an empty List beside others is what kubectl get prints of nothing
	for _, paths := range [][]string{{"other.yaml"}, {"pod.yaml", "list.yaml"}} {
		for i := range paths {
			paths[i] = filepath.Join(dir, paths[i])
		}
		if _, err := ReadPaths(paths, "here", nil); err != nil {
			t.Error(paths, err)
		}
	}
}

func TestSymbolicLinks(t *testing.T) {
	dir := files(t, map[string]string{"real/a.yaml": onePod, "real/deep/b.yaml": strings.Replace(onePod, "name: a", "name: b", 1), "linked/README": ""})
	for link, target := range map[string]string{"link": "real", "linked/there": "../real", "real/loop": ".", "linked/gone.yaml": "nowhere", "linked/c.yaml": "../real/a.yaml"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"link", "real", "linked"} {
		c, err := ReadPaths([]string{filepath.Join(dir, path)}, "here", nil)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := podNames(c); got != "a b" {
			t.Errorf("%s: %s", path, got)
		}
	}
}
