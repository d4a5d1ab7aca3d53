package agent

import (
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/stub"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/policy"
)

// A container waits until its pod's entries are in the kernel, and not for what other pods change meanwhile.
func TestAContainerWaitsForItsOwnPodAlone(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		r.kernel.mu.Lock()
		r.kernel.applyTakes = 100 * time.Millisecond
		r.kernel.mu.Unlock()
		if waited := r.hook("web", "10.0.0.1"); waited != 100*time.Millisecond || !r.isolated("10.0.0.1") {
			t.Errorf("waited %v, isolated: %v", waited, r.isolated("10.0.0.1"))
		}

		// Other pods change without an end.
		stop := make(chan struct{})
		var changes sync.WaitGroup
		changes.Go(func() {
			for i := 3; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					i = 3 + i%100
					r.add(pod("other", address(i)))
				}
			}
		})
		for i := range 10 {
			ip := address(1000 + i)
			if waited := r.hook("pod"+ip, ip); waited > 210*time.Millisecond || !r.isolated(ip) { // the write that is under way, and its own
				t.Errorf("waited %v, isolated: %v", waited, r.isolated(ip))
			}
		}
		close(stop)
		changes.Wait()
		if n := r.metric("kidoban_agent_late_pods_total"); n != 0 {
			t.Errorf("%v pods are counted as late", n)
		}
	})
}

// A pod's first packet does not pass by a flow that the pod with its address before has left.
func TestAContainerWaitsForItsOwnSweep(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		r.sleep(10 * time.Second)
		leave := func(takes time.Duration) {
			r.kernel.mu.Lock()
			defer r.kernel.mu.Unlock()
			r.kernel.flows = []conntrack.Flow{flow("10.0.0.9", "10.0.0.1")}
			r.kernel.flowsTake = takes
		}
		leave(200 * time.Millisecond)
		if waited := r.hook("web", "10.0.0.1"); waited != 200*time.Millisecond || len(r.kernel.live()) != 0 {
			t.Errorf("waited %v, left are %v", waited, r.kernel.live())
		}
		r.sleep(time.Minute)

		// It is not known in time: the pod starts, and the flow is cut a moment later.
		leave(10 * time.Second)
		if waited := r.hook("web", "10.0.0.1"); waited != hookTimeout || r.metric("kidoban_agent_late_pods_total") != 1 {
			t.Errorf("waited %v, %v pods are counted as late", waited, r.metric("kidoban_agent_late_pods_total"))
		}
		r.sleep(time.Minute)
		if len(r.kernel.live()) != 0 {
			t.Errorf("left are %v", r.kernel.live())
		}
	})
}

// The maps of a large node are compared for seconds. A container waits for one part of that at most.
func TestAContainerDoesNotWaitForAComparison(t *testing.T) {
	run(t, func(k *fakeKernel) { k.chunk = 10 * time.Millisecond }, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		r.kernel.mu.Lock()
		r.kernel.chunks = 10_000
		r.kernel.mu.Unlock()
		r.sleep(70 * time.Second)
		if n := r.kernel.called("Sync"); n != 1 {
			t.Fatalf("%d comparisons are over", n)
		}
		if waited := r.hook("web", "10.0.0.1"); waited > 10*time.Millisecond || !r.isolated("10.0.0.1") {
			t.Errorf("waited %v, isolated: %v", waited, r.isolated("10.0.0.1"))
		}
	})
}

// The first pod of a namespace waits for the namespace's policies.
func TestAContainerWaitsForItsNamespace(t *testing.T) {
	run(t, nil, func(r *running) {
		policies := controllertest.NewFakeInformer() // the list takes a while
		r.namespace("shop").InformersByGVK = map[schema.GroupVersionKind]toolscache.SharedIndexInformer{
			v1alpha1.GroupVersion.WithKind("PolicyEndpoint"): policies,
		}
		go func() {
			r.sleep(time.Second)
			policies.Add(policy.ReadEndpoint(policyEndpoint("deny"), shared))
			policies.Synced()
		}()
		if waited := r.hook("web", "10.0.0.1"); waited < time.Second || waited >= hookTimeout || !r.isolated("10.0.0.1") {
			t.Errorf("waited %v, isolated: %v", waited, r.isolated("10.0.0.1"))
		}
	})
}

// The runtime waits 2 s and no longer.
func TestAPodThatIsLate(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.kernel.fail("Apply", errFull)
		r.kernel.fail("Sync", errFull, errFull, errFull, errFull, errFull, errFull, errFull)
		if waited := r.hook("web", "10.0.0.1"); waited != hookTimeout {
			t.Errorf("waited %v", waited)
		}
		if n := r.metric("kidoban_agent_late_pods_total"); n != 1 || r.logged("starts before its policies") != 1 {
			t.Errorf("%v pods are counted as late", n)
		}
	})
}

// Where a sandbox fails after the hook, the runtime removes it and never stops it.
func TestASandboxThatIsRemoved(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		plugin := r.agent.Plugin()
		remover, ok := any(plugin).(stub.RemovePodInterface)
		if !ok {
			t.Fatal("the plugin has no event for the removal")
		}
		r.hook("web", "10.0.0.1")
		if err := remover.RemovePodSandbox(t.Context(), sandbox("web", "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		r.sleep(time.Second)
		if r.kernel.set("10.0.0.1", policy.Ingress) != 0 {
			t.Error("the pod is still there")
		}
	})
}

func TestWhatTheRuntimeReports(t *testing.T) {
	s := sandbox("web", "::ffff:10.0.0.1")
	if got := sandboxOf(s); len(got.Addresses) != 1 || got.Addresses[0].String() != "10.0.0.1" || got.UID != "web" || !got.Process || got.Pod.Name != "web" {
		t.Errorf("%+v", got)
	}
	s.Annotations = map[string]string{sourceAnnotation: "api"}
	if got := sandboxOf(s); got.UID != "web" {
		t.Errorf("of the API server: %+v", got)
	}
	s.Annotations[sourceAnnotation] = "file"
	if got := sandboxOf(s); got.UID != "" {
		t.Errorf("a static pod: %+v", got)
	}
	s.Linux.Namespaces[0].Path = ""
	if got := sandboxOf(s); len(got.Addresses) != 0 {
		t.Errorf("on the host's network: %+v", got)
	}
}
