package node

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// The API server knows a static pod by its mirror, whose UID the container runtime does not know.
func TestAStaticPodHasThePortsAndLabelsOfItsMirror(t *testing.T) {
	s := newStory(t)
	s.endpoint("allow", everyPod, v1alpha1.Rule{Ports: []v1alpha1.Port{{Protocol: "TCP", Name: "http"}}})
	mirror := func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	}
	s.pod("web", "10.0.0.1", mirror)
	sb := running("web", "1", "10.0.0.1")
	sb.UID = ""
	s.RunSandbox(start, sb)
	s.allowed("10.0.0.9", "10.0.0.1", 8080)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "10.0.0.1", mirror, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "other"} })
	s.DeletePod(start, s.lastSeen(types.NamespacedName{Namespace: "shop", Name: "web"}))
	if len(s.pods) > 0 {
		t.Errorf("left is %v", s.pods)
	}
}

func running(name, id, ip string) Sandbox {
	return Sandbox{
		Pod: types.NamespacedName{Namespace: "shop", Name: name}, UID: types.UID(name), ID: id, Process: true,
		Labels: map[string]string{"app": "web"}, Addresses: []netip.Addr{netip.MustParseAddr(ip)},
	}
}

func stopped(name, id, ip string) Sandbox {
	s := running(name, id, ip)
	s.Process = false
	return s
}

func TestSandboxesThatChangedWithoutAConnection(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	known := []Sandbox{running("stays", "1", "10.0.0.1"), running("goes", "2", "10.0.0.2")}
	s.SyncSandboxes(start, known)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.denied("10.0.0.9", "10.0.0.2", 80)

	hostNetwork := running("host", "5", "10.0.0.5")
	hostNetwork.Addresses = nil
	s.SyncSandboxes(start, []Sandbox{known[0], running("comes", "3", "10.0.0.3"), stopped("ended", "4", "10.0.0.4"), hostNetwork})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.9", "10.0.0.2", 80)
	s.denied("10.0.0.9", "10.0.0.3", 80)
	s.allowed("10.0.0.9", "10.0.0.4", 80)
	s.allowed("10.0.0.9", "10.0.0.5", 80)

	// A stopped sandbox is listed until it is removed. Some runtimes report no processes, which means nothing.
	none := stopped("none", "6", "10.0.0.6")
	s.RunSandbox(start, none)
	s.SyncSandboxes(start, []Sandbox{known[0], stopped("comes", "3", "10.0.0.3"), none})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.9", "10.0.0.3", 80)
	s.denied("10.0.0.9", "10.0.0.6", 80)
}

// A pod that was deleted by force ends beside its successor of the same name, and the container runtime lists both in any order.
func TestWhichOfTwoSandboxesOfAName(t *testing.T) {
	for _, oldFirst := range []bool{true, false} {
		s := newStory(t)
		s.endpoint("allow", everyPod, v1alpha1.Rule{Ports: []v1alpha1.Port{{Protocol: "TCP", Name: "http"}}})
		s.pod("web", "10.0.0.2", func(p *corev1.Pod) {
			p.UID = "new"
			p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
		})
		before, now := running("web", "1", "10.0.0.1"), running("web", "2", "10.0.0.2")
		before.UID, now.UID = "old", "new"
		if oldFirst {
			s.SyncSandboxes(start, []Sandbox{before, now})
		} else {
			s.SyncSandboxes(start, []Sandbox{now, before})
		}
		s.allowed("10.0.0.9", "10.0.0.2", 8080)
		s.denied("10.0.0.9", "10.0.0.2", 80)
		s.StopSandbox(start, before.Pod, "1")
		s.denied("10.0.0.9", "10.0.0.2", 80)
		s.allowed("10.0.0.9", "10.0.0.2", 8080)
	}
}

