package manifests

import (
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// The runtime's configuration, the agents' annotation, the admission policy and the test cluster name the same annotation and plugin.
func TestBootGuard(t *testing.T) {
	const annotation = "tolerate-missing-plugins.kidoban.dev"
	r := render(t, "hack/manifests/testdata/boot-guard")
	if got := agentOf(t, r).Spec.Template.Annotations[annotation]; got != "true" {
		t.Errorf("the agents' annotation is %q", got)
	}
	if got := settings(t, r, "kidoban-agent")["GUARD_BOOT"]; got != "true" {
		t.Errorf("GUARD_BOOT is %q", got)
	}
	policy := decode[admissionv1.ValidatingAdmissionPolicy](t, r, "ValidatingAdmissionPolicy/")
	if len(policy.Spec.Variables) == 0 || !strings.Contains(policy.Spec.Variables[0].Expression, "'"+annotation+"'") {
		t.Errorf("the admission policy reads %v", policy.Spec.Variables)
	}
	binding := decode[admissionv1.ValidatingAdmissionPolicyBinding](t, r, "ValidatingAdmissionPolicyBinding/")
	if binding.Spec.PolicyName != policy.Name {
		t.Errorf("the binding is of %s", binding.Spec.PolicyName)
	}

	nodes := filepath.Join(repo, "config", "components", "boot-guard", "nodes")
	var nodeadm struct {
		Spec struct{ Containerd struct{ Config string } }
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(nodes, "nodeadm.yaml")), &nodeadm); err != nil {
		t.Fatal(err)
	}
	validator := nodeadm.Spec.Containerd.Config
	for _, line := range []string{`required_plugins = ["kidoban"]`, `tolerate_missing_plugins_annotation = "` + annotation + `"`} {
		if !strings.Contains(validator, line) {
			t.Errorf("nodeadm.yaml lacks %s", line)
		}
	}
	if !strings.HasSuffix(string(read(t, filepath.Join(nodes, "containerd.toml"))), validator) {
		t.Error("containerd.toml and nodeadm.yaml differ")
	}
	if !strings.Contains(string(read(t, filepath.Join(repo, "hack", "cluster", "templates", "containerd.toml"))), `"`+annotation+`"`) {
		t.Error("the test cluster's containerd has another annotation")
	}
}
