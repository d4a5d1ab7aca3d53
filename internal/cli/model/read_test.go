package model

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// manifests of a random cluster, with fields that policies do not ask for. Each document of pods ends with tail.
func (r random) manifests(t *testing.T, c *Cluster, tail string) string {
	t.Helper()
	var b strings.Builder
	write := func(kind, apiVersion, tail string, o any) {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("kind: " + kind + "\napiVersion: " + apiVersion + "\n" + string(text) + tail + "---\n")
	}
	for i := range c.Namespaces {
		write("Namespace", "v1", tail, &c.Namespaces[i])
	}
	for i := range c.Pods {
		p := c.Pods[i].Pod
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "a: b\n- c\n"}, {Name: "B"}}
		p.Spec.Containers[0].Command = []string{"sh", "-c", "echo 'a'\n"}
		p.Spec.Volumes = []corev1.Volume{{Name: "v"}}
		p.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}}
		write("Pod", "v1", tail, &p)
	}
	for i := range c.Policies {
		write("NetworkPolicy", "networking.k8s.io/v1", "", &c.Policies[i])
	}
	return strings.TrimSuffix(b.String(), "---\n")
}

func withoutIdle(t *testing.T, o any) any {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	// What fastyaml leaves out of plain JSON it leaves out of all.
	m := &document{yaml: text}
	m.translate()
	var out any
	if err := json.Unmarshal(m.json, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What is read fast, and in part, answers as what is read in full: an anchor makes a document one for the full parser.
func TestReadingInPartAnswersAsReadingAll(t *testing.T) {
	for seed := range uint64(30) {
		r := random{rand.New(rand.NewPCG(seed, 3))}
		drawn := r.cluster()
		fast := mustRead(t, r.manifests(t, drawn, ""))
		full := mustRead(t, r.manifests(t, drawn, "unknown: &anchor 1\n"))
		if fast.Pods[0].Spec.Volumes != nil || fast.Pods[0].Spec.Containers[0].Env != nil {
			t.Fatalf("seed %d: nothing was left out", seed)
		}
		if full.Pods[0].Spec.Volumes == nil {
			t.Fatalf("seed %d: something was left out", seed)
		}
		if !reflect.DeepEqual(fast.Policies, full.Policies) || !reflect.DeepEqual(fast.Namespaces, full.Namespaces) {
			t.Fatalf("seed %d: not the same policies or namespaces", seed)
		}
		for i := range fast.Pods {
			if a, b := withoutIdle(t, &fast.Pods[i].Pod), withoutIdle(t, &full.Pods[i].Pod); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d:\n%v\nnot\n%v", seed, a, b)
			}
		}
		if !reflect.DeepEqual(fast.Matrix(MatrixOptions{}), full.Matrix(MatrixOptions{})) {
			t.Fatalf("seed %d: another matrix", seed)
		}
	}
}

func TestWhereDocumentsEnd(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Pod\nmetadata: {name: a}\n--- # next\nkind: Pod\nmetadata: {name: b}":                                          "a b",
		"---\nkind: Pod\nmetadata: {name: a}\n---\n---\n# nothing\n---\nkind: Pod\nmetadata: {name: b}\n---":                  "a b",
		"kind: Pod\r\nmetadata: {name: a}\r\n---\r\nkind: Pod\r\nmetadata: {name: b}\r\n":                                     "a b",
		`{"kind": "Pod", "metadata": {"name": "a"}}{"kind": "Pod", "metadata": {"name": "b"}}`:                                "a b",
		"{\n\t\"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}}\n":                                                          "a",
		`{"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}`:        "a b",
		"kind: List\nitems:\n- kind: Pod\n  metadata: {name: a}\n- kind: List\n  items: [{kind: Pod, metadata: {name: b}}]\n": "a b",
	} {
		c, err := read(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		var names []string
		for i := range c.Pods {
			names = append(names, c.Pods[i].Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if _, err := read(t, "--- {kind: Pod}\n"); err == nil || !strings.Contains(err.Error(), "document 1") {
		t.Error(err)
	}
}
