//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// namesManifest has a DNS server in the place where the controller looks for one, behind a Service with another target port; one of a tenant that
// has the same label; and a policy by name.
const namesManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: names-dns, namespace: kube-system}
spec:
  selector: {matchLabels: {app: names-dns}}
  template:
    metadata: {labels: {app: names-dns}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers:
      - {name: dns, image: "kidoban.dev/probe:dev", args: [dns, --port=5353, "api.partner.example=203.0.113.10,2001:db8:113::10", "later.partner.example=203.0.113.10", other.example=203.0.113.200]}
---
apiVersion: v1
kind: Service
metadata: {name: names-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {selector: {app: names-dns}, ipFamilyPolicy: PreferDualStack, ports: [{name: dns, port: 53, targetPort: 5353, protocol: UDP}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tenant-dns, namespace: shop}
spec:
  selector: {matchLabels: {app: tenant-dns}}
  template:
    metadata: {labels: {app: tenant-dns}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers:
      - {name: dns, image: "kidoban.dev/probe:dev", args: [dns, --port=5353, api.partner.example=203.0.113.200]}
---
apiVersion: v1
kind: Service
metadata: {name: tenant-dns, namespace: shop, labels: {k8s-app: kube-dns}}
spec: {selector: {app: tenant-dns}, ports: [{name: dns, port: 53, targetPort: 5353, protocol: UDP}]}
`

const namesPolicy = `
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app.kubernetes.io/name: frontend}}}}
  egress:
  - {name: dns, action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [names-dns, tenant-dns]}]}}}]}
  - {name: partner, action: Accept, to: [{domainNames: [API.partner.example., "*.partner.example"]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {name: rest, action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}
`

// apply manifests, and delete them when the test ends.
func apply(t *testing.T, manifests string) {
	t.Helper()
	run := func(ctx context.Context, args ...string) error {
		cmd := test.Kubectl(ctx, args...)
		cmd.Stdin = strings.NewReader(manifests)
		_, err := cluster.Output(cmd)
		return err
	}
	if err := run(t.Context(), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run(context.Background(), "delete", "--ignore-not-found", "--cascade=foreground", "-f", "-"); err != nil {
			t.Error(err)
		}
	})
}

// installClusterNetworkPolicies adds the kind, of the experimental channel, until the test ends.
func installClusterNetworkPolicies(t *testing.T) {
	t.Helper()
	crd := filepath.Join(test.Repo, "config", "components", "cluster-network-policy-experimental", "policy.networking.k8s.io_clusternetworkpolicies.yaml")
	if _, err := cluster.Output(test.Kubectl(t.Context(), "apply", "--server-side", "-f", crd)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the kind is served", func(ctx context.Context) error { // kubectl wait ends with an error while there are no conditions
		_, err := cluster.Output(test.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=10s", "-f", crd))
		return err
	})
	t.Cleanup(func() { _, _ = cluster.Output(test.Kubectl(context.Background(), "delete", "-f", crd)) })
}

// TestDomainNames allows a pod the addresses of names, which its node learns from a trusted resolver's answers, also while the agent is stopped.
func TestDomainNames(t *testing.T) {
	installClusterNetworkPolicies(t)
	apply(t, namesManifest)
	for _, name := range []string{"kube-system/names-dns", "shop/tenant-dns"} {
		namespace, deployment, _ := strings.Cut(name, "/")
		if _, err := cluster.Output(test.Kubectl(t.Context(), "-n", namespace, "rollout", "status", "--timeout=2m", "deployment/"+deployment)); err != nil {
			t.Fatal(err)
		}
	}
	service := func(namespace, name string) string {
		s := &corev1.Service{}
		if err := store.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, s); err != nil {
			t.Fatal(err)
		}
		return netip.AddrPortFrom(netip.MustParseAddr(s.Spec.ClusterIP), 53).String()
	}
	trusted, tenants := service("kube-system", "names-dns"), service("shop", "tenant-dns")
	apply(t, namesPolicy)

	pod := podOf(t, "frontend")
	by := func(ctx context.Context, server, name string) (reach.Result, error) {
		cmd, err := test.InPod(ctx, pod, "/probe", "resolve", "--timeout=2s", "--server="+server, name)
		if err != nil {
			return reach.Result{}, err
		}
		return result(cmd)
	}
	byAddress := func(ctx context.Context, address string) (reach.Result, error) {
		cmd, err := test.InPod(ctx, pod, "/probe", "dial", "tcp/"+address)
		if err != nil {
			return reach.Result{}, err
		}
		return result(cmd)
	}
	want := func(what string, wanted reach.Outcome, r reach.Result, err error) {
		t.Helper()
		if err != nil || r.Outcome != wanted {
			t.Errorf("%s: %+v, %v, want %s", what, r, err, wanted)
		}
	}
	eventually(t, "the policy is in force", func(ctx context.Context) error {
		r, err := byAddress(ctx, "203.0.113.10:443")
		if err == nil && r.Outcome == reach.Open {
			err = errors.New("the address is allowed before a question for its name")
		}
		return err
	})
	eventually(t, "the resolver is trusted", func(ctx context.Context) error {
		var list struct {
			Resolvers map[string][]netip.AddrPort `json:"resolvers"`
		}
		out := kidoban(t, 0, "names", "--node", pod.Spec.NodeName, "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		all := list.Resolvers[pod.Spec.NodeName]
		if !slices.Contains(all, netip.MustParseAddrPort(trusted)) {
			return fmt.Errorf("%s is not among the resolvers %v", trusted, all)
		}
		if slices.Contains(all, netip.MustParseAddrPort(tenants)) {
			return fmt.Errorf("the tenant's Service is trusted: %v", all)
		}
		return nil
	})

	r, err := by(t.Context(), tenants, "api.partner.example:443")
	want("by a tenant's resolver", reach.TimedOut, r, err)
	r, err = by(t.Context(), trusted, "other.example:443")
	want("another name", reach.TimedOut, r, err)
	r, err = by(t.Context(), trusted, "api.partner.example:443")
	if want("the name", reach.Open, r, err); r.Answered != 1 {
		t.Errorf("SYN %d was answered, want the first", r.Answered)
	}
	r, err = byAddress(t.Context(), "203.0.113.10:443")
	want("its address afterwards", reach.Open, r, err)
	r, err = byAddress(t.Context(), "203.0.113.10:8443")
	want("another port", reach.TimedOut, r, err)
	out := kidoban(t, 0, "names", "shop/frontend")
	if !strings.Contains(out, "api.partner.example") || !strings.Contains(out, "203.0.113.10") {
		t.Errorf("names:\n%s", out)
	}
}

// podOf returns a pod of one of the shop's workloads.
func podOf(t *testing.T, workload string) *corev1.Pod {
	t.Helper()
	pods, err := store.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		if pods[i].Labels["app.kubernetes.io/name"] == workload {
			return &pods[i]
		}
	}
	t.Fatalf("no pod of %s", workload)
	return nil
}

// result reads the one line that a probe prints.
func result(cmd *exec.Cmd) (r reach.Result, err error) {
	out, err := cluster.Output(cmd)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(out), &r)
}
