package manifests

import (
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const repo = "../.."

// rendered are a kustomization's objects, by "Kind/name".
type rendered map[string][]byte

func render(t *testing.T, dir string) rendered {
	t.Helper()
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(repo, dir))
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	out := rendered{}
	for _, r := range objects.Resources() {
		if out[r.GetKind()+"/"+r.GetName()], err = r.AsYAML(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// decode reads the one object whose "Kind/name" begins so. Fields that its type lacks are an error.
func decode[T any](t *testing.T, r rendered, prefix string) T {
	t.Helper()
	var found T
	n := 0
	for id, text := range r {
		if strings.HasPrefix(id, prefix) {
			n++
			if err := yaml.UnmarshalStrict(text, &found); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	if n != 1 {
		t.Fatalf("%d objects begin with %s, want 1", n, prefix)
	}
	return found
}

// installs are the kustomizations that install kidoban.
func installs(t *testing.T) []string {
	t.Helper()
	overlays, err := filepath.Glob(filepath.Join(repo, "config", "overlays", "*"))
	if err != nil || len(overlays) == 0 {
		t.Fatal(overlays, err)
	}
	dirs := []string{"config/default", "examples/terraform/eks/kidoban"}
	for _, dir := range overlays {
		dirs = append(dirs, strings.TrimPrefix(filepath.ToSlash(dir), repo+"/"))
	}
	return dirs
}

func TestEveryKustomizationRenders(t *testing.T) {
	n := 0
	for _, root := range []string{"config", "examples"} {
		err := filepath.WalkDir(filepath.Join(repo, root), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "kustomization.yaml" {
				return err
			}
			dir, err := filepath.Rel(repo, filepath.Dir(path))
			if err != nil {
				return err
			}
			if !isComponent(t, path) {
				n++
				t.Run(dir, func(t *testing.T) { render(t, dir) })
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 8 {
		t.Errorf("only %d kustomizations were found", n)
	}
}

func TestWorkloadsHoldToTheDocs(t *testing.T) {
	for _, dir := range installs(t) {
		t.Run(dir, func(t *testing.T) {
			r := render(t, dir)
			checkController(t, r)
			checkAgent(t, r)
			for _, pod := range []corev1.PodSpec{controllerOf(t, r).Spec.Template.Spec, agentOf(t, r).Spec.Template.Spec} {
				checkPod(t, r, pod)
			}
		})
	}
}

// What the usual roles edit and admin may do does not grow with kidoban: who writes its objects opens what policies refuse.
func TestNoRoleIsAggregated(t *testing.T) {
	for _, dir := range installs(t) {
		for id, text := range render(t, dir) {
			if strings.HasPrefix(id, "ClusterRole/") && strings.Contains(string(text), "/aggregate-to-") {
				t.Errorf("%s: %s is aggregated", dir, id)
			}
		}
	}
}

// Without a namespace kubectl would make an object where its context happens to be, and monitors look for pods in their own.
func TestEveryObjectHasItsNamespace(t *testing.T) {
	clusterScoped := []string{
		"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
	}
	for _, dir := range append(installs(t), "hack/manifests/testdata", "hack/manifests/testdata/boot-guard") {
		for id, text := range render(t, dir) {
			var obj metav1.PartialObjectMetadata
			if err := yaml.Unmarshal(text, &obj); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(clusterScoped, obj.Kind) && obj.Namespace != "kidoban-system" {
				t.Errorf("%s: %s is in namespace %q", dir, id, obj.Namespace)
			}
		}
	}
}

// In mode strict the controller is reached at every port that others than its own node's kubelet connect to.
func TestStrictAllowsTheControllersPorts(t *testing.T) {
	r := render(t, "config/overlays/strict")
	var endpoint struct {
		Spec struct {
			Ingress []struct{ Ports []struct{ Port int32 } }
		}
	}
	if err := yaml.Unmarshal(r["PolicyEndpoint/kidoban-controller"], &endpoint); err != nil {
		t.Fatal(err)
	}
	allowed := map[int32]bool{}
	for _, rule := range endpoint.Spec.Ingress {
		for _, port := range rule.Ports {
			allowed[port.Port] = true
		}
	}
	for _, port := range controllerOf(t, r).Spec.Template.Spec.Containers[0].Ports {
		if port.Name != "health" && !allowed[port.ContainerPort] {
			t.Errorf("port %s, %d, is not allowed", port.Name, port.ContainerPort)
		}
	}
}

func controllerOf(t *testing.T, r rendered) appsv1.Deployment {
	return decode[appsv1.Deployment](t, r, "Deployment/kidoban-controller")
}

func agentOf(t *testing.T, r rendered) appsv1.DaemonSet {
	return decode[appsv1.DaemonSet](t, r, "DaemonSet/kidoban-agent")
}

func checkController(t *testing.T, r rendered) {
	t.Helper()
	d := controllerOf(t, r)
	want(t, "replicas", *d.Spec.Replicas, 2)
	want(t, "maxUnavailable", *d.Spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(0))
	pod := d.Spec.Template.Spec
	want(t, "priority", pod.PriorityClassName, "system-cluster-critical")
	want(t, "non-root", *pod.SecurityContext.RunAsNonRoot, true)
	want(t, "host network", pod.HostNetwork, false)
	keys := []string{}
	for _, c := range pod.TopologySpreadConstraints {
		keys = append(keys, c.TopologyKey)
		want(t, "spread of a rollout", strings.Join(c.MatchLabelKeys, " "), "pod-template-hash")
	}
	want(t, "spread", strings.Join(keys, " "), "kubernetes.io/hostname topology.kubernetes.io/zone")
	want(t, "capabilities", capabilities(pod.Containers[0]), "- ALL")
	lease := decode[rbacv1.Role](t, r, "Role/kidoban-controller-leader-election").Rules[1].ResourceNames
	want(t, "the lease that it may update", strings.Join(lease, " "), "kidoban-controller")
	want(t, "leader election", settings(t, r, "kidoban-controller")["LEADER_ELECT"], "true")
	budget := decode[policyv1.PodDisruptionBudget](t, r, "PodDisruptionBudget/kidoban-controller")
	checkMemory(t, pod.Containers[0])
	want(t, "disruption budget", *budget.Spec.MaxUnavailable, intstr.FromInt32(1))
}

func checkAgent(t *testing.T, r rendered) {
	t.Helper()
	d := agentOf(t, r)
	want(t, "maxUnavailable", *d.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromString("10%"))
	pod := d.Spec.Template.Spec
	want(t, "priority", pod.PriorityClassName, "system-node-critical")
	want(t, "host network", pod.HostNetwork, true)
	want(t, "tolerates everything", slices.Contains(pod.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists}), true)
	c := pod.Containers[0]
	want(t, "capabilities", capabilities(c), "- ALL + BPF NET_ADMIN PERFMON")
	want(t, "privileged", c.SecurityContext.Privileged == nil, true)
	want(t, "privilege escalation", *c.SecurityContext.AllowPrivilegeEscalation, false)
	want(t, "read-only root", *c.SecurityContext.ReadOnlyRootFilesystem, true)
	want(t, "seccomp", c.SecurityContext.SeccompProfile.Type, corev1.SeccompProfileTypeRuntimeDefault)
	want(t, "preStop", c.Lifecycle == nil, true)
	i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/sys/fs/bpf" })
	if i < 0 || c.VolumeMounts[i].MountPropagation == nil || *c.VolumeMounts[i].MountPropagation != corev1.MountPropagationHostToContainer {
		t.Error("a BPF file system that the node mounts later is not seen")
	}
	// Ports of the pod and of the flags move together.
	have := settings(t, r, "kidoban-agent")
	for _, p := range []struct{ name, setting, value, host string }{
		{"metrics", "METRICS_BIND_ADDRESS", ":8162", ""}, {"health", "HEALTH_PROBE_BIND_ADDRESS", "127.0.0.1:8163", "127.0.0.1"},
	} {
		if v := have[p.setting]; v != "" {
			p.value = v
		}
		i := slices.IndexFunc(c.Ports, func(q corev1.ContainerPort) bool { return q.Name == p.name })
		if i < 0 {
			t.Fatalf("no port %s", p.name)
		}
		port := intstr.FromInt32(c.Ports[i].ContainerPort)
		want(t, p.setting, p.value, p.host+":"+port.String())
	}
	// No pod reaches the probes, which the kubelet does.
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		want(t, name+" probe's host", probe.HTTPGet.Host, "127.0.0.1")
	}
	checkMemory(t, c)
}

// checkMemory covers the setting by which a program limits its own heap: what the container may use.
func checkMemory(t *testing.T, c corev1.Container) {
	t.Helper()
	i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "KIDOBAN_MEMORY_LIMIT" })
	if i < 0 || c.Env[i].ValueFrom == nil || c.Env[i].ValueFrom.ResourceFieldRef == nil {
		t.Fatalf("%s does not get its memory limit", c.Name)
	}
	want(t, "memory limit", c.Env[i].ValueFrom.ResourceFieldRef.Resource, "limits.memory")
	if c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s has no memory limit", c.Name)
	}
}

// Where the overlay for EKS runs no agent the clean-up has nothing to do, and would never be ready.
func TestCleanupRunsWhereAgentsDo(t *testing.T) {
	agent := agentOf(t, render(t, "config/overlays/eks")).Spec.Template.Spec
	cleanup := decode[appsv1.DaemonSet](t, render(t, "config/cleanup"), "DaemonSet/kidoban-cleanup").Spec.Template.Spec
	if !reflect.DeepEqual(agent.Affinity, cleanup.Affinity) || !reflect.DeepEqual(agent.NodeSelector, cleanup.NodeSelector) || !reflect.DeepEqual(agent.Tolerations, cleanup.Tolerations) {
		t.Errorf("agents run on %v %v, the clean-up on %v %v", agent.NodeSelector, agent.Affinity, cleanup.NodeSelector, cleanup.Affinity)
	}
}

// TestAgentsStayOffNodesOfOtherEngines covers the nodes of an EKS cluster that the overlay leaves alone.
func TestAgentsStayOffNodesOfOtherEngines(t *testing.T) {
	for _, dir := range []string{"config/overlays/eks", "config/overlays/eks-audit", "examples/terraform/eks/kidoban"} {
		required := agentOf(t, render(t, dir)).Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		got := required.NodeSelectorTerms
		want := []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
			Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"fargate", "hybrid", "auto"},
		}}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: agents run on %v, want %v", dir, got, want)
		}
	}
}

