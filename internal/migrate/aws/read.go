package aws

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// Group of the kinds.
const Group = application.Group

// The kinds that hold policies.
const (
	KindCluster     = "ClusterNetworkPolicy"
	KindApplication = application.Kind
)

// Kind is Amazon's ClusterNetworkPolicy with its group: upstream has a kind of this name.
const Kind = KindCluster + "." + Group

// maxItems of any list: those that the schema admits are not published.
const maxItems = 1000

// clusterNetworkPolicy has the peers and ports of upstream's v1alpha1.
type clusterNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Tier     cnp.Tier                            `json:"tier"`
		Priority int32                               `json:"priority"`
		Subject  anp.AdminNetworkPolicySubject       `json:"subject"`
		Ingress  []anp.AdminNetworkPolicyIngressRule `json:"ingress,omitempty"`
		Egress   []anp.AdminNetworkPolicyEgressRule  `json:"egress,omitempty"`
	} `json:"spec"`
	Status json.RawMessage `json:"status,omitempty"`
}

// Application is an ApplicationNetworkPolicy: a NetworkPolicy whose egress peers may be domain names.
type Application struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              application.Spec `json:"spec"`
	Status            json.RawMessage  `json:"status,omitempty"`
}

func (a *Application) String() string { return KindApplication + " " + a.Namespace + "/" + a.Name }

// Set is what was read.
type Set struct {
	Policies     []tiered.Policy
	Applications []Application
	// Refused are the objects that cannot be converted, with why.
	Refused []migrate.Problem
	// ClusterPolicies are names of upstream's ClusterNetworkPolicies that are there already.
	ClusterPolicies map[string]bool
	// NetworkPolicies, Services and Nodes are those of the cluster.
	NetworkPolicies []networkingv1.NetworkPolicy
	Services        []corev1.Service
	Nodes           []corev1.Node
}

// NotConverted returns the refused objects.
func (s *Set) NotConverted() (out []string) {
	for _, p := range s.Refused {
		if !slices.Contains(out, p.Object) {
			out = append(out, p.Object)
		}
	}
	return out
}

// Read takes in one object, as JSON; namespace is that of a namespaced object that does not give its own.
func (s *Set) Read(t metav1.TypeMeta, raw []byte, namespace string) {
	gv, err := schema.ParseGroupVersion(t.APIVersion)
	if err != nil {
		return
	}
	var o struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	_ = json.Unmarshal(raw, &o) // decoding it into its type reports the error
	switch {
	case gv.Group != Group:
	case t.Kind == KindCluster:
		s.readCluster(Kind+" "+o.Metadata.Name, raw)
	case t.Kind == KindApplication:
		s.readApplication(KindApplication+" "+cmp.Or(o.Metadata.Namespace, namespace)+"/"+o.Metadata.Name, raw, namespace)
	}
}

func (s *Set) refuse(p ...migrate.Problem) { s.Refused = append(s.Refused, p...) }

func (s *Set) replace(object string) {
	s.Policies = slices.DeleteFunc(s.Policies, func(p tiered.Policy) bool { return p.String() == object })
	s.Applications = slices.DeleteFunc(s.Applications, func(a Application) bool { return a.String() == object })
	s.Refused = slices.DeleteFunc(s.Refused, func(p migrate.Problem) bool { return p.Object == object })
}

func (s *Set) readCluster(object string, raw []byte) {
	s.replace(object)
	o := clusterNetworkPolicy{}
	if err := tiered.Decode(raw, &o); err != nil {
		s.refuse(tiered.Problems(object, err)...)
		return
	}
	p := tiered.NewPolicy(Kind, &o.ObjectMeta, o.Spec.Subject, o.Spec.Ingress, o.Spec.Egress, "Accept")
	p.Tier, p.Priority = o.Spec.Tier, o.Spec.Priority
	problems := p.Check(maxItems, maxItems)
	for _, field := range tiered.Missing(raw, "tier", "priority", "subject") {
		problems = append(problems, migrate.Problem{Object: object, Field: field, Problem: "it is required", Fix: "add it"})
	}
	for i, r := range o.Spec.Egress {
		for j, peer := range r.To {
			if peer.Nodes != nil {
				problems = append(problems, migrate.Problem{Object: object, Field: fmt.Sprintf("spec.egress[%d].to[%d].nodes", i, j), Problem: "unknown field: only upstream's kind has nodes", Fix: "correct the object"})
			}
		}
	}
	if len(problems) > 0 {
		s.refuse(problems...)
		return
	}
	s.Policies = append(s.Policies, p)
}

