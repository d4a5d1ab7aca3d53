package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kidoban/kidoban/internal/node"
)

// In guarded and strict, and where a flag says so, no pod starts on a node before its policies are in force, except
// those on the host's network: kube-proxy, the CNI plugin and the agent itself are needed first.
func TestPodsOfANodeThatBoots(t *testing.T) {
	for _, test := range []struct {
		mode    node.Mode
		audit   bool
		flag    bool
		rejects bool
	}{
		{mode: node.Standard}, {mode: node.Guarded, rejects: true}, {mode: node.Strict, rejects: true}, {mode: node.Strict, audit: true},
		{mode: node.Standard, flag: true, rejects: true}, {mode: node.Strict, audit: true, flag: true, rejects: true},
	} {
		kernel := newFakeKernel()
		a := New(nil, kernel, Options{
			SharedNamespace: shared, Mode: test.mode, Audit: test.audit, GuardBoot: test.flag,
			Log: testr.New(t), Registry: prometheus.NewRegistry(),
		})
		over, end := context.WithCancel(t.Context())
		end() // so that the hook does not wait for the pod's namespace
		if err := a.Plugin().RunPodSandbox(over, sandbox("web", "10.0.0.1")); errors.Is(err, errEarlyPod) != test.rejects {
			t.Errorf("%+v, before policies are in force: %v", test, err)
		}
		host := sandbox("kube-proxy", "192.0.2.1")
		host.Linux.Namespaces[0].Path = ""
		if err := a.Plugin().RunPodSandbox(over, host); err != nil {
			t.Errorf("%+v, on the host's network: %v", test, err)
		}
		a.applied.setInForce()
		if err := a.Plugin().RunPodSandbox(over, sandbox("web", "10.0.0.1")); err != nil {
			t.Errorf("%+v, once policies are in force: %v", test, err)
		}
	}
}

// A sandbox that was made before the plugin was connected starts no container before the node's policies are in force.
// One whose containers run already may start them again: it is judged by what an earlier agent left.
func TestContainersOfANodeThatBoots(t *testing.T) {
	kernel := newFakeKernel()
	a := New(nil, kernel, Options{SharedNamespace: "kidoban-system", GuardBoot: true, Log: testr.New(t), Registry: prometheus.NewRegistry()})
	p := a.Plugin()
	early, old, host := sandbox("early", "10.0.0.1"), sandbox("old", "10.0.0.2"), sandbox("kube-proxy", "192.0.2.1")
	host.Linux.Namespaces[0].Path = ""
	containers := []*api.Container{
		{PodSandboxId: early.Id, State: api.ContainerState_CONTAINER_CREATED},
		{PodSandboxId: old.Id, State: api.ContainerState_CONTAINER_RUNNING},
	}
	if _, err := p.Synchronize(t.Context(), []*api.PodSandbox{early, old, host}, containers); err != nil {
		t.Fatal(err)
	}
	over, end := context.WithCancel(t.Context())
	end()
	attempts := func(pod *api.PodSandbox) (create, start error) {
		_, _, create = p.CreateContainer(over, pod, nil)
		return create, p.StartContainer(over, pod, nil)
	}
	if create, start := attempts(early); !errors.Is(create, errEarlyPod) || !errors.Is(start, errEarlyPod) {
		t.Errorf("a pod that is new: %v, %v", create, start)
	}
	for _, pod := range []*api.PodSandbox{old, host} {
		if create, start := attempts(pod); create != nil || start != nil {
			t.Errorf("pod %s: %v, %v", pod.Name, create, start)
		}
	}
	a.applied.setInForce()
	if create, start := attempts(early); create != nil || start != nil {
		t.Errorf("once policies are in force: %v, %v", create, start)
	}
}

// The first container of a sandbox that was made before the plugin was connected waits for the pod's policies, as
// RunPodSandbox makes others wait.
func TestAContainerOfANewSandboxWaits(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		r.kernel.mu.Lock()
		r.kernel.applyTakes = 100 * time.Millisecond
		r.kernel.mu.Unlock()
		p, s := r.agent.Plugin(), sandbox("web", "10.0.0.1")
		if _, err := p.Synchronize(r.Context(), []*api.PodSandbox{s}, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.CreateContainer(r.Context(), s, nil); err != nil || !r.isolated("10.0.0.1") {
			t.Errorf("%v, isolated: %v", err, r.isolated("10.0.0.1"))
		}
		if n := r.metric("kidoban_agent_late_pods_total"); n != 0 {
			t.Errorf("%v pods are counted as late", n)
		}
	})
}

func TestRuntimesThatCannotWait(t *testing.T) {
	for _, test := range []struct {
		name, version string
		gap           bool
	}{
		{"containerd", "v2.2.0", false}, {"containerd", "2.4.2+unknown", false}, {"containerd", "2.1.4", true}, {"containerd", "v1.7.29", true},
		{"cri-o", "1.34.0", false}, {"CRI-O", "1.33.5", true}, {"other", "9.9.9", true}, {"containerd", "unknown", true}, {"", "", true},
	} {
		for _, guards := range []bool{true, false} {
			a := New(nil, newFakeKernel(), Options{
				SharedNamespace: shared, Mode: node.Standard, GuardBoot: guards, Log: testr.New(t), Registry: prometheus.NewRegistry(),
			})
			a.reportRuntime(test.name, test.version)
			if n := testutil.CollectAndCount(a.metrics.bootGap); (n == 1) != (test.gap && guards) {
				t.Errorf("%+v, boot guarded %t: %d series", test, guards, n)
			}
		}
	}
}
