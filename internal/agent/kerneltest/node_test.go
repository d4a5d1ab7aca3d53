package kerneltest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

const patience = 60 * time.Second

// node is an agent that runs, and the watches that feed it.
type node struct {
	t        testing.TB
	bpffs    string
	pods     *informertest.FakeInformers
	watches  *informertest.FakeInformers // of every namespace; all objects are in "shop"
	registry *prometheus.Registry
	agent    *agent.Agent
	dp       *dataplane.Dataplane
	stop     func()
}

func start(t testing.TB, sizes dataplane.Sizes) *node {
	t.Helper()
	return startEvery(t, sizes, 100*time.Millisecond)
}

// startEvery starts an agent that compares the maps at an interval.
func startEvery(t testing.TB, sizes dataplane.Sizes, interval time.Duration) *node {
	t.Helper()
	scheme := runtime.NewScheme()
	check(t, corev1.AddToScheme(scheme))
	check(t, v1alpha1.AddToScheme(scheme))
	n := &node{
		t: t, bpffs: netnstest.BPFFS(t), registry: prometheus.NewRegistry(),
		pods: &informertest.FakeInformers{Scheme: scheme}, watches: &informertest.FakeInformers{Scheme: scheme},
	}
	for _, obj := range []client.Object{&corev1.Pod{}, &v1alpha1.ClusterPolicyEndpoint{}} {
		_, err := n.pods.GetInformer(t.Context(), obj) // now: the agent asks from several goroutines
		check(t, err)
	}
	dp, err := dataplane.New(dataplane.Options{BPFFS: n.bpffs, Sizes: sizes})
	check(t, err)
	n.dp = dp
	n.agent = agent.New(n.pods, agent.NewKernel(dp, nil), agent.Options{
		NamespaceCache:  func(string) (cache.Cache, error) { return n.watches, nil },
		SharedNamespace: "shop", CheckInterval: interval, Log: logr.Discard(), Registry: n.registry,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- n.agent.Start(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		check(t, <-done)
		check(t, dp.Close())
		check(t, dataplane.Cleanup(n.bpffs))
	})
	t.Cleanup(n.stop)
	n.await("the agent is ready", n.ready)
	return n
}

func (n *node) ready() bool {
	for _, c := range n.agent.Ready() {
		if c(nil) != nil {
			return false
		}
	}
	return true
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) await(what string, done func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func informer(t testing.TB, f *informertest.FakeInformers, obj client.Object) *controllertest.FakeInformer {
	t.Helper()
	i, err := f.FakeInformerFor(context.Background(), obj)
	check(t, err)
	return i
}

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

func (n *node) pod(i int) {
	informer(n.t, n.pods, &corev1.Pod{}).Add(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("pod-", i), UID: types.UID(fmt.Sprint(i)), Labels: map[string]string{"pod": fmt.Sprint(i)}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: address(i).String()}}},
	})
}

// policyFor isolates pods for ingress and allows these peers.
func policyFor(name string, selector metav1.LabelSelector, peers ...v1alpha1.Peer) *v1alpha1.PolicyEndpoint {
	pe := &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name}, PodSelector: selector, PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
		},
	}
	if peers != nil {
		pe.Spec.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: peers}}
	}
	return pe
}

func (n *node) policy(pe *v1alpha1.PolicyEndpoint) {
	informer(n.t, n.watches, pe).Add(policy.ReadEndpoint(pe, "shop"))
}

// inKernel opens a pinned map.
func (n *node) inKernel(name string) *ebpf.Map {
	n.t.Helper()
	paths, err := filepath.Glob(filepath.Join(n.bpffs, "kidoban", "*", name))
	check(n.t, err)
	if len(paths) != 1 {
		n.t.Fatalf("pinned %s: %v", name, paths)
	}
	m, err := ebpf.LoadPinnedMap(paths[0], nil)
	check(n.t, err)
	n.t.Cleanup(func() { _ = m.Close() })
	return m
}

func (n *node) isolated(pods *ebpf.Map, i int) uint32 {
	key := address(i).As16()
	var value bpf.FilterPod
	if pods.Lookup(&key, &value) != nil {
		return 0
	}
	return value.Sets[policy.Ingress]
}

func (n *node) metric(name string) float64 {
	n.t.Helper()
	families, err := n.registry.Gather()
	check(n.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
			}
		}
	}
	return sum
}

