package controller

import (
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// A rule, a subject or a policy with a field that this version does not know must not be judged by the fields that it knows.
func TestPartsOfAClusterPolicyWithUnknownFieldsAreClosed(t *testing.T) {
	const pods = "{pods: {namespaceSelector: {}, podSelector: {}%s}}"
	known, unknown := fmt.Sprintf(pods, ""), fmt.Sprintf(pods, ", newer: 1")
	rule := func(peer string) string { return "{action: Accept, from: [" + peer + "]}" }
	to := func(peer string) string { return "{action: Accept, to: [" + peer + "]}" }
	// 5 rules of 25 peers with an unknown field each are more errors than a decoder lists.
	peers := unknown
	for range 24 {
		peers += ", " + unknown
	}
	many := rule(peers)
	for range 4 {
		many += ", " + rule(peers)
	}
	for _, tc := range []struct {
		name, ingress, egress, rest string
		closedIngress, closedEgress []int
		noSubject                   bool
	}{
		{name: "all is known", ingress: rule(known), egress: to(known)},
		{name: "a peer", ingress: rule(known) + ", " + rule(known+", "+unknown), egress: to(known), closedIngress: []int{1}},
		{name: "a rule", ingress: rule(known), egress: "{action: Accept, to: [" + known + "], newer: 1}", closedEgress: []int{0}},
		{name: "a protocol", ingress: "{action: Accept, from: [" + known + "], protocols: [{icmp: {}}]}", egress: to(known), closedIngress: []int{0}},
		{name: "the subject", ingress: rule(known), egress: to(known), rest: "subject: {namespaces: {}, newer: 1}", noSubject: true},
		{name: "the policy", ingress: rule(known), egress: to(known), rest: "newer: 1", closedIngress: []int{0}, closedEgress: []int{0}},
		{name: "more than a hundred", egress: to(known) + ", " + to(unknown), ingress: many, rest: "subject: {namespaces: {}, newer: 1}",
			closedIngress: []int{0, 1, 2, 3, 4}, closedEgress: []int{1}, noSubject: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := fmt.Sprintf("metadata: {name: a}\nspec:\n  tier: Admin\n  priority: 1\n  ingress: [%s]\n  egress: [%s]\n  %s\n", tc.ingress, tc.egress, tc.rest)
			obj := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(text), &obj.Object); err != nil {
				t.Fatal(err)
			}
			if spec := obj.Object["spec"].(map[string]any); spec["subject"] == nil {
				spec["subject"] = map[string]any{"namespaces": map[string]any{}}
			}
			np, err := readClusterPolicy(obj)
			if err != nil {
				t.Fatal(err)
			}
			var ingress, egress []int
			for i, r := range np.Spec.Ingress {
				if len(r.From) == 1 && r.From[0].Namespaces == nil && r.From[0].Pods == nil {
					ingress = append(ingress, i)
				}
			}
			for i, r := range np.Spec.Egress {
				if len(r.To) == 1 && r.To[0].Namespaces == nil && r.To[0].Pods == nil {
					egress = append(egress, i)
				}
			}
			noSubject := np.Spec.Subject.Namespaces == nil && np.Spec.Subject.Pods == nil
			if !slices.Equal(ingress, tc.closedIngress) || !slices.Equal(egress, tc.closedEgress) || noSubject != tc.noSubject {
				t.Errorf("closed are ingress %v, egress %v, and no subject is %t", ingress, egress, noSubject)
			}
		})
	}
}
