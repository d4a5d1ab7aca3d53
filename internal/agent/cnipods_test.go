package agent

import (
	"context"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/node"
)

// setInterfaces gives the node interfaces that lead to these addresses.
func (r *running) setInterfaces(routed map[uint32][]netip.Addr) {
	r.kernel.mu.Lock()
	defer r.kernel.mu.Unlock()
	r.kernel.interfaces = node.Interfaces{Routed: routed}
}

// A CNI plugin that announces a pod waits until the API server has sent the pod and its policies are in force.
func TestACNIPluginWaitsForAPod(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("other", "10.0.0.2"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		web := types.NamespacedName{Namespace: "shop", Name: "web"}
		done := make(chan error, 1)
		enforce := func(timeout time.Duration, interfaces ...uint32) {
			go func() {
				ctx, cancel := context.WithTimeout(r.Context(), timeout)
				defer cancel()
				done <- r.agent.EnforcePod(ctx, web, interfaces)
			}()
			r.sleep(100 * time.Millisecond)
		}
		if enforce(time.Minute, 7); <-done == nil {
			t.Error("a pod that no route leads to has a network")
		}

		r.setInterfaces(map[uint32][]netip.Addr{7: {netip.MustParseAddr("10.0.0.1")}})
		enforce(5*time.Second, 7)
		if r.isolated("10.0.0.1") {
			t.Error("a pod that the API server has not sent is decided")
		}
		r.sleep(time.Minute)
		if <-done == nil {
			t.Error("a pod that the API server has not sent has a network")
		}

		enforce(time.Minute, 7)
		previous := pod("web", "10.0.0.9")
		previous.UID, previous.DeletionTimestamp = "previous", &metav1.Time{Time: time.Now()}
		r.add(previous)
		r.sleep(time.Second)
		if len(done) != 0 {
			t.Error("the network is ready with the policies of the pod that had the name before")
		}
		started := pod("web", "")
		started.Status.PodIPs = nil
		r.add(started)
		r.sleep(time.Second)
		if len(done) != 1 || <-done != nil || !r.isolated("10.0.0.1") {
			t.Error("the pod's network is not ready, or the pod is not isolated")
		}

		// The same pod gets another sandbox; then that one goes.
		r.setInterfaces(map[uint32][]netip.Addr{9: {netip.MustParseAddr("10.0.0.3")}})
		if enforce(time.Minute, 9); <-done != nil || !r.isolated("10.0.0.3") || r.isolated("10.0.0.1") {
			t.Error("the new address is not isolated, or the old one still is")
		}
		r.setInterfaces(nil)
		r.kernel.mu.Lock()
		changed := r.kernel.changed
		r.kernel.mu.Unlock()
		changed()
		r.sleep(2 * collectInterval)
		if r.isolated("10.0.0.3") {
			t.Error("an address whose interface is gone is isolated")
		}
	})
}

func TestAPodIsExpected(t *testing.T) {
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	n := node.New(node.Options{SharedNamespace: shared})
	expect := func(want bool, when string) {
		t.Helper()
		if n.IsExpected(key) != want {
			t.Errorf("%s: expected is %v", when, !want)
		}
	}
	expect(false, "unknown")
	n.RunSandbox(time.Now(), node.Sandbox{Pod: key, UID: "u", ID: "1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	expect(false, "known by its sandbox only")
	obj := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u"}}
	n.SetPod(time.Now(), obj)
	expect(true, "sent by the API server")
	ending := obj.DeepCopy()
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	n.SetPod(time.Now(), ending)
	expect(false, "being deleted")
}