// samples is how often a histogram was observed.
func (n *node) samples(name string) uint64 {
	n.t.Helper()
	families, err := n.registry.Gather()
	check(n.t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	return 0
}

// A damaged entry is healed and counted, and nothing else is ever counted.
func TestSelfAudit(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	for i := range 3 {
		n.pod(i)
	}
	n.policy(policyFor("deny", metav1.LabelSelector{}))
	pods := n.inKernel("pods")
	n.await("pods are isolated", func() bool { return n.isolated(pods, 0) != 0 && n.isolated(pods, 2) != 0 })
	set := n.isolated(pods, 1)
	if drift := n.metric("kidoban_agent_drift_entries_total"); drift != 0 {
		t.Fatalf("%v entries were not as they should be, without any other process", drift)
	}
	key, open, stray := address(1).As16(), bpf.FilterPod{}, address(77).As16()
	check(t, pods.Put(&key, &open))   // wrong
	check(t, pods.Put(&stray, &open)) // extra
	gone := address(2).As16()
	check(t, pods.Delete(&gone)) // missing
	n.await("the damage is healed", func() bool {
		return n.isolated(pods, 1) == set && n.isolated(pods, 2) == set && pods.Lookup(&stray, &open) != nil
	})
	n.await("it is counted", func() bool { return n.metric("kidoban_agent_drift_entries_total") == 3 })
}

// A policy that does not fit isolates its pods, is reported, and is in force when there is room.
func TestAMapThatIsFull(t *testing.T) {
	n := start(t, dataplane.Sizes{Networks: 10})
	n.pod(0)
	n.pod(1)
	pods := n.inKernel("pods")
	one := func(i int) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"pod": fmt.Sprint(i)}}
	}
	n.policy(policyFor("fits", one(0), v1alpha1.Peer{CIDR: "192.168.0.0/24"}))
	n.await("the first policy is in force", func() bool { return n.isolated(pods, 0) != 0 && n.ready() })
	before := n.isolated(pods, 0)

	var many []v1alpha1.Peer
	for i := range 50 {
		many = append(many, v1alpha1.Peer{CIDR: v1alpha1.CIDR(fmt.Sprintf("172.16.%d.0/24", i))})
	}
	n.policy(policyFor("large", one(1), many...))
	n.await("the pod is isolated", func() bool { return n.isolated(pods, 1) != 0 })
	n.await("it is reported", func() bool { return n.metric("kidoban_agent_over_budget_policies") == 1 })
	if !n.ready() || n.metric("kidoban_agent_programming_failures_total") != 0 {
		t.Error("other changes do not go on")
	}
	if n.isolated(pods, 0) != before {
		t.Error("another pod's policies changed")
	}
	n.policy(policyFor("large", one(1), many[:3]...))
	n.await("there is room and the policy is in force", func() bool {
		return n.isolated(pods, 1) != 0 && n.ready() && n.metric("kidoban_agent_over_budget_policies") == 0
	})
	if drift := n.metric("kidoban_agent_drift_entries_total"); drift != 0 {
		t.Errorf("%v entries were counted as drift", drift)
	}
}

// A map that is full keeps no flow alive that a policy takes away from, be it about another pod.
func TestFlowsAreCutWhileAMapIsFull(t *testing.T) {
	n := start(t, dataplane.Sizes{Networks: 10})
	n.pod(0)
	n.pod(1)
	pods := n.inKernel("pods")
	one := func(i int) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"pod": fmt.Sprint(i)}}
	}
	var many []v1alpha1.Peer
	for i := range 50 {
		many = append(many, v1alpha1.Peer{CIDR: v1alpha1.CIDR(fmt.Sprintf("172.16.%d.0/24", i))})
	}
	n.policy(policyFor("large", one(1), many...))
	n.await("the policy does not fit", func() bool {
		return n.isolated(pods, 1) != 0 && n.metric("kidoban_agent_over_budget_policies") == 1
	})

	n.await("the flows of before the start were looked at twice", func() bool { return n.samples("kidoban_agent_sweep_seconds") >= 2 })
	client, server := net.IPv4(192, 0, 2, 1), net.IP(address(0).AsSlice())
	check(t, netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET, TimeOut: 600,
		Forward: netlink.IPTuple{SrcIP: client, DstIP: server, SrcPort: 40000, DstPort: 80, Protocol: unix.IPPROTO_UDP},
		Reverse: netlink.IPTuple{SrcIP: server, DstIP: client, SrcPort: 80, DstPort: 40000, Protocol: unix.IPPROTO_UDP},
	}))
	flows := func() (number int) {
		for flows, err := range conntrack.Flows(address(0)) {
			check(t, err)
			number += len(flows)
		}
		return number
	}
	if flows() != 1 {
		t.Fatalf("%d flows", flows())
	}
	n.policy(policyFor("deny", one(0)))
	n.await("the flow is cut", func() bool { return flows() == 0 })
	if n.metric("kidoban_agent_over_budget_policies") != 1 {
		t.Error("there is room again")
	}
}
