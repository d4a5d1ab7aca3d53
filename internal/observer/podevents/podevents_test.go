package podevents

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

func pod(namespace, name string) observerapi.End {
	return observerapi.End{Namespace: namespace, Pod: name + "-0", UID: "uid-" + name, Workload: &agentapi.Workload{Kind: "Deployment", Name: name}}
}

var (
	allows   = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonDefaultAllow}
	isolated = &observerapi.Decision{Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny, IsolatedBy: []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "bank", Name: "deny"}}}
	byRule   = &observerapi.Decision{Verdict: observerapi.Denied, Reason: agentapi.ReasonPolicy, Policy: &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "base"}}}
)

type fixture struct {
	*Events
	client *fake.Clientset
}

func newFixture() *fixture {
	client := fake.NewClientset()
	return &fixture{New(Options{Events: client.CoreV1(), Registry: prometheus.NewRegistry(), Log: logr.Discard(), Host: "observer-0"}), client}
}

// messages of all Events, by pod.
func (f *fixture) messages(t *testing.T) (out []string) {
	t.Helper()
	list, err := f.client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		e := &list.Items[i]
		if e.Type != corev1.EventTypeWarning || e.Namespace != e.InvolvedObject.Namespace || string(e.InvolvedObject.UID) == "" || e.ReportingInstance != "observer-0" {
			t.Errorf("%+v", e)
		}
		out = append(out, e.InvolvedObject.Namespace+"/"+e.InvolvedObject.Name+": "+e.Message)
	}
	slices.Sort(out)
	return out
}

// A pod's Event names the policies of its own namespace, and not those of the other end.
func TestMessages(t *testing.T) {
	f := newFixture()
	now := time.Now()
	web, vault := pod("shop", "web"), pod("bank", "vault")
	outside := observerapi.End{Address: netip.MustParseAddr("192.0.2.1")}
	for _, flow := range []observerapi.Flow{
		{Source: web, Destination: vault, Protocol: "TCP", Port: 8200, Verdict: observerapi.Denied, Egress: allows, Ingress: isolated},
		{Source: web, Destination: outside, Protocol: "UDP", Port: 53, Verdict: observerapi.Denied, Egress: byRule},
		{Source: web, Destination: vault, Protocol: "TCP", Port: 80, Verdict: observerapi.Denied, Egress: byRule},
		{Source: web, Destination: vault, Protocol: "TCP", Port: 443, Verdict: observerapi.Allowed, Egress: allows, Ingress: allows},
		{Source: web, Destination: vault, Protocol: "TCP", Port: 444, Verdict: observerapi.WouldBeDeny, Egress: allows, Ingress: allows},
	} {
		f.Add(context.Background(), &flow, now)
	}
	want := []string{
		"bank/vault-0: Ingress of TCP 8200 from Deployment shop/web denied: no rule of NetworkPolicy bank/deny allows it",
		"shop/web-0: Egress of TCP 80 to Deployment bank/vault denied: ClusterNetworkPolicy base",
		"shop/web-0: Egress of UDP 53 to 192.0.2.1 denied: ClusterNetworkPolicy base",
		"shop/web-0: TCP 8200 to Deployment bank/vault denied by policies of the destination",
	}
	if diff := cmp.Diff(want, f.messages(t)); diff != "" {
		t.Error(diff)
	}
}

func TestEventsAreLimited(t *testing.T) {
	f := newFixture()
	begin := time.Now().Truncate(again)
	flow := func(port uint16) *observerapi.Flow {
		return &observerapi.Flow{Source: pod("shop", "web"), Destination: observerapi.End{IsNode: true, Node: "n1"}, Protocol: "TCP", Port: port, Verdict: observerapi.Denied, Egress: byRule}
	}
	for range 100 {
		f.Add(context.Background(), flow(80), begin)
	}
	if got := f.messages(t); len(got) != 1 {
		t.Errorf("one kind: %q", got)
	}
	for port := range uint16(200) {
		f.Add(context.Background(), flow(1000+port), begin)
	}
	if got := f.messages(t); len(got) != burst {
		t.Errorf("many kinds: %d Events, want %d", len(got), burst)
	}
	if n := testutil.ToFloat64(f.results.WithLabelValues("limited")); n != 200-burst+1 {
		t.Errorf("%v were limited", n)
	}
	f.Add(context.Background(), flow(80), begin.Add(again))
	if got := f.messages(t); len(got) != burst+1 {
		t.Errorf("after the interval: %d Events", len(got))
	}
}

// Two replicas receive the same flow.
func TestReplicasMakeOneEvent(t *testing.T) {
	f := newFixture()
	other := New(Options{Events: f.client.CoreV1(), Registry: prometheus.NewRegistry(), Log: logr.Discard(), Host: "observer-1"})
	flow := &observerapi.Flow{Source: pod("shop", "web"), Destination: observerapi.End{IsNode: true}, Protocol: "TCP", Port: 80, Verdict: observerapi.Denied, Egress: byRule}
	now := time.Now().Truncate(again)
	f.Add(context.Background(), flow, now)
	other.Add(context.Background(), flow, now.Add(time.Minute))
	if got := f.messages(t); len(got) != 1 || testutil.ToFloat64(other.results.WithLabelValues("failed")) != 0 {
		t.Errorf("%q", got)
	}
}

func TestNamesAndMessagesThatAreLong(t *testing.T) {
	k := kind{peer: strings.Repeat("p", 4000)}
	if n := name(strings.Repeat("x", 253), k, time.Now()); len(n) > 253 {
		t.Errorf("a name of %d bytes", len(n))
	}
	flow := &observerapi.Flow{Protocol: "TCP", Port: 1}
	if m := message(flow, &observerapi.End{Namespace: "n"}, true, fmt.Sprint(strings.Repeat("p", 4000))); len(m) > maxMessage {
		t.Errorf("a message of %d bytes", len(m))
	}
}
