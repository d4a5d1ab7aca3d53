package matrix_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// pod is number n of the namespace shop, with both families.
func pod(workload string, n int, ports ...corev1.ContainerPort) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("%s-%d", workload, n), Labels: map[string]string{matrix.WorkloadLabel: workload}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{
			{IP: fmt.Sprintf("10.244.0.%d", n)}, {IP: fmt.Sprintf("fd44::%d", n)},
		}},
	}
}

var (
	web      = corev1.ContainerPort{Name: "web", ContainerPort: 8080}
	dns      = corev1.ContainerPort{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}
	denyAllB = networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deny"},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{matrix.WorkloadLabel: "b"}}},
	}
)

// source dials as the fake network says.
func source(p corev1.Pod, network func(reach.Target) reach.Outcome) matrix.Source {
	return matrix.Source{
		Row: p.Labels[matrix.WorkloadLabel], Name: p.Name, Addresses: policy.PodAddresses(&p),
		Dial: func(_ context.Context, targets []reach.Target, _ time.Duration) ([]reach.Result, error) {
			results := make([]reach.Result, len(targets))
			for i, target := range targets {
				results[i] = reach.Result{Target: target, Outcome: network(target)}
			}
			return results, nil
		},
	}
}

func TestServiceEndpointsNameTheirBackends(t *testing.T) {
	other := web
	other.ContainerPort = 9090
	pods := []corev1.Pod{pod("b", 2, web), pod("b", 3, other), pod("c", 4, web)}
	service := corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"},
		Spec: corev1.ServiceSpec{
			ClusterIPs: []string{"10.96.0.7", "fd96::7"},
			Selector:   map[string]string{matrix.WorkloadLabel: "b"},
			Ports:      []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("web")}},
		},
	}
	got := matrix.ServiceEndpoints([]corev1.Service{service}, pods)
	want := "[tcp/10.96.0.7:80→[10.244.0.2:8080 10.244.0.3:9090] tcp/[fd96::7]:80→[[fd44::2]:8080 [fd44::3]:9090]]"
	var text []string
	for _, e := range got {
		text = append(text, fmt.Sprintf("%s→%v", e.Target, e.Backends))
	}
	if fmt.Sprint(text) != want {
		t.Errorf("endpoints %v, want %s", text, want)
	}
}

func TestPlanSaysWhatPoliciesMean(t *testing.T) {
	a, b := pod("a", 1, web), pod("b", 2, web, dns)
	policies := &reference.NetworkPolicies{Pods: []corev1.Pod{a, b}, Policies: []networkingv1.NetworkPolicy{denyAllB}}
	view := matrix.View{
		Sources: []matrix.Source{source(a, nil), source(b, nil)},
		Endpoints: append(matrix.PodEndpoints(policies.Pods), matrix.Endpoint{
			Column: matrix.Column{Group: "both", Port: "80"}, Target: reach.Target{Protocol: "tcp", Address: netip.MustParseAddrPort("10.96.0.9:80")},
			Backends: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.1:8080"), netip.MustParseAddrPort("10.244.0.2:8080")},
		}),
	}
	var got []string
	for _, p := range view.Plan(policies).Probes {
		got = append(got, fmt.Sprintf("%s>%s %t", p.Source.Name, p.Endpoint.Target, p.Allowed))
	}
	want := []string{
		// not to itself, and not to the Service that might be itself or another
		"a-1>udp/10.244.0.2:53 false", "a-1>udp/[fd44::2]:53 false", "a-1>tcp/10.244.0.2:8080 false", "a-1>tcp/[fd44::2]:8080 false",
		"b-2>tcp/10.244.0.1:8080 true", "b-2>tcp/[fd44::1]:8080 true",
		"b-2>tcp/10.96.0.9:80 true", // itself it always reaches
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("plan:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTableShowsDifferences(t *testing.T) {
	a, b := pod("a", 1, web), pod("b", 2, web, dns)
	policies := &reference.NetworkPolicies{Pods: []corev1.Pod{a, b}, Policies: []networkingv1.NetworkPolicy{denyAllB}}
	network := func(target reach.Target) reach.Outcome {
		switch target.String() {
		case "tcp/[fd44::2]:8080": // a hole in one family
			return reach.Open
		case "tcp/10.244.0.2:8080", "udp/10.244.0.2:53", "udp/[fd44::2]:53":
			return reach.TimedOut
		}
		return reach.Open
	}
	table := matrix.View{
		Title:     "Pod IP",
		Sources:   []matrix.Source{source(a, network), source(b, network)},
		Endpoints: matrix.PodEndpoints(policies.Pods),
	}.Plan(policies)
	if err := table.Run(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	matrix.Style{Meaning: true}.Draw(&out, table)
	want := `
Pod IP   a      b
         8080   53/udp 8080
a        ·      ✘=✘    4✘6✔≠✘
b        ✔=✔    ·      ·
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("table:%s\nwant:%s", got, want)
	}
	wrong := table.Wrong()
	if len(wrong) != 1 || wrong[0].String() != "a-1 → b 8080 tcp/[fd44::2]:8080: open, want timed out" {
		t.Errorf("wrong: %v", wrong)
	}
}

func TestARefusalIsNoDrop(t *testing.T) {
	p := matrix.Probe{Result: reach.Result{Outcome: reach.Refused}}
	if p.Right() {
		t.Error("a refused connection passes for a dropped one")
	}
}
