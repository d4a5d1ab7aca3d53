package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

const shared = "kidoban-system"

// start is a time for events of a Node without an Agent.
var start = time.Unix(1_000_000_000, 0)

func pod(name, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: map[string]string{"app": name}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}

// policyEndpoint isolates all pods for ingress and allows these peers.
func policyEndpoint(name string, peers ...v1alpha1.Peer) *v1alpha1.PolicyEndpoint {
	pe := &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef:   v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name},
			PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
		},
	}
	if len(peers) > 0 {
		pe.Spec.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: peers}}
	}
	return pe
}

// running is an Agent that runs with a fake kernel, and the watches that feed it. It lives in a bubble of synctest: time passes when all
// goroutines wait.
type running struct {
	*testing.T
	kernel   *fakeKernel
	agent    *Agent
	registry *prometheus.Registry
	pods     *informertest.FakeInformers
	ended    chan error
	stop     func()

	mu         sync.Mutex
	namespaces map[string]*informertest.FakeInformers
	log        []string
}

// run makes a test of a running Agent. prepare changes the kernel before the Agent starts.
func run(t *testing.T, prepare func(*fakeKernel), test func(r *running)) {
	runWith(t, func(*Options) {}, prepare, test)
}

// runWith is run with other Options.
func runWith(t *testing.T, change func(*Options), prepare func(*fakeKernel), test func(r *running)) {
	synctest.Test(t, func(t *testing.T) {
		r := &running{
			T: t, kernel: newFakeKernel(), registry: prometheus.NewRegistry(), namespaces: map[string]*informertest.FakeInformers{},
			pods: informers(t), ended: make(chan error, 1),
		}
		r.kernel.attached = false
		for _, obj := range []client.Object{&corev1.Pod{}, &v1alpha1.ClusterPolicyEndpoint{}} {
			if _, err := r.pods.GetInformer(t.Context(), obj); err != nil { // now: the agent asks from several goroutines
				t.Fatal(err)
			}
		}
		if prepare != nil {
			prepare(r.kernel)
		}
		opts := Options{
			NamespaceCache:  func(name string) (cache.Cache, error) { return r.namespace(name), nil },
			SharedNamespace: shared, CheckInterval: time.Minute, RuleSeries: 10, Registry: r.registry,
			Log: funcr.New(func(_, args string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.log = append(r.log, args)
			}, funcr.Options{}),
		}
		change(&opts)
		r.agent = New(r.pods, r.kernel, opts)
		ctx, cancel := context.WithCancel(t.Context())
		r.stop = cancel
		go func() { r.ended <- r.agent.Start(ctx) }()
		r.sleep(time.Second)
		test(r)
		cancel()
		r.sleep(10 * time.Second)
	})
}

func informers(t *testing.T) *informertest.FakeInformers {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return &informertest.FakeInformers{Scheme: scheme}
}

func (r *running) namespace(name string) *informertest.FakeInformers {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.namespaces[name] == nil {
		r.namespaces[name] = informers(r.T)
	}
	return r.namespaces[name]
}

// sleep lets time pass, and returns when all goroutines wait. What they have written can be read then.
func (r *running) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// add has a watch report an object, and returns when all goroutines wait.
func (r *running) add(obj client.Object) {
	r.Helper()
	synctest.Wait()
	in := r.pods
	switch obj.(type) {
	case *corev1.Pod, *v1alpha1.ClusterPolicyEndpoint:
	default:
		in = r.namespace(obj.GetNamespace())
	}
	i, err := in.FakeInformerFor(r.Context(), obj)
	if err != nil {
		r.Fatal(err)
	}
	stripped := strip(obj, shared).(metav1.Object) // as the caches do
	i.Add(stripped)
	synctest.Wait()
}

func (r *running) ready() error {
	for _, check := range r.agent.Ready() {
		if err := check(nil); err != nil {
			return err
		}
	}
	return nil
}

func (r *running) metric(name string) float64 {
	r.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// logged is how many lines have a message.
func (r *running) logged(message string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(r.log), func(line string) bool { return !strings.Contains(line, message) }))
}

// hook is the container runtime's call for a new pod. It returns how long the runtime waited.
func (r *running) hook(name, ip string) time.Duration {
	r.Helper()
	begin := time.Now()
	plugin := r.agent.Plugin()
	if err := plugin.RunPodSandbox(r.Context(), sandbox(name, ip)); err != nil {
		r.Fatal(err)
	}
	return time.Since(begin)
}

