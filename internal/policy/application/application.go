// Package application has Amazon's ApplicationNetworkPolicy (networking.k8s.aws/v1alpha1): a NetworkPolicy whose egress peers may be domain
// names. It isolates pods as a NetworkPolicy does, and adds up with these.
package application

import (
	"encoding/json"
	"maps"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kind.
const (
	Group    = "networking.k8s.aws"
	Version  = "v1alpha1"
	Kind     = "ApplicationNetworkPolicy"
	Resource = "applicationnetworkpolicies"
)

// Policy is an ApplicationNetworkPolicy.
type Policy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              Spec `json:"spec"`
}

// Spec is that of an ApplicationNetworkPolicy.
type Spec struct {
	PodSelector metav1.LabelSelector                    `json:"podSelector"`
	PolicyTypes []networkingv1.PolicyType               `json:"policyTypes,omitempty"`
	Ingress     []networkingv1.NetworkPolicyIngressRule `json:"ingress,omitempty"`
	Egress      []EgressRule                            `json:"egress,omitempty"`
}

// EgressRule allows connections to peers.
type EgressRule struct {
	To    []Peer                           `json:"to,omitempty"`
	Ports []networkingv1.NetworkPolicyPort `json:"ports,omitempty"`
}

// Peer is a NetworkPolicy's peer, or domain names.
type Peer struct {
	networkingv1.NetworkPolicyPeer `json:",inline"`
	DomainNames                    []string `json:"domainNames,omitempty"`
}

// Split returns the policy as a NetworkPolicy without the domain names, and the names by the index of their egress rule. A rule that has names
// and no other peer is in the NetworkPolicy without peers, although it does not match every address. A peer with names and something else is not
// valid: it becomes an empty one, which matches nothing.
func (p *Policy) Split() (*networkingv1.NetworkPolicy, map[int][]string) {
	np := &networkingv1.NetworkPolicy{
		ObjectMeta: p.ObjectMeta,
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: p.Spec.PodSelector, PolicyTypes: p.Spec.PolicyTypes, Ingress: p.Spec.Ingress},
	}
	names := map[int][]string{}
	for i, r := range p.Spec.Egress {
		rule := networkingv1.NetworkPolicyEgressRule{Ports: r.Ports}
		for _, peer := range r.To {
			switch isOther := peer.IPBlock != nil || peer.PodSelector != nil || peer.NamespaceSelector != nil; {
			case len(peer.DomainNames) == 0:
				rule.To = append(rule.To, peer.NetworkPolicyPeer)
			case isOther:
				rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{})
			default:
				names[i] = append(names[i], peer.DomainNames...)
			}
		}
		np.Spec.Egress = append(np.Spec.Egress, rule)
	}
	return np, names
}

// kindShown is the end of a policy's name in what NetworkPolicy returns.
const kindShown = " (" + Kind + ")"

// namesAnnotation has the domain names of a policy that NetworkPolicy returned.
const namesAnnotation = "kidoban.dev/domain-names"

// NetworkPolicy returns the policy as a NetworkPolicy for evaluators that know this kind only. DomainNames returns what it lacks. Its name shows the
// kind, as a NetworkPolicy may have the policy's own. A rule with names and no other peer has a peer that matches nothing.
func (p *Policy) NetworkPolicy() *networkingv1.NetworkPolicy {
	np, names := p.Split()
	np.Kind, np.Name = Kind, p.Name+kindShown
	for i := range names {
		if len(np.Spec.Egress[i].To) == 0 {
			np.Spec.Egress[i].To = []networkingv1.NetworkPolicyPeer{{}}
		}
	}
	text, err := json.Marshal(names)
	if err != nil { // a map of strings
		panic(err)
	}
	np.Annotations = maps.Clone(np.Annotations)
	if np.Annotations == nil {
		np.Annotations = map[string]string{}
	}
	np.Annotations[namesAnnotation] = string(text)
	return np
}

// AsWritten returns what NetworkPolicy returned under the policy's own name, and its rules without the peers that stand for names: so it is as
// valid as the policy. False: np is a NetworkPolicy.
func AsWritten(np *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, bool) {
	if np.Kind != Kind {
		return np, false
	}
	np = np.DeepCopy()
	np.Name = strings.TrimSuffix(np.Name, kindShown)
	for i := range np.Spec.Egress {
		if to := np.Spec.Egress[i].To; len(to) == 1 && to[0] == (networkingv1.NetworkPolicyPeer{}) && len(DomainNames(np, i)) > 0 {
			np.Spec.Egress[i].To = nil
		}
	}
	return np, true
}

// DomainNames are the names of an egress rule, as the policy has them. Only what Policy.NetworkPolicy returned has any.
func DomainNames(np *networkingv1.NetworkPolicy, rule int) []string {
	if np.Kind != Kind {
		return nil
	}
	var names map[int][]string
	if json.Unmarshal([]byte(np.Annotations[namesAnnotation]), &names) != nil {
		return nil
	}
	return names[rule]
}
