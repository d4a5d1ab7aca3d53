package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// cluster with these objects, that knows these kinds beside its own.
func cluster(t *testing.T, kinds []schema.GroupVersionKind, documents string) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, cnp.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	versions := []schema.GroupVersion{corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, networkingv1.SchemeGroupVersion}
	for _, gvk := range kinds {
		versions = append(versions, gvk.GroupVersion())
	}
	mapper := meta.NewDefaultRESTMapper(versions)
	for _, gv := range versions[:3] {
		for kind := range scheme.KnownTypes(gv) {
			mapper.Add(gv.WithKind(kind), meta.RESTScopeNamespace)
		}
	}
	for _, gvk := range kinds {
		mapper.Add(gvk, meta.RESTScopeNamespace)
		scheme.AddKnownTypeWithName(gvk, &unstructured.Unstructured{})
		scheme.AddKnownTypeWithName(gvk.GroupVersion().WithKind(gvk.Kind+"List"), &unstructured.UnstructuredList{})
	}
	b := fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapper)
	for document := range strings.SplitSeq(documents, "\n---\n") {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatal(err)
		}
		b.WithObjects(&o)
	}
	return b.Build()
}

func calicoKinds(more ...schema.GroupVersionKind) []schema.GroupVersionKind {
	out := append([]schema.GroupVersionKind{{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}}, more...)
	for _, kind := range append([]string{"FelixConfiguration", "BGPPeer"}, policyKinds...) {
		out = append(out, schema.GroupVersionKind{Group: "crd.projectcalico.org", Version: "v1", Kind: kind})
	}
	return out
}

var installation = schema.GroupVersionKind{Group: "operator.tigera.io", Version: "v1", Kind: "Installation"}

// Amazon's VPC CNI with Calico for policies: nothing stands in the way.
const policyOnly = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: calico-system}
spec: {template: {spec: {containers: [{name: calico-node, image: "calico/node:v3.30.0", env: [{name: FELIX_BPFENABLED, value: "false"}]}]}}}
status: {desiredNumberScheduled: 3}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: aws-node, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-proxy, namespace: kube-system}
---
apiVersion: operator.tigera.io/v1
kind: Installation
metadata: {name: default}
spec: {cni: {type: AmazonVPC}, calicoNetwork: {linuxDataplane: Iptables}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tiers.crd.projectcalico.org}
spec: {group: crd.projectcalico.org}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {nodeInfo: {kernelVersion: 6.12.30-amazon}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: default.web, namespace: shop}
spec: {order: 10, selector: app == 'web', types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'proxy'}, destination: {ports: [80]}}]}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: default.deny}
spec: {selector: all(), types: [Ingress]}
`

const inTheWay = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: kube-system}
spec: {template: {spec: {initContainers: [{name: install-cni}], containers: [{name: calico-node, image: "calico/node:v3.30.0"}]}}}
---
apiVersion: crd.projectcalico.org/v1
kind: FelixConfiguration
metadata: {name: default}
spec: {bpfEnabled: true, wireguardEnabled: true}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: tor}
---
apiVersion: crd.projectcalico.org/v1
kind: HostEndpoint
metadata: {name: n1, labels: {node: x}}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {nodeInfo: {kernelVersion: 5.10.200}}
---
apiVersion: v1
kind: Node
metadata: {name: w1, labels: {kubernetes.io/os: windows}}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: default.hosts}
spec: {selector: has(node), applyOnForward: true}
`

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		kinds     []schema.GroupVersionKind
		documents string
		free      bool
	}{
		"check-policy-only": {calicoKinds(installation), policyOnly, true},
		"check-in-the-way":  {calicoKinds(), inTheWay, false},
		"check-no-calico":   {nil, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}", true},
	} {
		t.Run(name, func(t *testing.T) {
			check, err := gather(t.Context(), cluster(t, tc.kinds, tc.documents))
			if err != nil {
				t.Fatal(err)
			}
			if check.Free() != tc.free {
				t.Errorf("free: %v", check.Free())
			}
			var out bytes.Buffer
			check.write(&out, false)
			golden(t, name, out.String())
		})
	}
}

const pods = `
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: []}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy-1, namespace: shop, labels: {app: proxy}}
spec: {containers: []}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other-1, namespace: other, labels: {app: other}}
spec: {containers: []}
status: {phase: Running, podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}]}`

