package node

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func TestAPodThatComesFirst(t *testing.T) {
	s := newStory(t)
	var many []v1alpha1.Peer
	for i := range 200 {
		many = append(many, v1alpha1.Peer{CIDR: v1alpha1.CIDR(fmt.Sprintf("192.0.%d.0/24", i))})
	}
	s.endpoint("expensive", map[string]string{"tier": "other"}, v1alpha1.Rule{Peers: many})
	s.endpoint("cheap", map[string]string{"app": "web"})
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "shop", Name: name} }
	for i := range 20 {
		s.pod(fmt.Sprint("other", i), fmt.Sprintf("10.0.1.%d", i+1), func(p *corev1.Pod) { p.Labels["tier"] = "other" })
	}
	s.pod("web", "10.0.0.1")
	web := s.PodRevision(key("web"))
	if web == 0 || s.PodApplied(key("web"), web) {
		t.Fatal("a pod is applied before it is compiled")
	}
	if s.PodRevision(key("missing")) != 0 || s.PodApplied(key("missing"), 0) {
		t.Error("a pod that is not here is applied")
	}
	for parts := 1; ; parts++ {
		if parts > 10_000 {
			t.Fatal("there is always more")
		}
		_, revision, more := s.Step(1, []types.NamespacedName{key("web")})
		started := s.Applied(start.Add(time.Second), revision, !more)
		for name, p := range s.pods {
			if p.applied == p.revision && !s.decides(name) {
				t.Errorf("%s is applied and not in the maps", name)
			}
		}
		if s.PodApplied(key("web"), web) {
			if !more || s.PodApplied(key("other19"), s.PodRevision(key("other19"))) || len(started) == 0 || started[0] != time.Second {
				t.Errorf("more: %v; started after %v", more, started)
			}
			break
		}
	}
	s.pod("other0", "10.0.2.1") // an event in between
	for more := true; more; {
		var revision Revision
		_, revision, more = s.Step(1, nil)
		s.Applied(start, revision, !more)
	}
	for i := range 20 {
		if name := fmt.Sprint("other", i); !s.PodApplied(key(name), s.PodRevision(key(name))) {
			t.Errorf("%s is not applied", name)
		}
	}
	if n := len(s.unapplied.pods) + len(s.unapplied.versions); n != 0 {
		t.Errorf("%v are left", s.unapplied)
	}
}

// An address may go from one pod to another while a container waits.
func TestAPodIsAppliedWithThePodThatHasItsAddress(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.pod("zzz", "10.0.0.1") // claims the same address, and is the younger one by its UID
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	revision := s.PodRevision(key)
	if s.PodApplied(key, revision) {
		t.Error("applied before the commit")
	}
	_, at := s.Commit()
	s.Applied(start, at-1, true)
	if s.PodApplied(key, revision) {
		t.Error("applied before the other pod is")
	}
	s.Applied(start, at, true)
	if !s.PodApplied(key, revision) {
		t.Error("not applied")
	}
}

// The agent reads Maps without a lock while others call everything but Commit, Step and Collect.
func TestMapsChangeOnlyByWhatTheWriterCalls(t *testing.T) {
	s := newStory(t)
	count := func() int {
		m := s.Maps()
		return len(m.Pods) + len(m.Addresses) + len(m.Networks) + len(m.Rows) + len(m.Ports) + len(m.Interfaces)
	}
	same := func(when string, want int) {
		t.Helper()
		if got := count(); got != want {
			t.Errorf("%s: %d entries, were %d", when, got, want)
		}
	}
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.2/32", "10.1.0.0/16")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.SetInterfaces(start, Interfaces{Uplinks: []uint32{1}})
	same("new objects", 0)
	s.Commit()
	n := count()
	if n == 0 {
		t.Fatal("nothing is in the maps")
	}
	s.slice("shop", "g", 0, 1, "10.0.0.3/32")
	s.pod("db", "10.0.0.4")
	s.RunSandbox(start, running("cache", "1", "10.0.0.5"))
	s.SetNamespace(start, "shop", map[string]string{v1alpha1.LabelEnforcement: "audit"}, false)
	s.SetInterfaces(start, Interfaces{})
	s.endpointGone("allow")
	s.sliceGone("shop", "g", 0)
	s.ForgetNamespace(start, "shop")
	same("other events", n)
}
