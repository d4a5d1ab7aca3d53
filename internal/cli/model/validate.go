package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// ValidatePolicy returns the errors for which the API server would reject a NetworkPolicy, in its words; for an ApplicationNetworkPolicy, those
// of the part that it has in common with that kind.
func ValidatePolicy(np *networkingv1.NetworkPolicy) field.ErrorList {
	np, _ = application.AsWritten(np)
	out := validateMeta(np, true)
	spec := field.NewPath("spec")
	out = append(out, validateSelector(&np.Spec.PodSelector, spec.Child("podSelector"))...)
	for i := range np.Spec.Ingress {
		r, path := &np.Spec.Ingress[i], spec.Child("ingress").Index(i)
		out = append(out, validateRule(r.Ports, path.Child("ports"), r.From, path.Child("from"))...)
	}
	for i := range np.Spec.Egress {
		r, path := &np.Spec.Egress[i], spec.Child("egress").Index(i)
		out = append(out, validateRule(r.Ports, path.Child("ports"), r.To, path.Child("to"))...)
	}
	types := spec.Child("policyTypes")
	if len(np.Spec.PolicyTypes) > 2 {
		return append(out, field.Invalid(types, &np.Spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range np.Spec.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			out = append(out, field.NotSupported(types.Index(i), t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}))
		}
	}
	return out
}

// PolicyWarnings are the blocks of a NetworkPolicy that API servers accept up to Kubernetes 1.35 and reject since.
func PolicyWarnings(np *networkingv1.NetworkPolicy) []string {
	var out []string
	spec := field.NewPath("spec")
	for _, d := range policy.Directions {
		for i, r := range netpol.Rules(d, np) {
			path := spec.Child([...]string{"ingress", "egress"}[d]).Index(i).Child([...]string{"from", "to"}[d])
			for j := range r.Peers {
				b := r.Peers[j].IPBlock
				if b == nil {
					continue
				}
				at := path.Index(j).Child("ipBlock")
				out = append(out, blockWarnings(at.Child("cidr"), b.CIDR)...)
				for k, e := range b.Except {
					out = append(out, blockWarnings(at.Child("except").Index(k), e)...)
				}
			}
		}
	}
	return out
}

func blockWarnings(path *field.Path, cidr string) []string {
	if _, ok := parseBlock(cidr); !ok || len(utilvalidation.IsValidCIDRForLegacyField(path, cidr, true, nil)) == 0 {
		return nil
	}
	block, _ := parseBlock(cidr)
	return []string{fmt.Sprintf("%s: Kubernetes 1.36 and newer reject %q: write %q", path, cidr, block)}
}

// InvalidPolicies are the errors of all policies that the API server would reject, or nil.
func (c *Cluster) InvalidPolicies() error {
	var out []error
	for i := range c.Policies {
		np := &c.Policies[i]
		if errs := ValidatePolicy(np); len(errs) > 0 {
			out = append(out, fmt.Errorf("NetworkPolicy %s/%s: %w", np.Namespace, np.Name, errs.ToAggregate()))
		}
	}
	if len(out) == 0 {
		return nil
	}
	return fmt.Errorf("the API server would reject: %w", errors.Join(out...))
}

// checkMeta reports what the API server would reject of an object's name, namespace and labels. Policies are validated as a whole, later.
func checkMeta(o metav1.Object) error {
	if _, ok := o.(*networkingv1.NetworkPolicy); ok {
		return nil
	}
	if p, ok := o.(*cnp.ClusterNetworkPolicy); ok {
		if errs := validateClusterPolicy(p); len(errs) > 0 {
			return errs.ToAggregate()
		}
		return nil
	}
	_, global := o.(*corev1.Namespace)
	if _, node := o.(*corev1.Node); node {
		global = true
	}
	if errs := validateMeta(o, !global); len(errs) > 0 {
		return errs.ToAggregate()
	}
	return nil
}

func validateMeta(o metav1.Object, namespaced bool) field.ErrorList {
	var out field.ErrorList
	path := field.NewPath("metadata")
	invalid := func(at, value string, messages []string) {
		for _, m := range messages {
			out = append(out, field.Invalid(path.Child(at), value, m))
		}
	}
	if o.GetName() == "" && o.GetGenerateName() == "" {
		out = append(out, field.Required(path.Child("name"), "name or generateName is required"))
	}
	if o.GetGenerateName() != "" {
		invalid("generateName", o.GetGenerateName(), validation.NameIsDNSSubdomain(o.GetGenerateName(), true))
	}
	if o.GetName() != "" {
		invalid("name", o.GetName(), validation.NameIsDNSSubdomain(o.GetName(), false))
	}
	if namespaced && o.GetNamespace() != "" {
		invalid("namespace", o.GetNamespace(), validation.NameIsDNSLabel(o.GetNamespace(), false))
	}
	return append(out, metavalidation.ValidateLabels(o.GetLabels(), path.Child("labels"))...)
}

