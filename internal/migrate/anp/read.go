package anp

import (
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
)

// Group of the kinds.
const Group = "policy.networking.k8s.io"

// The kinds.
const (
	KindAdmin    = "AdminNetworkPolicy"
	KindBaseline = "BaselineAdminNetworkPolicy"
)

// What v1alpha1 admits: rules a direction, and peers and ports a rule.
const maxItems = 100

// baselinePriority of ClusterNetworkPolicies: v1alpha1 has one BaselineAdminNetworkPolicy and no priority for it.
const baselinePriority = 500

// Set is what was read.
type Set struct {
	Policies []tiered.Policy
	// Refused are the objects that cannot be converted, with why.
	Refused []migrate.Problem
	// Warnings are findings about the input.
	Warnings []migrate.Problem
	// ClusterPolicies are names that ClusterNetworkPolicies have already.
	ClusterPolicies map[string]bool
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

// Read takes in one object, as JSON. It reports whether the object is of the group.
func (s *Set) Read(t metav1.TypeMeta, raw []byte) bool {
	gv, err := schema.ParseGroupVersion(t.APIVersion)
	if err != nil || gv.Group != Group {
		return false
	}
	var o struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	object := t.Kind
	if err := json.Unmarshal(raw, &o); err == nil {
		object += " " + o.Metadata.Name
	}
	switch {
	case t.Kind != KindAdmin && t.Kind != KindBaseline:
		s.refuse(migrate.Problem{Object: object, Problem: "kind " + t.Kind + " is not known", Fix: "correct the kind"})
	case gv.Version != "v1alpha1":
		s.refuse(migrate.Problem{Object: object, Field: "apiVersion", Problem: fmt.Sprintf("%s is only in %s/v1alpha1, and this is %s", t.Kind, Group, t.APIVersion), Fix: "correct the version"})
	case t.Kind == KindAdmin:
		s.readAdmin(object, raw)
	default:
		s.readBaseline(object, raw)
	}
	return true
}

func (s *Set) refuse(p ...migrate.Problem) { s.Refused = append(s.Refused, p...) }

func (s *Set) readAdmin(object string, raw []byte) {
	o := anp.AdminNetworkPolicy{}
	if err := tiered.Decode(raw, &o); err != nil {
		s.refuse(tiered.Problems(object, err)...)
		return
	}
	p := tiered.NewPolicy(KindAdmin, &o.ObjectMeta, o.Spec.Subject, o.Spec.Ingress, o.Spec.Egress, "Allow")
	p.Tier, p.Priority = cnp.AdminTier, o.Spec.Priority
	s.add(p, tiered.Missing(raw, "priority", "subject"))
}

func (s *Set) readBaseline(object string, raw []byte) {
	o := anp.BaselineAdminNetworkPolicy{}
	if err := tiered.Decode(raw, &o); err != nil {
		s.refuse(tiered.Problems(object, err)...)
		return
	}
	if o.Name != "default" {
		s.refuse(migrate.Problem{Object: object, Field: "metadata.name", Problem: "v1alpha1 has one BaselineAdminNetworkPolicy, named default", Fix: "take the one that is in force, and name it default"})
		return
	}
	var ingress []anp.AdminNetworkPolicyIngressRule
	for _, r := range o.Spec.Ingress {
		ingress = append(ingress, anp.AdminNetworkPolicyIngressRule{Name: r.Name, Action: anp.AdminNetworkPolicyRuleAction(r.Action), From: r.From, Ports: r.Ports})
	}
	var egress []anp.AdminNetworkPolicyEgressRule
	for _, r := range o.Spec.Egress {
		rule := anp.AdminNetworkPolicyEgressRule{Name: r.Name, Action: anp.AdminNetworkPolicyRuleAction(r.Action), Ports: r.Ports}
		for _, p := range r.To {
			rule.To = append(rule.To, anp.AdminNetworkPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods, Nodes: p.Nodes, Networks: p.Networks})
		}
		egress = append(egress, rule)
	}
	p := tiered.NewPolicy(KindBaseline, &o.ObjectMeta, o.Spec.Subject, ingress, egress, "Allow")
	p.Tier, p.Priority = cnp.BaselineTier, baselinePriority
	s.add(p, tiered.Missing(raw, "subject"))
}

// add a policy, in place of one of the same name, as kubectl apply does.
func (s *Set) add(p tiered.Policy, missing []string) {
	same := func(o string) bool { return o == p.String() }
	if slices.ContainsFunc(s.Policies, func(q tiered.Policy) bool { return same(q.String()) }) || slices.ContainsFunc(s.Refused, func(q migrate.Problem) bool { return same(q.Object) }) {
		s.Warnings = append(s.Warnings, migrate.Problem{Object: p.String(), Problem: "it is given more than once: the last one counts, as with kubectl apply", Fix: "remove the others"})
	}
	s.Policies = slices.DeleteFunc(s.Policies, func(q tiered.Policy) bool { return same(q.String()) })
	s.Refused = slices.DeleteFunc(s.Refused, func(q migrate.Problem) bool { return same(q.Object) })
	problems := p.Check(maxItems, maxItems)
	for _, field := range missing {
		problems = append(problems, migrate.Problem{Object: p.String(), Field: field, Problem: "it is required", Fix: "add it"})
	}
	if len(problems) > 0 {
		s.refuse(problems...)
		return
	}
	s.Policies = append(s.Policies, p)
}
