package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// A big cluster: 100 namespaces, each with 20 workloads of 10 pods, and a policy for each workload.
const (
	bigNamespaces = 100
	bigWorkloads  = 20
	bigReplicas   = 10
)

func bigNamespace(n int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: ns-%d, labels: {team: t%d}}\n---\n", n, n%10)
}

func bigPolicy(n, w int) string {
	return fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: app-%[2]d, namespace: ns-%[1]d}
spec:
  podSelector: {matchLabels: {app: app-%[2]d}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {tier: t%[3]d}}}, {namespaceSelector: {matchLabels: {team: t%[3]d}}, podSelector: {matchLabels: {app: app-%[2]d}}}]
    ports: [{port: http}]
  - from: [{ipBlock: {cidr: 10.%[1]d.%[2]d.0/24}}]
  egress:
  - to: [{namespaceSelector: {}}]
    ports: [{port: 53, protocol: UDP}, {port: 8080}]
---
`, n, w, w%3)
}

// bigPod is as the API server has one, or its least.
func bigPod(n, w, i int, whole bool) *corev1.Pod {
	yes := true
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	app := fmt.Sprint("app-", w)
	p.Name, p.Namespace = fmt.Sprintf("%s-5d9c8b7f6-%05d", app, i), fmt.Sprint("ns-", n)
	p.Labels = map[string]string{"app": app, "tier": fmt.Sprint("t", w%3), "pod-template-hash": "5d9c8b7f6"}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-5d9c8b7f6", Controller: &yes, BlockOwnerDeletion: &yes}}
	p.Spec.NodeName = fmt.Sprint("node-", (w*bigReplicas+i)%200)
	p.Spec.Containers = []corev1.Container{{Name: "main", Image: "example.com/app:1.2.3", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}}}}
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP = fmt.Sprintf("10.%d.%d.%d", 128+n, w, i+1)
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	if !whole {
		return p
	}
	c := &p.Spec.Containers[0]
	c.Args = []string{"--listen=:8080", `--greeting="good day"`, "--config=/etc/app/config.yaml"}
	for i := range 12 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("SETTING_", i), Value: "a value of some length, as settings have: " + fmt.Sprint(i)})
	}
	c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("http")}}, PeriodSeconds: 10}
	c.LivenessProbe = c.ReadinessProbe
	c.VolumeMounts = []corev1.VolumeMount{{Name: "kube-api-access-abcde", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}
	p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-abcde", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}, {ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}}}}}}}
	p.Spec.Tolerations = []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"}, {Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"}}
	for _, kind := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: "True"})
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Image: c.Image, ImageID: "example.com/app@sha256:0123456789abcdef", Ready: true}}
	return p
}

// bigFile writes a big cluster down in some form.
func bigFile(b *testing.B, form string) (path string, size int64) {
	b.Helper()
	var out strings.Builder
	list := []*corev1.Pod{}
	for n := range bigNamespaces {
		if form != "list.json" && form != "list.yaml" {
			out.WriteString(bigNamespace(n))
		}
		for w := range bigWorkloads {
			if form == "deployments.yaml" {
				fmt.Fprintf(&out, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app-%[2]d, namespace: ns-%[1]d}\nspec:\n  replicas: %[3]d\n"+
					"  template:\n    metadata: {labels: {app: app-%[2]d, tier: t%[4]d}}\n    spec:\n      containers: [{name: main, ports: [{name: http, containerPort: 8080}]}]\n---\n", n, w, bigReplicas, w%3)
			}
			for i := range bigReplicas {
				switch form {
				case "pods.yaml":
					text, err := yaml.Marshal(bigPod(n, w, i, false))
					if err != nil {
						b.Fatal(err)
					}
					out.Write(text)
					out.WriteString("---\n")
				case "list.json", "list.yaml":
					list = append(list, bigPod(n, w, i, true))
				}
			}
		}
	}
	text := []byte(out.String())
	if len(list) > 0 {
		whole := map[string]any{"apiVersion": "v1", "kind": "List", "items": list}
		var err error
		if text, err = json.MarshalIndent(whole, "", "    "); err == nil && form == "list.yaml" {
			text, err = yaml.Marshal(whole)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	path = filepath.Join(b.TempDir(), form)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	return path, int64(len(text))
}

// BenchmarkExplainBigCluster is the whole command, from files: 20,000 pods and 2,000 policies, as 2,000 Deployments, as pods with what is
// needed of them, and as `kubectl get pods -A` prints them.
func BenchmarkExplainBigCluster(b *testing.B) {
	policies := filepath.Join(b.TempDir(), "policies.yaml")
	var text strings.Builder
	for n := range bigNamespaces {
		text.WriteString(bigNamespace(n))
		for w := range bigWorkloads {
			text.WriteString(bigPolicy(n, w))
		}
	}
	if err := os.WriteFile(policies, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, form := range []string{"deployments.yaml", "pods.yaml", "list.json", "list.yaml"} {
		b.Run(form, func(b *testing.B) {
			path, size := bigFile(b, form)
			b.SetBytes(size + int64(text.Len()))
			for b.Loop() {
				out := run(nil, "explain", "-f", path, "-f", policies, "--from", "ns-3/app-3", "--to", "ns-3/app-6:http")
				if !strings.HasSuffix(out, "exit code 0\n") {
					b.Fatal(out)
				}
			}
		})
	}
}
