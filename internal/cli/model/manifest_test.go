package model

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func read(t *testing.T, text string) (*Cluster, error) {
	t.Helper()
	m := &Manifests{Namespace: "here"}
	if err := m.Read("test", strings.NewReader(text)); err != nil {
		return nil, err
	}
	return m.Cluster()
}

func mustRead(t *testing.T, text string) *Cluster {
	t.Helper()
	c, err := read(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func podKeys(c *Cluster) (out []string) {
	for i := range c.Pods {
		out = append(out, c.Pods[i].Key()+" "+c.Pods[i].Workload.Kind+" "+c.Pods[i].Status.PodIP)
	}
	return out
}

func TestWorkloadsBecomePods(t *testing.T) {
	const template = "template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c}]}}"
	for kind, tc := range map[string]struct {
		apiVersion, spec string
		pods             []string
	}{
		"Deployment":            {"apps/v1", "{replicas: 2, " + template + "}", []string{"here/a-0 Deployment 198.18.0.1", "here/a-1 Deployment 198.18.0.2"}},
		"ReplicaSet":            {"apps/v1", "{" + template + "}", []string{"here/a-0 ReplicaSet 198.18.0.1"}},
		"StatefulSet":           {"apps/v1", "{" + template + "}", []string{"here/a-0 StatefulSet 198.18.0.1"}},
		"DaemonSet":             {"apps/v1", "{" + template + "}", []string{"here/a-0 DaemonSet 198.18.0.1", "here/a-1 DaemonSet 198.18.0.2"}},
		"Job":                   {"batch/v1", "{" + template + "}", []string{"here/a-0 Job 198.18.0.1"}},
		"CronJob":               {"batch/v1", "{jobTemplate: {spec: {" + template + "}}}", []string{"here/a-0 CronJob 198.18.0.1"}},
		"ReplicationController": {"v1", "{" + template + "}", []string{"here/a-0 ReplicationController 198.18.0.1"}},
		"Pod":                   {"v1", "{containers: [{name: c}]}", []string{"here/a Pod 198.18.0.1"}},
		"ConfigMap":             {"v1", "{}", nil},
	} {
		c := mustRead(t, "apiVersion: "+tc.apiVersion+"\nkind: "+kind+"\nmetadata: {name: a}\nspec: "+tc.spec)
		if got := podKeys(c); !slices.Equal(got, tc.pods) {
			t.Errorf("%s: %q, want %q", kind, got, tc.pods)
		}
	}
}

func TestPodsThatAreThereAreNotMadeAgain(t *testing.T) {
	c := mustRead(t, `{"apiVersion": "v1", "kind": "List", "items": [
	  {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}, "spec": {"replicas": 3, "template": {}}},
	  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-5d9c-x", "namespace": "n", "labels": {"pod-template-hash": "5d9c"},
	   "ownerReferences": [{"kind": "ReplicaSet", "name": "a-5d9c", "controller": true}]}, "status": {"phase": "Running", "podIP": "10.0.0.1"}},
	  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new", "namespace": "n"}, "status": {"phase": "Pending"}}]}`)
	if got := podKeys(c); !slices.Equal(got, []string{"n/a-5d9c-x Deployment 10.0.0.1", "n/new Pod 198.18.0.1"}) {
		t.Errorf("%q", got)
	}
}

func TestWhoOwnsAPod(t *testing.T) {
	yes := true
	pod := func(kind, name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p-node", Labels: map[string]string{"pod-template-hash": "abc"},
			OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}}}
	}
	for _, tc := range []struct {
		pod        *corev1.Pod
		kind, name string
	}{
		{pod("ReplicaSet", "web-abc"), "Deployment", "web"},
		{pod("ReplicaSet", "alone"), "ReplicaSet", "alone"},
		{pod("Job", "nightly-29012345"), "Job", "nightly-29012345"},
		{pod("Job", "once-2"), "Job", "once-2"},
		{pod("StatefulSet", "db"), "StatefulSet", "db"},
		{pod("Node", "node"), "Pod", "p"},
		{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "bare"}}, "Pod", "bare"},
	} {
		if got := WorkloadOf(tc.pod); got != (Workload{"n", tc.kind, tc.name}) {
			t.Errorf("%+v, want %s %s", got, tc.kind, tc.name)
		}
	}
}

func TestEveryNamespaceHasItsName(t *testing.T) {
	c := mustRead(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: v}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}")
	if len(c.Namespaces) != 2 || c.Namespaces[0].Labels["kubernetes.io/metadata.name"] != "a" || c.Namespaces[0].Labels["x"] != "v" ||
		c.Namespaces[1].Labels["kubernetes.io/metadata.name"] != "here" {
		t.Errorf("%+v", c.Namespaces)
	}
}

func TestTheLastOfANameCounts(t *testing.T) {
	const np = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}, policyTypes: [%s]}\n---\n"
	c := mustRead(t, strings.ReplaceAll(np, "%s", "Ingress")+strings.ReplaceAll(np, "%s", "Egress"))
	if len(c.Policies) != 1 || c.Policies[0].Spec.PolicyTypes[0] != "Egress" || c.Policies[0].Namespace != "here" {
		t.Errorf("%+v", c.Policies)
	}
}

func TestDirectories(t *testing.T) {
	dir := files(t, map[string]string{
		"plain/a.yaml":              "apiVersion: v1\nkind: Pod\nmetadata: {name: a}",
		"plain/deeper/b.json":       `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}}`,
		"plain/README.md":           "kind: Pod",
		"plain/.git/c.yaml":         "apiVersion: v1\nkind: Pod\nmetadata: {name: c}",
		"built/kustomization.yaml":  "namespace: there\nresources: [d.yaml]",
		"built/d.yaml":              "apiVersion: v1\nkind: Pod\nmetadata: {name: d}",
		"built/not-a-resource.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: e}",
	})
	c, err := ReadPaths([]string{dir}, "here", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if got := podKeys(c); !slices.Equal(got, []string{"here/a Pod 198.18.0.1", "here/b Pod 198.18.0.2", "there/d Pod 198.18.0.3"}) {
		t.Errorf("%q", got)
	}
}

// Only a Job that the CronJob made is one of its Jobs, no matter what others are called.
func TestJobsBelongToTheirOwners(t *testing.T) {
	const objects = `
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: cron}}, spec: {containers: [{name: c}]}}}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: backup-29012345}
spec: {template: {metadata: {labels: {app: hand}}, spec: {containers: [{name: c}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: night, ownerReferences: [{kind: CronJob, name: backup, controller: true}]}
spec: {template: {metadata: {labels: {app: cron}}, spec: {containers: [{name: c}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: night-x, ownerReferences: [{kind: Job, name: night, controller: true}]}
status: {phase: Running, podIP: 10.0.0.1}
`
	c := mustRead(t, objects)
	if got := podKeys(c); !slices.Equal(got, []string{"here/night-x CronJob 10.0.0.1", "here/backup-29012345-0 Job 198.18.0.1"}) {
		t.Errorf("%q", got)
	}
}