func (s *Set) readApplication(object string, raw []byte, namespace string) {
	s.replace(object)
	o := Application{}
	if err := tiered.Decode(raw, &o); err != nil {
		s.refuse(tiered.Problems(object, err)...)
		return
	}
	o.Namespace = cmp.Or(o.Namespace, namespace)
	if problems := o.check(); len(problems) > 0 {
		s.refuse(problems...)
		return
	}
	s.Applications = append(s.Applications, o)
}

// check what would make the policy mean something else than it seems to.
func (a *Application) check() (out []migrate.Problem) {
	refuse := func(field, format string, args ...any) {
		out = append(out, migrate.Problem{Object: a.String(), Field: field, Problem: fmt.Sprintf(format, args...), Fix: "correct it"})
	}
	selector := func(field string, s *metav1.LabelSelector) {
		if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
			refuse(field, "%v", err)
		}
	}
	peer := func(field string, p *networkingv1.NetworkPolicyPeer, names []string) {
		n := 0
		if p.PodSelector != nil || p.NamespaceSelector != nil {
			n++
			selector(field+".podSelector", p.PodSelector)
			selector(field+".namespaceSelector", p.NamespaceSelector)
		}
		if p.IPBlock != nil {
			n++
			for _, cidr := range append([]string{p.IPBlock.CIDR}, p.IPBlock.Except...) {
				if _, err := netip.ParsePrefix(cidr); err != nil {
					refuse(field+".ipBlock", "%q is not a valid network", cidr)
				}
			}
		}
		if len(names) > 0 {
			n++
			for _, name := range names {
				if !tiered.IsDomainName(name) {
					refuse(field+".domainNames", "%q is not a valid name: * may only be the first label", name)
				}
			}
		}
		if n != 1 {
			refuse(field, "%d kinds of peer, where there has to be exactly one", n)
		}
	}
	ports := func(field string, list []networkingv1.NetworkPolicyPort) {
		for i, p := range list {
			at := fmt.Sprintf("%s.ports[%d]", field, i)
			isNumber := p.Port != nil && p.Port.StrVal == ""
			switch {
			case isNumber && (p.Port.IntVal < 1 || p.Port.IntVal > 65535):
				refuse(at+".port", "port %d is not between 1 and 65535", p.Port.IntVal)
			case p.EndPort != nil && (!isNumber || *p.EndPort < p.Port.IntVal || *p.EndPort > 65535):
				refuse(at+".endPort", "it needs a port number that is not higher")
			}
			if p.Protocol != nil {
				switch *p.Protocol {
				case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
				default:
					refuse(at+".protocol", "protocol %q is none of TCP, UDP and SCTP", *p.Protocol)
				}
			}
		}
	}
	selector("spec.podSelector", &a.Spec.PodSelector)
	for i, t := range a.Spec.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			refuse(fmt.Sprintf("spec.policyTypes[%d]", i), "%q is neither Ingress nor Egress", t)
		}
	}
	for i, r := range a.Spec.Ingress {
		field := fmt.Sprintf("spec.ingress[%d]", i)
		ports(field, r.Ports)
		for j := range r.From {
			peer(fmt.Sprintf("%s.from[%d]", field, j), &r.From[j], nil)
		}
	}
	for i, r := range a.Spec.Egress {
		field := fmt.Sprintf("spec.egress[%d]", i)
		ports(field, r.Ports)
		for j := range r.To {
			peer(fmt.Sprintf("%s.to[%d]", field, j), &r.To[j].NetworkPolicyPeer, r.To[j].DomainNames)
			if len(r.To[j].DomainNames) > 0 && slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.StrVal != "" }) {
				refuse(field+".ports", "domain names have no named ports")
			}
		}
	}
	return out
}
