//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestCoreDNS puts CoreDNS behind the Service of the cluster's DNS, and lets pods ask for names that a ClusterNetworkPolicy
// allows: their first connection passes, also while the agent does not run, and others are denied.
func TestCoreDNS(t *testing.T) {
	runCoreDNS(t)
	installClusterNetworkPolicies(t)
	apply(t, readFile(t, "testdata/names/policy.yaml"))
	pod := podOf(t, "frontend")
	server := resolverOf(t)
	eventually(t, "the policy is in force", func(ctx context.Context) error {
		cmd, err := test.InPod(ctx, pod, "/probe", "dial", "tcp/203.0.113.10:443")
		if err != nil {
			return err
		}
		if r, err := result(cmd); err != nil || r.Outcome != reach.TimedOut {
			return fmt.Errorf("before a question: %s: %w", r.Outcome, err)
		}
		return nil
	})
	// ask resolves a name in the pod and connects to its address at once.
	ask := func(want reach.Outcome, args ...string) {
		t.Helper()
		cmd, err := test.InPod(t.Context(), pod, append([]string{"/probe", "resolve", "--timeout=3s", "--server=" + server}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := result(cmd); err != nil || r.Outcome != want || want == reach.Open && r.Answered != 1 {
			t.Errorf("%v: %s, SYN %d, %v, want %s", args, r.Outcome, r.Answered, err, want)
		}
	}
	eventually(t, "answers of the cluster's DNS count", func(ctx context.Context) error {
		cmd, err := test.InPod(ctx, pod, "/probe", "resolve", "--server="+server, "warm.cdn.example:443")
		if err != nil {
			return err
		}
		if r, err := result(cmd); err != nil || r.Outcome != reach.Open {
			return fmt.Errorf("%s: %w", r.Outcome, err)
		}
		return nil
	})
	ask(reach.Open, "API.Vendor.example:443")
	ask(reach.Open, "--tcp", "--network=ip6", "api.vendor.example:443")
	ask(reach.TimedOut, "api.vendor.example:8443")
	ask(reach.TimedOut, "forbidden.example:443")

	// Learning and judging go on without the agent, and what was learned outlives it.
	agents := enginePods(t, "agent")
	for _, agent := range agents {
		signalPod(t, &agent, "STOP")
	}
	resume := sync.OnceFunc(func() {
		for _, agent := range agents {
			signalPod(t, &agent, "CONT")
		}
	})
	t.Cleanup(resume)
	ask(reach.Open, "a.b.cdn.example:443")
	resume()
	kill(t, agents)
	for _, address := range []string{"203.0.113.10:443", "203.0.113.200:443", "[2001:db8:113::10]:443"} {
		cmd, err := test.InPod(t.Context(), pod, "/probe", "dial", "--timeout=3s", "tcp/"+address)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := result(cmd); err != nil || r.Outcome != reach.Open {
			t.Errorf("%s after the agent's restart: %s, %v", address, r.Outcome, err)
		}
	}
}

// runCoreDNS runs CoreDNS in place of the stand-in behind the Service of the cluster's DNS, until the test's end.
func runCoreDNS(t *testing.T) {
	t.Helper()
	cmd := test.Command(t.Context(), "build", "--only=dns")
	cmd.Stderr = test.Log
	bin, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Load(t.Context(), filepath.Join(strings.TrimSpace(string(bin)), "coredns.tar")); err != nil {
		t.Fatal(err)
	}
	var dns corev1.Service
	if err := store.Client.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "kube-dns"}, &dns); err != nil {
		t.Fatal(err)
	}
	before := dns.DeepCopy()
	apply(t, readFile(t, "testdata/names/coredns.yaml"))
	if _, err := cluster.Output(test.Kubectl(t.Context(), "-n", "kube-system", "rollout", "status", "--timeout=1m", "deployment/coredns")); err != nil {
		t.Fatal(err)
	}
	patch(t, &dns, func() {
		dns.Spec.Selector = map[string]string{"k8s-app": "coredns"}
		for i := range dns.Spec.Ports {
			dns.Spec.Ports[i].TargetPort.IntVal = 5353
		}
	})
	t.Cleanup(func() {
		patch(t, &dns, func() { dns.Spec.Selector, dns.Spec.Ports = before.Spec.Selector, before.Spec.Ports })
	})
}

func patch(t *testing.T, obj client.Object, edit func()) {
	t.Helper()
	base := client.MergeFrom(obj.DeepCopyObject().(client.Object))
	edit()
	if err := store.Client.Patch(context.Background(), obj, base); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// resolverOf is the address and port of the cluster's DNS.
func resolverOf(t *testing.T) string {
	t.Helper()
	var dns corev1.Service
	if err := store.Client.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "kube-dns"}, &dns); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(dns.Spec.ClusterIP), 53).String()
}
