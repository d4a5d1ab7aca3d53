//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
)

// TestUnknownPortName asks for a port that no peer has: the user gets the reason, and the rest of the policy is in force.
func TestUnknownPortName(t *testing.T) {
	np := ingressPolicy("unknown-port-name", "backend")
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	np.Spec.Ingress = nil
	np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
		{To: []networkingv1.NetworkPolicyPeer{{PodSelector: workload("database")}}, Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromString("no-such-port"))}}},
		{To: []networkingv1.NetworkPolicyPeer{{PodSelector: workload("frontend")}}, Ports: tcp(8080)},
	}
	create(t, np)
	tables := awaitInForce(t)
	check(t, tables, "closed: backend > database 5432")
	check(t, tables, "open: backend > frontend 8080")

	eventually(t, "the PolicyEndpoint's condition names the port", func(ctx context.Context) error {
		pe, err := endpointOf(ctx, np)
		if err != nil {
			return err
		}
		c := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved)
		if c == nil || c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonUnresolvedNamedPort ||
			!strings.Contains(c.Message, "no-such-port") || c.ObservedGeneration != pe.Generation {
			return fmt.Errorf("condition of generation %d: %+v", pe.Generation, c)
		}
		return nil
	})
	eventually(t, "an Event on the policy names the port", func(ctx context.Context) error {
		var list corev1.EventList
		if err := store.Client.List(ctx, &list, client.InNamespace(np.Namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.UID == np.UID && e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "no-such-port") {
				return nil
			}
		}
		return fmt.Errorf("not among %d events", len(list.Items))
	})
}

// TestBrokenPolicyEndpoint breaks the schema: the API server refuses it and names the field.
func TestBrokenPolicyEndpoint(t *testing.T) {
	for _, tc := range []struct {
		field string
		edit  func(*v1alpha1.PolicyEndpoint)
	}{
		{"spec.ingress[0].peers[0].cidr", func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress[0].Peers[0].CIDR = "10.0.0.0/33" }},
		{"spec.ingress[0].peers[0]", func(pe *v1alpha1.PolicyEndpoint) {
			pe.Spec.Ingress[0].Peers[0].Except = []v1alpha1.CIDR{"192.0.2.0/24"}
		}},
		{"spec.ingress[0].peers[0]", func(pe *v1alpha1.PolicyEndpoint) {
			pe.Spec.Ingress[0].Peers[0].Group = &v1alpha1.GroupReference{Name: "g-both"}
		}},
		{"spec.ingress[0].ports[0].port", func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress[0].Ports[0].Port = 65536 }},
		{"spec.ingress[0].ports[0].protocol", func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress[0].Ports[0].Protocol = "ICMP" }},
		{"spec.policyTypes[0]", func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.PolicyTypes[0] = "Both" }},
	} {
		pe := &v1alpha1.PolicyEndpoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "broken"},
			Spec: v1alpha1.PolicyEndpointSpec{
				PolicyRef:   v1alpha1.PolicyReference{Kind: "Test", Name: "broken"},
				PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
				Ingress: []v1alpha1.Rule{{
					Action: v1alpha1.ActionAllow,
					Peers:  []v1alpha1.Peer{{CIDR: "10.0.0.0/8"}},
					Ports:  []v1alpha1.Port{{Port: 80}},
				}},
			},
		}
		if err := store.Client.Create(t.Context(), pe.DeepCopy(), client.DryRunAll); err != nil {
			t.Fatalf("not broken yet: %v", err)
		}
		tc.edit(pe)
		err := store.Client.Create(t.Context(), pe, client.DryRunAll)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.field+":") {
			t.Errorf("want %s to be named, got: %v", tc.field, err)
		}
	}
}