// What the conversion of policyOnly comes to.
const converted = `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: proxy}}}], ports: [{port: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: other}
spec: {podSelector: {}, policyTypes: [Ingress]}`

func line(t *testing.T, verdict, from, to, protocol string, port int) agentEvent {
	t.Helper()
	var e agentEvent
	text := fmt.Sprintf(`{"time": "2026-01-02T12:00:00Z", "node": "n1", "direction": "Ingress", "verdict": %q, "reason": "default-deny", "isolatedBy": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "deny"}],
		"source": {"ip": %q}, "destination": {"ip": %q, "port": %d}, "protocol": %q, "count": 3}`, verdict, from, to, port, protocol)
	if err := json.Unmarshal([]byte(text), &e.StreamedEvent); err != nil {
		t.Fatal(err)
	}
	return e
}

// compare a cluster with these events. The clock moves a second with each look at it.
func compare(t *testing.T, documents string, events ...agentEvent) (*watcher, string) {
	t.Helper()
	var out bytes.Buffer
	env := testEnv(&out)
	now := noon
	env.Now = func() time.Time { now = now.Add(time.Second); return now }
	w, err := newWatcher(t.Context(), env, cluster(t, calicoKinds(installation, baselineKind), documents), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	w.look = time.Millisecond
	err = w.watch(t.Context(), func(ctx context.Context, c chan<- agentEvent) {
		for _, e := range events {
			c <- e
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	w.report.write(&out, false)
	return w, out.String()
}

func TestCompareTheSame(t *testing.T) {
	w, out := compare(t, policyOnly+pods+converted,
		line(t, agentapi.VerdictAuditDeny, "10.0.0.3", "10.0.0.1", "TCP", 80), // Calico refuses it too
		line(t, agentapi.VerdictAccept, "10.0.0.2", "10.0.0.1", "TCP", 80),
	)
	if !w.report.Same || w.report.Traffic.Agreed != 2 || w.report.Policies.Flows == 0 {
		t.Errorf("%s", out)
	}
}

func TestCompareWhatDiffers(t *testing.T) {
	without := strings.Replace(converted, "ports: [{port: 80}]", "ports: [{port: 81}]", 1)
	w, out := compare(t, policyOnly+pods+without,
		line(t, agentapi.VerdictAuditDeny, "10.0.0.2", "10.0.0.1", "TCP", 80), // Calico allows it
		line(t, agentapi.VerdictAuditDeny, "10.0.0.2", "10.0.0.1", "TCP", 80),
		line(t, agentapi.VerdictAccept, "10.0.0.2", "10.0.0.1", "TCP", 82), // an older policy's verdict: kidoban's own policies refuse it
	)
	if w.report.Same || len(w.report.Traffic.Flows) != 1 || w.report.Traffic.Flows[0].Count != 6 || w.report.Traffic.Flows[0].Calico != allows {
		t.Errorf("%s", out)
	}
	if w.report.Policies.Differing == 0 {
		t.Error("the policies differ")
	}
	w.report.Since, w.report.Silent, w.report.Until = noon, noon.Add(time.Minute), noon.Add(2*time.Minute)
	var again bytes.Buffer
	w.report.write(&again, false)
	golden(t, "compare-differs", again.String())
}

// Calico's Deny is not among the NetworkPolicies: kidoban would open what it refuses.
func TestCompareWhatWouldBeOpened(t *testing.T) {
	documents := policyOnly + pods + strings.Replace(converted, "{podSelector: {}, policyTypes: [Ingress]}", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}", 1) + `
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: default.lock, namespace: shop}
spec: {order: 1, types: [Ingress], ingress: [{action: Deny, source: {namespaceSelector: all()}}]}`
	w, out := compare(t, documents, line(t, agentapi.VerdictAccept, "10.0.0.3", "10.0.0.1", "TCP", 80))
	if w.report.Same || len(w.report.Traffic.Flows) != 1 || w.report.Traffic.Flows[0].Kidoban != allows || !strings.Contains(w.report.Traffic.Flows[0].Because, "default.lock") {
		t.Errorf("%s", out)
	}
}

// What is not known is not taken for the same.
func TestCompareWhatIsNotKnown(t *testing.T) {
	documents := policyOnly + pods + converted + `
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: default.ping, namespace: shop}
spec: {order: 1, types: [Ingress], ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}]}`
	w, out := compare(t, documents, line(t, agentapi.VerdictAuditDeny, "10.0.0.3", "10.0.0.1", "ICMP", 0))
	if w.report.Same || len(w.report.NotCompared) != 1 || len(w.report.Traffic.Flows) != 1 || w.report.Traffic.Flows[0].Calico != unknown {
		t.Errorf("%s", out)
	}
}

// A policy of network-policy-api that Calico is asked last: neither engine's verdict without it is the cluster's.
const baseline = `
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {namespaces: {}}, ingress: [{name: refuse, action: Deny, from: [{namespaces: {}}]}]}`

var baselineKind = schema.GroupVersionKind{Group: "policy.networking.k8s.io", Version: "v1alpha1", Kind: "BaselineAdminNetworkPolicy"}

func TestWhatIsNotReadIsNotLeftOut(t *testing.T) {
	check, err := gather(t.Context(), cluster(t, calicoKinds(installation, baselineKind), policyOnly+baseline))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if check.write(&out, false); check.Free() || !strings.Contains(out.String(), "BaselineAdminNetworkPolicy default") {
		t.Errorf("check: %s", &out)
	}
	w, text := compare(t, policyOnly+pods+converted+baseline)
	if w.report.Same || !strings.Contains(text, "BaselineAdminNetworkPolicy default") {
		t.Errorf("compare: %s", text)
	}
}

// Lost events restart the time and are reported.
func TestCompareWithLostEvents(t *testing.T) {
	e := line(t, agentapi.VerdictAccept, "10.0.0.2", "10.0.0.1", "TCP", 80)
	e.Missed = 7
	w, out := compare(t, policyOnly+pods+converted, e, agentEvent{lost: "node n2: connection refused"})
	if len(w.report.Unseen) != 4 || !strings.Contains(out, "7 events were lost") || !w.report.Silent.After(w.report.Since) {
		t.Errorf("%s", out)
	}
}

// An address goes from pod to pod: a flow is held against the policies of the pod that has it now, or that the agent names.
func TestCompareWithAnAddressThatIsAnothersNow(t *testing.T) {
	var out bytes.Buffer
	env := testEnv(&out)
	now := noon
	env.Now = func() time.Time { return now }
	c := cluster(t, calicoKinds(installation), policyOnly+pods+converted)
	w, err := newWatcher(t.Context(), env, c, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	event := func(pod string) bool {
		t.Helper()
		e := line(t, agentapi.VerdictAuditDeny, "10.0.0.3", "10.0.0.1", "TCP", 80)
		if pod != "" {
			e.Source.Namespace, e.Source.Pod = "shop", pod
		}
		differs, err := w.event(t.Context(), &e.Event)
		if err != nil {
			t.Fatal(err)
		}
		return differs
	}
	if event("") {
		t.Error("Calico refuses other/other-1 too")
	}
	was := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "other-1"}}
	is := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "proxy-2", Labels: map[string]string{"app": "proxy"}}}
	is.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.3"}
	if err := c.Delete(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), is); err != nil {
		t.Fatal(err)
	}
	now = now.Add(refreshEvery)
	if !event("proxy-2") {
		t.Error("Calico allows shop/proxy-2, as the agent calls it")
	}
	is.Labels = map[string]string{"app": "none"}
	if err := c.Update(t.Context(), is); err != nil {
		t.Fatal(err)
	}
	now = now.Add(refreshAlways)
	if event("") {
		t.Error("Calico refuses shop/proxy-2 by its labels of now, and the agent need not know its name")
	}
}

func TestCompareRefusesEBPFMode(t *testing.T) {
	var out bytes.Buffer
	_, err := newWatcher(t.Context(), testEnv(&out), cluster(t, calicoKinds(), inTheWay), time.Second)
	if err == nil || !strings.Contains(err.Error(), "eBPF") {
		t.Error(err)
	}
}

func TestConvertLive(t *testing.T) {
	in, err := readLive(t.Context(), cluster(t, calicoKinds(), policyOnly[:strings.Index(policyOnly, "---\napiVersion: operator")]+policyOnly[strings.Index(policyOnly, "---\napiVersion: v1"):]+pods))
	if err != nil {
		t.Fatal(err)
	}
	if len(in.set.Policies) != 2 || !in.set.Policies[0].Stored || in.namespaces()["shop"] == nil {
		t.Errorf("%+v", in.set)
	}
	if _, err := readLive(t.Context(), cluster(t, nil, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}")); err == nil || !strings.Contains(err.Error(), "is Calico installed") {
		t.Error(err)
	}
}