// The API server does not have the last word: a pod that was deleted by force runs on for its grace period, a static pod for longer.
func TestADeletedPodIsIsolatedUntilItsSandboxStops(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	web := running("web", "1", "10.0.0.1")
	web.UID = "web10.0.0.1"
	s.SyncSandboxes(start, []Sandbox{web})
	s.pod("web", "10.0.0.1")
	gone := s.lastSeen(web.Pod)
	s.DeletePod(start, gone)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "", func(p *corev1.Pod) { p.UID = "another mirror" })
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.DeletePod(start, s.lastSeen(web.Pod))
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.StopSandbox(start, web.Pod, "1")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	if n := len(s.pods) + len(s.sandboxes) + len(s.namespaces["shop"].pods); n > 0 {
		t.Errorf("left are %v, %v, %v", s.pods, s.sandboxes, s.namespaces["shop"].pods)
	}

	s.SyncSandboxes(start, []Sandbox{web})
	s.pod("web", "10.0.0.1")
	s.RuntimeGone(start)
	s.DeletePod(start, gone)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}

// A StatefulSet's pod that was deleted by force runs on beside its successor.
func TestPoliciesApplyToBothSandboxesOfAName(t *testing.T) {
	before, now := running("web", "1", "10.0.0.1"), running("web", "2", "10.0.0.2")
	before.UID, now.UID = "old", "new"
	is := func(uid types.UID) func(*corev1.Pod) { return func(p *corev1.Pod) { p.UID = uid } }
	both := func(t *testing.T) story {
		s := newStory(t)
		s.endpoint("deny", map[string]string{"app": "web"})
		s.SyncSandboxes(start, []Sandbox{before})
		s.pod("web", "10.0.0.1", is("old"))
		s.DeletePod(start, s.lastSeen(before.Pod))
		s.pod("web", "", is("new"))
		s.RunSandbox(start, now)
		s.pod("web", "10.0.0.2", is("new"))
		s.denied("10.0.0.9", "10.0.0.1", 80)
		s.denied("10.0.0.9", "10.0.0.2", 80)
		return s
	}
	t.Run("the first ends first", func(t *testing.T) {
		s := both(t)
		s.StopSandbox(start, before.Pod, "1")
		s.allowed("10.0.0.9", "10.0.0.1", 80)
		s.denied("10.0.0.9", "10.0.0.2", 80)
	})
	t.Run("the second ends first", func(t *testing.T) {
		s := both(t)
		s.DeletePod(start, s.lastSeen(now.Pod))
		s.StopSandbox(start, now.Pod, "2")
		s.denied("10.0.0.9", "10.0.0.1", 80)
		s.StopSandbox(start, before.Pod, "1")
		s.allowed("10.0.0.9", "10.0.0.1", 80)
		if n := len(s.pods) + len(s.sandboxes) + len(s.namespaces["shop"].pods); n > 0 {
			t.Errorf("left are %v, %v, %v", s.pods, s.sandboxes, s.namespaces["shop"].pods)
		}
	})
	t.Run("the connection is made anew", func(t *testing.T) {
		s := both(t)
		s.SyncSandboxes(start, []Sandbox{now, before})
		s.denied("10.0.0.9", "10.0.0.1", 80)
		s.SyncSandboxes(start, []Sandbox{now})
		s.allowed("10.0.0.9", "10.0.0.1", 80)
		s.denied("10.0.0.9", "10.0.0.2", 80)
	})
	t.Run("an agent that starts", func(t *testing.T) {
		s := newStory(t)
		s.endpoint("deny", map[string]string{"app": "web"})
		s.pod("web", "10.0.0.2", is("new"))
		s.SyncSandboxes(start, []Sandbox{now, before})
		s.denied("10.0.0.9", "10.0.0.1", 80)
		s.denied("10.0.0.9", "10.0.0.2", 80)
		s.StopSandbox(start, before.Pod, "1")
		s.allowed("10.0.0.9", "10.0.0.1", 80)
		s.denied("10.0.0.9", "10.0.0.2", 80)
	})
}
