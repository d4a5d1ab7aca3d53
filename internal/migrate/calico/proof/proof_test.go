package proof_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/calico/proof"
)

func set(t *testing.T, specs ...string) *calico.Set {
	t.Helper()
	s := &calico.Set{}
	for i, text := range specs {
		var np networkingv1.NetworkPolicy
		if err := yaml.UnmarshalStrict([]byte(text), &np.Spec); err != nil {
			t.Fatal(err)
		}
		np.Namespace, np.Name = "shop", fmt.Sprint(i)
		s.Kubernetes = append(s.Kubernetes, np)
	}
	return s
}

// Each pair differs in one thing that is easily overlooked; the proof names the flow that shows it.
func TestDifferences(t *testing.T) {
	for _, tc := range []struct{ name, before, after, shown string }{
		{"a pod without the label", "podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [x]}]}", "podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [x]}, {key: a, operator: Exists}]}", "to a pod without labels in namespace shop"},
		{"a value that no selector names", "podSelector: {matchExpressions: [{key: a, operator: Exists}]}", "podSelector: {matchExpressions: [{key: a, operator: In, values: [x, y]}]}", "a=any-other"},
		{"another namespace", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}", "in namespace any-other"},
		{"a namespace's label", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: t, operator: Exists}]}}]}]}", "from a pod without labels in namespace shop at"},
		{"what is no pod", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}", "{podSelector: {}, ingress: [{}]}", "from 0.0.0.0 to"},
		{"the last address of a network", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}]}]}", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.255/32]}}]}]}", "10.0.0.255"},
		{"the other family", "{podSelector: {}, ingress: [{}]}", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}", "from :: to"},
		{"the last port of a range", "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}", "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 89}]}]}", "TCP 90"},
		{"the last port of all", "{podSelector: {}, ingress: [{ports: [{port: 1, endPort: 65535}]}]}", "{podSelector: {}, ingress: [{ports: [{port: 1, endPort: 65534}]}]}", "TCP 65535"},
		{"a protocol without ports", "{podSelector: {}, ingress: [{}]}", "{podSelector: {}, ingress: [{ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}]}", "ICMP"},
		{"a port's name", "{podSelector: {}, ingress: [{ports: [{port: http}]}]}", "{podSelector: {}, ingress: [{ports: [{port: http}, {port: web}]}]}", "(web)"},
		{"the direction", "{podSelector: {}, policyTypes: [Ingress]}", "{podSelector: {}, policyTypes: [Egress]}", "Egress"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, sides := range [][2]string{{tc.before, tc.after}, {tc.after, tc.before}} {
				r, err := proof.Compare(t.Context(), set(t, sides[0]), set(t, sides[1]), proof.Options{})
				if err != nil {
					t.Fatal(err)
				}
				found := false
				for i := range r.Differences {
					d := &r.Differences[i]
					text := fmt.Sprintf("%s from %s to %s %s", d.Direction, d.Peer, d.Pod, d.Flow())
					found = found || strings.Contains(text, tc.shown)
					if d.Before.Allowed == d.After.Allowed {
						t.Errorf("%+v is no difference", d)
					}
				}
				if !found || r.Differing == 0 {
					t.Errorf("%+v", r)
				}
			}
			if r, err := proof.Compare(t.Context(), set(t, tc.before), set(t, tc.before), proof.Options{}); err != nil || r.Differing > 0 || r.Flows == 0 {
				t.Errorf("the same: %+v, %v", r, err)
			}
		})
	}
}

func TestTooManyClassesAreNotPassedOver(t *testing.T) {
	var terms []metav1.LabelSelectorRequirement
	for i := range 20 {
		terms = append(terms, metav1.LabelSelectorRequirement{Key: fmt.Sprintf("k%d", i), Operator: metav1.LabelSelectorOpExists})
	}
	s := &calico.Set{Kubernetes: []networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchExpressions: terms}}}}}
	if _, err := proof.Compare(t.Context(), s, s, proof.Options{}); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Error(err)
	}
}

func TestWhatCannotBeJudgedIsNotPassedOver(t *testing.T) {
	s := &calico.Set{Policies: []calico.Policy{{Kind: calico.KindNetworkPolicy, Namespace: "shop", Name: "a", Spec: calico.PolicySpec{Selector: "a =="}}}}
	if _, err := proof.Compare(t.Context(), s, &calico.Set{}, proof.Options{}); err == nil {
		t.Error("no error")
	}
}

func TestItEndsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s := set(t, "podSelector: {}")
	if _, err := proof.Compare(ctx, s, s, proof.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Each name of a port doubles the cases: so many are refused with a word, and not looked at until the memory is full.
func TestTooManyNamesOfPorts(t *testing.T) {
	ports := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("{port: name-%d}, {port: %d}", i, 8000+2*i))
		}
		return "{podSelector: {}, ingress: [{ports: [" + strings.Join(list, ", ") + "]}]}"
	}
	if r, err := proof.Compare(t.Context(), set(t, ports(8)), set(t, ports(8)), proof.Options{}); err != nil || r.Differing != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, n := range []int{16, 30, 80} {
		if _, err := proof.Compare(t.Context(), set(t, ports(n)), set(t, ports(n)), proof.Options{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("namespace shop: its policies name ports by %d names", n)) {
			t.Errorf("%d: %v", n, err)
		}
	}
}
