package manifests

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// TestCalicoCleanExample reads the DaemonSet that removes what Calico left on nodes. Its pods must reach every node that is chosen, and must
// not be ready before the node is clean.
func TestCalicoCleanExample(t *testing.T) {
	_, text, _ := strings.Cut(string(read(t, repo+"/examples/calico-clean/daemonset.yaml")), "\n---\n")
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(text), &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	if !pod.HostNetwork || len(pod.InitContainers) != 1 || len(pod.Tolerations) != 1 || pod.Tolerations[0].Key != "" {
		t.Errorf("host network %v, %d init containers, tolerations %v", pod.HostNetwork, len(pod.InitContainers), pod.Tolerations)
	}
	clean := pod.InitContainers[0]
	var mounted string
	for _, m := range clean.VolumeMounts {
		for _, v := range pod.Volumes {
			if v.Name == m.Name && v.HostPath != nil && v.HostPath.Path == "/" {
				mounted = m.MountPath
			}
		}
	}
	command := strings.Join(clean.Command, " ")
	if want := "kubectl-kidoban migrate calico clean --yes --root=" + mounted; mounted == "" || command != want {
		t.Errorf("the command is %q, want %q", command, want)
	}
	if selected, labels := set.Spec.Selector.MatchLabels["app"], set.Spec.Template.Labels["app"]; selected == "" || selected != labels {
		t.Errorf("selects app=%s, and the pods have app=%s", selected, labels)
	}
}
