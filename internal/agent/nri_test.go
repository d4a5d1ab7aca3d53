package agent

import (
	"context"
	"net/netip"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// A container waits until its pod's policies are in the kernel, and not for what other pods change meanwhile.
func TestAContainerWaitsForItsOwnPodAlone(t *testing.T) {
	s := tell(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	a := &Agent{state: s.state, metrics: newMetrics(prometheus.NewRegistry(), nil), kick: make(chan struct{}, 1), sweepKick: make(chan struct{}, 1)}
	a.inForce.Store(true)
	change := func(do func(*state)) { a.update(context.Background(), do) }
	program := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.state.compiler.Commit()
		a.programmed()
	}
	web := types.NamespacedName{Namespace: "shop", Name: "web"}
	var since uint64
	expect := func(when string, want bool) {
		t.Helper()
		if got := a.judges(web, &since); got != want {
			t.Errorf("%s: judged: %t", when, got)
		}
	}
	expect("nobody told of it", false)
	since = 0
	change(func(s *state) {
		s.setSandbox(web, "uid", nil, sandbox{id: "1", addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	})
	expect("told, and not written", false)
	program()
	change(func(*state) {}) // another pod's
	expect("written, while more changes", true)

	since = 0
	change(func(s *state) {
		s.setSandbox(web, "uid", nil, sandbox{id: "2", addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	})
	expect("made again: what is written is of its former sandbox", false)
	program()
	expect("written again", true)
	err := context.DeadlineExceeded
	a.failure.Store(&err)
	expect("the kernel's maps cannot be written", false)
}

// The API server knows a static pod by its mirror, whose UID the container runtime does not know.
func TestAStaticPodKeepsWhatItsMirrorSays(t *testing.T) {
	s := tell(t)
	s.endpoint("allow", everyPod, v1alpha1.Rule{Ports: []v1alpha1.Port{{Protocol: "TCP", Name: "http"}}})
	mirror := func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	}
	s.pod("web", "10.0.0.1", mirror)
	sb := box("web", "1", "10.0.0.1", 11)
	sb.Uid, sb.Annotations = "hash", map[string]string{sourceAnnotation: "file"}
	s.runSandbox(sb)
	s.open("10.0.0.9", "10.0.0.1", 8080)
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "10.0.0.1", mirror, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "other"} })
	s.podGone(s.lastSeen(types.NamespacedName{Namespace: "shop", Name: "web"}))
	if len(s.pods) > 0 {
		t.Errorf("left is %v", s.pods)
	}
}

func box(name, id, ip string, pid uint32) *api.PodSandbox {
	return &api.PodSandbox{
		Namespace: "shop", Name: name, Uid: name, Id: id, Pid: pid, Ips: []string{ip}, Labels: map[string]string{"app": "web"},
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/run/netns/" + id}}},
	}
}

func TestWhatWasMissedWithoutAConnection(t *testing.T) {
	s := tell(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	known := []*api.PodSandbox{box("stays", "1", "10.0.0.1", 11), box("goes", "2", "10.0.0.2", 12)}
	s.synchronize(known)
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.closed("10.0.0.9", "10.0.0.2", 80)

	hostNetwork := box("host", "5", "10.0.0.5", 15)
	hostNetwork.Linux = nil
	s.synchronize([]*api.PodSandbox{known[0], box("comes", "3", "10.0.0.3", 13), box("ended", "4", "10.0.0.4", 0), hostNetwork})
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.open("10.0.0.9", "10.0.0.2", 80)
	s.closed("10.0.0.9", "10.0.0.3", 80)
	s.open("10.0.0.9", "10.0.0.4", 80)
	s.open("10.0.0.9", "10.0.0.5", 80)

	// What has stopped is listed until it is removed. A runtime that tells of no processes says nothing by that.
	none := box("none", "6", "10.0.0.6", 0)
	s.runSandbox(none)
	s.synchronize([]*api.PodSandbox{known[0], box("comes", "3", "10.0.0.3", 0), none})
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.open("10.0.0.9", "10.0.0.3", 80)
	s.closed("10.0.0.9", "10.0.0.6", 80)
}

// Where a sandbox fails after the hook, the runtime removes it and never stops it.
func TestASandboxThatIsRemoved(t *testing.T) {
	s := tell(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	n := &nri{a: &Agent{state: s.state, kick: make(chan struct{}, 1)}}
	web := box("web", "1", "10.0.0.1", 11)
	s.synchronize([]*api.PodSandbox{web})
	s.closed("10.0.0.9", "10.0.0.1", 80)
	remover, ok := any(n).(stub.RemovePodInterface)
	if !ok {
		t.Fatal("the runtime tells of no removal")
	}
	if err := remover.RemovePodSandbox(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	s.open("10.0.0.9", "10.0.0.1", 80)
}

// A pod that was deleted by force ends beside its successor of the same name, and the container runtime lists both in any order.
func TestWhichOfTwoSandboxesOfAName(t *testing.T) {
	for _, oldFirst := range []bool{true, false} {
		s := tell(t)
		s.endpoint("allow", everyPod, v1alpha1.Rule{Ports: []v1alpha1.Port{{Protocol: "TCP", Name: "http"}}})
		s.pod("web", "10.0.0.2", func(p *corev1.Pod) {
			p.UID = "new"
			p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
		})
		before, now := box("web", "1", "10.0.0.1", 11), box("web", "2", "10.0.0.2", 12)
		before.Uid, now.Uid = "old", "new"
		if oldFirst {
			s.synchronize([]*api.PodSandbox{before, now})
		} else {
			s.synchronize([]*api.PodSandbox{now, before})
		}
		s.open("10.0.0.9", "10.0.0.2", 8080)
		s.closed("10.0.0.9", "10.0.0.2", 80)
		s.deleteSandbox(sandboxKey(before), "1")
		s.closed("10.0.0.9", "10.0.0.2", 80)
		s.open("10.0.0.9", "10.0.0.2", 8080)
	}
}

// The API server's word is not the last one: what was deleted by force runs on for its grace period, a static pod for longer.
func TestAPodRunsOnThatTheAPIServerHasNoMore(t *testing.T) {
	s := tell(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	web := box("web", "1", "10.0.0.1", 11)
	web.Uid = "web10.0.0.1"
	s.synchronize([]*api.PodSandbox{web})
	s.pod("web", "10.0.0.1")
	gone := s.lastSeen(sandboxKey(web))
	s.podGone(gone)
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "", func(p *corev1.Pod) { p.UID = "another mirror" })
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.podGone(s.lastSeen(sandboxKey(web)))
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.deleteSandbox(sandboxKey(web), "1")
	s.open("10.0.0.9", "10.0.0.1", 80)
	if n := len(s.pods) + len(s.sandboxes) + len(s.namespaces["shop"].pods); n > 0 {
		t.Errorf("left are %v, %v, %v", s.pods, s.sandboxes, s.namespaces["shop"].pods)
	}

	s.synchronize([]*api.PodSandbox{web})
	s.pod("web", "10.0.0.1")
	s.runtime = false // nobody will say that it has stopped
	s.podGone(gone)
	s.open("10.0.0.9", "10.0.0.1", 80)
}

// A StatefulSet's pod that was deleted by force runs on beside its successor.
func TestTwoSandboxesOfANameAreJudged(t *testing.T) {
	before, now := box("web", "1", "10.0.0.1", 11), box("web", "2", "10.0.0.2", 12)
	before.Uid, now.Uid = "old", "new"
	is := func(uid types.UID) func(*corev1.Pod) { return func(p *corev1.Pod) { p.UID = uid } }
	both := func(t *testing.T) story {
		s := tell(t)
		s.endpoint("deny", map[string]string{"app": "web"})
		s.synchronize([]*api.PodSandbox{before})
		s.pod("web", "10.0.0.1", is("old"))
		s.podGone(s.lastSeen(sandboxKey(before)))
		s.pod("web", "", is("new"))
		s.runSandbox(now)
		s.pod("web", "10.0.0.2", is("new"))
		s.closed("10.0.0.9", "10.0.0.1", 80)
		s.closed("10.0.0.9", "10.0.0.2", 80)
		return s
	}
	t.Run("the first ends first", func(t *testing.T) {
		s := both(t)
		s.deleteSandbox(sandboxKey(before), "1")
		s.open("10.0.0.9", "10.0.0.1", 80)
		s.closed("10.0.0.9", "10.0.0.2", 80)
	})
	t.Run("the second ends first", func(t *testing.T) {
		s := both(t)
		s.podGone(s.lastSeen(sandboxKey(now)))
		s.deleteSandbox(sandboxKey(now), "2")
		s.closed("10.0.0.9", "10.0.0.1", 80)
		s.deleteSandbox(sandboxKey(before), "1")
		s.open("10.0.0.9", "10.0.0.1", 80)
		if n := len(s.pods) + len(s.sandboxes) + len(s.namespaces["shop"].pods); n > 0 {
			t.Errorf("left are %v, %v, %v", s.pods, s.sandboxes, s.namespaces["shop"].pods)
		}
	})
	t.Run("the connection is made anew", func(t *testing.T) {
		s := both(t)
		s.synchronize([]*api.PodSandbox{now, before})
		s.closed("10.0.0.9", "10.0.0.1", 80)
		s.synchronize([]*api.PodSandbox{now})
		s.open("10.0.0.9", "10.0.0.1", 80)
		s.closed("10.0.0.9", "10.0.0.2", 80)
	})
	t.Run("an agent that starts", func(t *testing.T) {
		s := tell(t)
		s.endpoint("deny", map[string]string{"app": "web"})
		s.pod("web", "10.0.0.2", is("new"))
		s.synchronize([]*api.PodSandbox{now, before})
		s.closed("10.0.0.9", "10.0.0.1", 80)
		s.closed("10.0.0.9", "10.0.0.2", 80)
		s.deleteSandbox(sandboxKey(before), "1")
		s.open("10.0.0.9", "10.0.0.1", 80)
		s.closed("10.0.0.9", "10.0.0.2", 80)
	})
}
