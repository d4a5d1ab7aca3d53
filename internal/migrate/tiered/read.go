package tiered

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"github.com/kidoban/kidoban/internal/policy"
)

// unknownAction is refused by Check.
const unknownAction policy.Action = 255

// NewPolicy makes a policy of what all kinds have. allow is the word that the kind has for the action Allow.
func NewPolicy(kind string, meta *metav1.ObjectMeta, subject anp.AdminNetworkPolicySubject, ingress []anp.AdminNetworkPolicyIngressRule,
	egress []anp.AdminNetworkPolicyEgressRule, allow string,
) Policy {
	p := Policy{Kind: kind, Name: meta.Name, Labels: meta.Labels, Annotations: meta.Annotations, Subject: subject}
	action := func(a anp.AdminNetworkPolicyRuleAction) policy.Action {
		switch string(a) {
		case allow:
			return policy.Allow
		case "Deny":
			return policy.Deny
		case "Pass":
			return policy.Pass
		}
		return unknownAction
	}
	for _, r := range ingress {
		rule := Rule{Name: r.Name, Action: action(r.Action), Ports: r.Ports}
		for _, peer := range r.From {
			rule.Peers = append(rule.Peers, anp.AdminNetworkPolicyEgressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
		}
		p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], rule)
	}
	for _, r := range egress {
		p.Rules[policy.Egress] = append(p.Rules[policy.Egress], Rule{Name: r.Name, Action: action(r.Action), Peers: r.To, Ports: r.Ports})
	}
	return p
}

// Missing returns those of the fields of an object's spec that it does not give although the API requires them.
func Missing(raw []byte, fields ...string) (out []string) {
	var o struct {
		Spec map[string]json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(raw, &o) != nil {
		return nil // decoding it into its type reports the error
	}
	for _, f := range fields {
		if v := o.Spec[f]; len(v) == 0 || string(v) == "null" {
			out = append(out, "spec."+f)
		}
	}
	return out
}
