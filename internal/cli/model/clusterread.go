package model

import (
	"bytes"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	beta "sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// ClusterPolicyKind is the kind of ClusterNetworkPolicies, and ClusterPolicyResource the full name of them: other groups have a kind of the
// same name and the same short name.
const (
	ClusterPolicyKind     = "ClusterNetworkPolicy"
	ClusterPolicyResource = "clusternetworkpolicies.policy.networking.k8s.io"
)

// Both versions have the same fields.
var (
	clusterPolicyType = metav1.TypeMeta{APIVersion: cnp.GroupVersion.String(), Kind: ClusterPolicyKind}
	clusterPolicyBeta = metav1.TypeMeta{APIVersion: beta.GroupVersion.String(), Kind: ClusterPolicyKind}
)

// checkClusterPolicy reads the JSON of a ClusterNetworkPolicy's spec as strictly as an API server that is asked for strict validation. An
// unknown field is never dropped: what is left often means more than what was written.
func checkClusterPolicy(raw []byte) error {
	var object map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
		return err
	}
	spec, ok := object["spec"]
	if !ok {
		return fieldErrors{{path: "spec", text: "is required"}}
	}
	if errs := clusterPolicySpec.read("spec", spec); len(errs) > 0 {
		if bytes.Contains(raw, []byte("{{")) {
			return errTemplate
		}
		return errs
	}
	return nil
}

// validateClusterPolicy reports what the API server would reject of a ClusterNetworkPolicy's name and selectors.
func validateClusterPolicy(p *cnp.ClusterNetworkPolicy) field.ErrorList {
	out := validateMeta(p, false)
	selector := func(s *metav1.LabelSelector, path *field.Path) {
		if s != nil {
			out = append(out, validateSelector(s, path)...)
		}
	}
	pods := func(p *cnp.NamespacedPod, path *field.Path) {
		if p != nil {
			selector(&p.NamespaceSelector, path.Child("namespaceSelector"))
			selector(&p.PodSelector, path.Child("podSelector"))
		}
	}
	spec := field.NewPath("spec")
	selector(p.Spec.Subject.Namespaces, spec.Child("subject", "namespaces"))
	pods(p.Spec.Subject.Pods, spec.Child("subject", "pods"))
	for i := range p.Spec.Ingress {
		for j := range p.Spec.Ingress[i].From {
			peer, path := &p.Spec.Ingress[i].From[j], spec.Child("ingress").Index(i).Child("from").Index(j)
			selector(peer.Namespaces, path.Child("namespaces"))
			pods(peer.Pods, path.Child("pods"))
		}
	}
	for i := range p.Spec.Egress {
		for j := range p.Spec.Egress[i].To {
			peer, path := &p.Spec.Egress[i].To[j], spec.Child("egress").Index(i).Child("to").Index(j)
			selector(peer.Namespaces, path.Child("namespaces"))
			selector(peer.Nodes, path.Child("nodes"))
			pods(peer.Pods, path.Child("pods"))
		}
	}
	return out
}

// isAdminPolicy reports whether a kind is one of those that ClusterNetworkPolicy replaced. Nothing enforces them.
func isAdminPolicy(t metav1.TypeMeta) bool {
	kind := schema.FromAPIVersionAndKind(t.APIVersion, t.Kind)
	return kind.Group == cnp.GroupVersion.Group && (kind.Kind == "AdminNetworkPolicy" || kind.Kind == "BaselineAdminNetworkPolicy")
}

// HintAdminPolicy is the way out for AdminNetworkPolicies.
const HintAdminPolicy = "write ClusterNetworkPolicy, apiVersion policy.networking.k8s.io/v1alpha2; `kubectl kidoban migrate anp convert` does it"

// addAdminPolicy notes an AdminNetworkPolicy. It is an error for a version that never existed.
func (m *Manifests) addAdminPolicy(i *item) error {
	if version := schema.FromAPIVersionAndKind(i.APIVersion, i.Kind).Version; version != "v1alpha1" {
		return fmt.Errorf("%s%s: not read: there is no kind %q in version %q: %s", i.where, i.describe(), i.Kind, i.APIVersion, HintAdminPolicy)
	}
	m.AddAdminPolicy(i.describe())
	return nil
}

// AddAdminPolicy notes an AdminNetworkPolicy or a BaselineAdminNetworkPolicy, by "Kind name".
func (m *Manifests) AddAdminPolicy(name string) {
	m.cluster.AdminPolicies = append(m.cluster.AdminPolicies, name)
}

// failed is the error of an object, with the lines of its fields if they are those of a file.
func (d *document) failed(i *item, f *file) error {
	var errs fieldErrors
	if errors.As(i.err, &errs) && !f.built {
		errs.locate(d, i.path())
	}
	return fmt.Errorf("%s%s: %w", i.where, i.describe(), i.err)
}
