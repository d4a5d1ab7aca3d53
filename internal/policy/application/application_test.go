package application

import (
	"reflect"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAsANetworkPolicy(t *testing.T) {
	block := networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}
	p := &Policy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{"a": "b"}}, Spec: Spec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress: []EgressRule{
			{To: []Peer{{DomainNames: []string{"a.example"}}}},
			{To: []Peer{{NetworkPolicyPeer: block}, {DomainNames: []string{"b.example"}}}},
			{},
			{To: []Peer{{NetworkPolicyPeer: block, DomainNames: []string{"c.example"}}}},
		},
	}}
	np := p.NetworkPolicy()
	if np.Namespace != "shop" || np.Name != "web (ApplicationNetworkPolicy)" || len(p.Annotations) != 1 {
		t.Errorf("%+v", np.ObjectMeta)
	}
	nothing := networkingv1.NetworkPolicyPeer{}
	for i, want := range [][]networkingv1.NetworkPolicyPeer{{nothing}, {block}, nil, {nothing}} {
		if got := np.Spec.Egress[i].To; !reflect.DeepEqual(got, want) {
			t.Errorf("rule %d: %v, want %v", i, got, want)
		}
	}
	for i, want := range [][]string{{"a.example"}, {"b.example"}, nil, nil} {
		if got := DomainNames(np, i); !reflect.DeepEqual(got, want) {
			t.Errorf("rule %d: names %v, want %v", i, got, want)
		}
	}
	if np.Kind = ""; DomainNames(np, 0) != nil {
		t.Error("an annotation gives a NetworkPolicy names")
	}
}