func validateSelector(s *metav1.LabelSelector, path *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)
}

func validateRule(ports []networkingv1.NetworkPolicyPort, portsPath *field.Path, peers []networkingv1.NetworkPolicyPeer, peersPath *field.Path) field.ErrorList {
	var out field.ErrorList
	for i := range ports {
		out = append(out, validatePort(&ports[i], portsPath.Index(i))...)
	}
	for i := range peers {
		out = append(out, validatePeer(&peers[i], peersPath.Index(i))...)
	}
	return out
}

func validatePort(p *networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var out field.ErrorList
	if p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP && *p.Protocol != corev1.ProtocolUDP && *p.Protocol != corev1.ProtocolSCTP {
		out = append(out, field.NotSupported(path.Child("protocol"), *p.Protocol, []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}))
	}
	invalid := func(at string, value any, messages ...string) {
		for _, m := range messages {
			out = append(out, field.Invalid(path.Child(at), value, m))
		}
	}
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			invalid("endPort", *p.EndPort, "may not be specified when `port` is not specified")
		}
	case p.Port.Type == intstr.String:
		if p.EndPort != nil {
			invalid("endPort", *p.EndPort, "may not be specified when `port` is non-numeric")
		}
		invalid("port", p.Port.StrVal, utilvalidation.IsValidPortName(p.Port.StrVal)...)
	default:
		invalid("port", p.Port.IntVal, utilvalidation.IsValidPortNum(int(p.Port.IntVal))...)
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				invalid("endPort", *p.EndPort, "must be greater than or equal to `port`")
			}
			invalid("endPort", *p.EndPort, utilvalidation.IsValidPortNum(int(*p.EndPort))...)
		}
	}
	return out
}

func validatePeer(p *networkingv1.NetworkPolicyPeer, path *field.Path) field.ErrorList {
	var out field.ErrorList
	if p.PodSelector != nil {
		out = append(out, validateSelector(p.PodSelector, path.Child("podSelector"))...)
	}
	if p.NamespaceSelector != nil {
		out = append(out, validateSelector(p.NamespaceSelector, path.Child("namespaceSelector"))...)
	}
	if p.IPBlock != nil {
		out = append(out, validateBlock(p.IPBlock, path.Child("ipBlock"))...)
	}
	switch {
	case p.PodSelector == nil && p.NamespaceSelector == nil && p.IPBlock == nil:
		out = append(out, field.Required(path, "must specify a peer"))
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		out = append(out, field.Forbidden(path, "may not specify both ipBlock and another peer"))
	}
	return out
}

func validateBlock(b *networkingv1.IPBlock, path *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	out := utilvalidation.IsValidCIDRForLegacyField(path.Child("cidr"), b.CIDR, false, nil)
	_, block, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return out
	}
	size, _ := block.Mask.Size()
	for i, e := range b.Except {
		at := path.Child("except").Index(i)
		if errs := utilvalidation.IsValidCIDRForLegacyField(at, e, false, nil); len(errs) > 0 {
			out = append(out, errs...)
			continue
		}
		var except *net.IPNet
		if _, except, err = netutils.ParseCIDRSloppy(e); err != nil {
			continue
		}
		if n, _ := except.Mask.Size(); n <= size || !block.Contains(except.IP) {
			out = append(out, field.Invalid(at, e, "must be a strict subset of `cidr`"))
		}
	}
	return out
}

// isTemplate reports whether an object is a template of Helm's, envsubst's or alike that happens to be YAML: marks in names, labels and
// selectors, where the API server allows none.
func isTemplate(o metav1.Object) bool {
	marked := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(t, "{{") || strings.Contains(t, "${") || strings.Contains(t, "<%") {
				return true
			}
		}
		return false
	}
	for k, v := range o.GetLabels() {
		if marked(k, v) {
			return true
		}
	}
	if marked(o.GetName(), o.GetGenerateName(), o.GetNamespace()) {
		return true
	}
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		spec, _ := json.Marshal(o.Spec)
		return marked(string(spec))
	case *cnp.ClusterNetworkPolicy:
		spec, _ := json.Marshal(o.Spec)
		return marked(string(spec))
	case *corev1.Service:
		selector, _ := json.Marshal(o.Spec.Selector)
		return marked(string(selector))
	case *corev1.Pod:
		return inContainers(&o.Spec, marked)
	}
	if t, _ := templateOf(o); t != nil {
		for k, v := range t.labels {
			if marked(k, v) {
				return true
			}
		}
		return inContainers(&t.spec, marked)
	}
	return false
}

func inContainers(spec *corev1.PodSpec, marked func(...string) bool) bool {
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if marked(c.Name, c.Image) {
			return true
		}
		for _, p := range c.Ports {
			if marked(p.Name) {
				return true
			}
		}
	}
	return false
}