// TestForeignPolicyEndpoint writes a PolicyEndpoint and its slice by hand, as another engine may: they are in force too.
func TestForeignPolicyEndpoint(t *testing.T) {
	tables := awaitInForce(t)
	slice := &v1alpha1.PolicyEndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "by-hand"},
		Spec:       v1alpha1.PolicyEndpointSliceSpec{Groups: []v1alpha1.GroupPart{{Name: "by-hand", Slices: []string{"by-hand"}}}},
	}
	for _, pod := range pods(t, "prometheus") {
		for _, ip := range pod.Status.PodIPs {
			bits := map[bool]string{true: "/128", false: "/32"}[strings.Contains(ip.IP, ":")]
			slice.Spec.Addresses = append(slice.Spec.Addresses, v1alpha1.CIDR(ip.IP+bits))
		}
	}
	slice.Spec.Count = int32(len(slice.Spec.Addresses))
	slice.Spec.Classes = []v1alpha1.AddressClass{{Groups: []int32{0}, Count: slice.Spec.Count}}
	pe := &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "by-hand"},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef:   v1alpha1.PolicyReference{Kind: "Test", Name: "by-hand"},
			PodSelector: *workload("database"),
			PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
			Ingress:     []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{Group: &v1alpha1.GroupReference{Name: "by-hand"}}}}},
		},
	}
	create(t, slice, pe)
	table := tables[0]
	for i := range table.Probes {
		p := &table.Probes[i]
		p.Allowed = p.Endpoint.Column.Group != "database" || p.Source.Row == "prometheus"
	}
	eventually(t, "what was written by hand is in force", func(ctx context.Context) error {
		if err := table.Run(ctx, time.Second); err != nil {
			return err
		}
		if wrong := table.Wrong(); len(wrong) > 0 {
			return fmt.Errorf("%d connections, as %s", len(wrong), wrong[0].String())
		}
		return nil
	})
}

// TestAgentRefusesToStart starts a second agent on a node, where something is missing. It says what, and what to do, and
// leaves what is in force alone.
func TestAgentRefusesToStart(t *testing.T) {
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database)
	tables := awaitInForce(t)
	traffic := startTraffic(t, tables, "backend", matrix.Column{Group: "database", Port: "5432"})
	frontend := startTraffic(t, tables, "frontend", matrix.Column{Group: "database", Port: "5432"})

	noPorts := []string{"--metrics-bind-address=0", "--health-probe-bind-address=0", "--api-bind-address=0"}
	for _, tc := range []struct {
		name  string
		wrap  []string
		flags []string
		says  []string
	}{
		{"metrics port in use", nil, nil, []string{"--metrics-bind-address", "8162", "address already in use"}},
		{"health port in use", nil, noPorts[:1], []string{"--health-probe-bind-address", "8163", "address already in use"}},
		{"API port in use", nil, noPorts[:2], []string{"--api-bind-address", "8164", "address already in use"}},
		{"no bpffs", []string{"unshare", "--mount", "sh", "-c", `umount /sys/fs/bpf && exec "$0" "$@"`}, noPorts, []string{"/sys/fs/bpf", "mount -t bpf"}},
		{"no capabilities", []string{"setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"}, noPorts, []string{"BPF", "PERFMON", "securityContext"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			argv := slices.Concat(tc.wrap, []string{build.Agent, "--node-name=n1", "--namespace=" + engine.Namespace}, tc.flags)
			cmd := test.OnNode(t.Context(), "n1", argv...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err == nil {
				t.Error("the agent ended as if nothing were wrong")
			}
			for _, s := range tc.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("it does not say %q", s)
				}
			}
			t.Log(out.String())
		})
	}
	traffic.await(t, 3)
	frontend.await(t, 3)
	traffic.stop(t)
	frontend.stop(t)
	awaitInForce(t)
}

// eventually polls until f returns no error.
func eventually(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	within(t, inForceTimeout, what, f)
}

// within is eventually with a limit of its own.
func within(t *testing.T, limit time.Duration, what string, f func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		now := f(ctx)
		if now == nil || ctx.Err() == nil || last == nil { // else the time is over, and the last reason says more
			last = now
		}
		return now == nil, nil
	})
	if err != nil {
		t.Errorf("%s: %v: %v", what, err, last)
	}
}