// TestSettingsSurvivePruning covers ConfigMaps whose name changes with their content: until a rollout is through, pods refer to the
// previous one, and a container that starts again needs it. `kubectl apply` leaves it, and Argo CD and Flux must leave it too.
func TestSettingsSurvivePruning(t *testing.T) {
	for _, dir := range append(installs(t), "hack/manifests/testdata", "hack/manifests/testdata/boot-guard") {
		r := render(t, dir)
		for _, half := range []string{"kidoban-controller", "kidoban-agent"} {
			have := decode[corev1.ConfigMap](t, r, "ConfigMap/"+half+"-settings-").Annotations
			for name, value := range map[string]string{
				"argocd.argoproj.io/sync-options":    "Prune=false",
				"argocd.argoproj.io/compare-options": "IgnoreExtraneous",
				"kustomize.toolkit.fluxcd.io/prune":  "disabled",
			} {
				want(t, dir+": "+half+": "+name, have[name], value)
			}
		}
	}
}

// TestAlertsNameNoPorts keeps texts true for every overlay: ports are settings.
func TestAlertsNameNoPorts(t *testing.T) {
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert       string
					Annotations map[string]string
				}
			}
		}
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(repo, "config", "prometheus", "rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`\b\d{4,5}\b`)
	n := 0
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			n++
			for name, text := range rule.Annotations {
				if found := port.FindString(text); found != "" {
					t.Errorf("%s: its %s names port %s", rule.Alert, name, found)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d alerts were found", n)
	}
}

// TestWorkloadsAreLabelled looks for the labels that Kubernetes recommends, on objects and on their pods.
func TestWorkloadsAreLabelled(t *testing.T) {
	for _, dir := range append(installs(t), "config/cleanup") {
		for id, text := range render(t, dir) {
			var o struct {
				Metadata metav1.ObjectMeta `json:"metadata"`
				Spec     struct {
					Template *corev1.PodTemplateSpec `json:"template"`
				} `json:"spec"`
			}
			if err := yaml.Unmarshal(text, &o); err != nil {
				t.Fatal(err)
			}
			want(t, dir+": "+id, o.Metadata.Labels["app.kubernetes.io/part-of"], "kidoban")
			if p := o.Spec.Template; p != nil {
				want(t, dir+": component of "+id, o.Metadata.Labels["app.kubernetes.io/component"], p.Labels["app.kubernetes.io/component"])
			}
		}
	}
}

// checkPod holds for both halves.
func checkPod(t *testing.T, r rendered, pod corev1.PodSpec) {
	t.Helper()
	c := pod.Containers[0]
	want(t, "containers", len(pod.Containers)+len(pod.InitContainers), 1)
	want(t, "read-only root", *c.SecurityContext.ReadOnlyRootFilesystem, true)
	want(t, "privilege escalation", *c.SecurityContext.AllowPrivilegeEscalation, false)
	want(t, "requests and limits", len(c.Resources.Requests) == 2 && c.Resources.Limits.Memory().Value() > 0, true)
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port != intstr.FromString("health") {
			t.Errorf("%s: probe %+v", c.Name, probe)
		}
	}
	seccomp := c.SecurityContext.SeccompProfile
	if seccomp == nil {
		seccomp = pod.SecurityContext.SeccompProfile
	}
	want(t, "seccomp", seccomp.Type, corev1.SeccompProfileTypeRuntimeDefault)
	// The ConfigMap is the one that kustomize made: a change of settings rolls the pods.
	want(t, "prefix of settings", c.EnvFrom[0].Prefix, "KIDOBAN_")
	if name := c.EnvFrom[0].ConfigMapRef.Name; r["ConfigMap/"+name] == nil {
		t.Errorf("there is no ConfigMap %s", name)
	}
}

func capabilities(c corev1.Container) string {
	words := []string{"-"}
	for _, drop := range c.SecurityContext.Capabilities.Drop {
		words = append(words, string(drop))
	}
	if add := c.SecurityContext.Capabilities.Add; len(add) > 0 {
		words = append(words, "+")
		for _, a := range add {
			words = append(words, string(a))
		}
	}
	return strings.Join(words, " ")
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
