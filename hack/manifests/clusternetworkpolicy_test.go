package manifests

import (
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// Both components install the version that the controller watches, and say which of upstream's channels they are.
func TestClusterNetworkPolicyComponents(t *testing.T) {
	for dir, channel := range map[string]string{"cluster-network-policy": "standard", "cluster-network-policy-experimental": "experimental"} {
		r := render(t, "hack/manifests/testdata/"+dir)
		crd := decode[apiextensionsv1.CustomResourceDefinition](t, r, "CustomResourceDefinition/clusternetworkpolicies.policy.networking.k8s.io")
		if got := crd.Annotations["policy.networking.k8s.io/channel"]; got != channel {
			t.Errorf("%s: channel %q", dir, got)
		}
		served := false
		for _, v := range crd.Spec.Versions {
			served = served || v.Name == "v1alpha2" && v.Served && v.Subresources != nil && v.Subresources.Status != nil
		}
		if !served {
			t.Errorf("%s does not serve v1alpha2 with a status", dir)
		}
	}
}