func sandbox(name, ip string) *api.PodSandbox {
	return &api.PodSandbox{
		Namespace: "shop", Name: name, Uid: name, Id: name + ip, Pid: 7, Ips: []string{ip}, Labels: map[string]string{"app": name},
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/run/netns/" + name}}},
	}
}

// isolated reports whether the kernel isolates a pod for ingress.
func (r *running) isolated(ip string) bool { return r.kernel.set(ip, policy.Ingress) != 0 }

func address(i int) string { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String() }

func TestAnAgentPutsPoliciesInForce(t *testing.T) {
	run(t, nil, func(r *running) {
		if err := r.ready(); err != nil || !r.kernel.attached {
			t.Fatalf("after the start: %v", err)
		}
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second) // the namespace's watches start
		r.add(policyEndpoint("deny"))
		if !r.isolated("10.0.0.1") {
			t.Error("the pod is not isolated")
		}
		pods := r.agent.Pods()
		if len(pods) != 1 || pods[0].State != "InForce" || !pods[0].Ingress.Isolated {
			t.Errorf("the API reports %+v", pods)
		}
		policies := r.agent.Policies()
		if len(policies) != 1 || policies[0].State != "InForce" {
			t.Errorf("the API reports %+v", policies)
		}
		if got := r.metric("kidoban_agent_pods"); got != 1 {
			t.Errorf("%v pods are counted", got)
		}
	})
}

// An alert asks for policies that wait.
func TestAForgottenNamespaceHasNoWaitingPolicies(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.add(policyEndpoint("allow", group("missing")))
		waiting := r.agent.metrics.policies.WithLabelValues("waiting")
		if n := testutil.ToFloat64(waiting); n != 1 {
			t.Fatalf("%v policies wait", n)
		}
		i, err := r.pods.FakeInformerFor(t.Context(), &corev1.Pod{})
		if err != nil {
			t.Fatal(err)
		}
		i.Delete(pod("web", "10.0.0.1"))
		r.sleep(2 * time.Minute)
		if n := testutil.ToFloat64(waiting); n != 0 {
			t.Errorf("%v policies wait", n)
		}
	})
}

// The log names a policy whose groups do not arrive, and its pods are isolated.
func TestAPolicyWhoseGroupsDoNotArrive(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.add(policyEndpoint("allow", group("missing")))
		if r.isolated("10.0.0.1") {
			t.Error("the pod is isolated before its time")
		}
		r.sleep(70 * time.Second)
		if !r.isolated("10.0.0.1") || r.logged("Timed out waiting for a policy's address groups") != 1 {
			t.Errorf("isolated: %v, log %v", r.isolated("10.0.0.1"), r.log)
		}
	})
}

// A policy that costs too much isolates its pods, and the log says so once.
func TestAPolicyBeyondTheBudget(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		var many []v1alpha1.Peer
		for i := range compiler.DefaultBudget.Rows + 1 {
			many = append(many, v1alpha1.Peer{CIDR: v1alpha1.CIDR(netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32).String())})
		}
		var rules []v1alpha1.Rule // each block with ports of its own has a class of its own
		for i, p := range many {
			rules = append(rules, v1alpha1.Rule{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{p}, Ports: []v1alpha1.Port{{Port: int32(1 + i%60000)}}})
		}
		pe := policyEndpoint("huge")
		pe.Spec.Ingress = rules
		r.add(pe)
		r.sleep(3 * collectInterval)
		if !r.isolated("10.0.0.1") || r.logged("needs more of the node") != 1 {
			t.Errorf("isolated: %v, log %v", r.isolated("10.0.0.1"), r.log)
		}
		r.add(policyEndpoint("huge"))
		r.sleep(3 * collectInterval)
		if r.logged("does not need too much") != 1 {
			t.Errorf("log %v", r.log)
		}
	})
}

func TestAnObjectThatCannotBeRead(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.add(policyEndpoint("broken", v1alpha1.Peer{CIDR: "10.0.0.0/33"}))
		if !r.isolated("10.0.0.1") || r.logged("Cannot read an object") != 1 || r.metric("kidoban_agent_rejected_objects_total") != 1 {
			t.Errorf("isolated: %v, log %v", r.isolated("10.0.0.1"), r.log)
		}
	})
}

func group(name string) v1alpha1.Peer {
	return v1alpha1.Peer{Group: &v1alpha1.GroupReference{Name: name}}
}
