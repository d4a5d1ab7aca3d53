package controller

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/resolver"
)

// A worker holds the lock of the state and never releases it, as in a deadlock.
func TestAControllerWithoutProgressIsNotLive(t *testing.T) {
	c := &Controller{resolver: resolver.New(resolver.Options{SharedNamespace: "kidoban-system", MaxAddresses: 4}), progress: &Progress{}}
	c.progress.state = &c.mu
	c.resolver.Start(resolver.Existing{})
	live := c.progress.Live()
	later := func() time.Time { return time.Now().Add(httpserver.StalledAfter + time.Second) }
	if err := c.progress.check(later()); err != nil {
		t.Errorf("without work: %v", err)
	}

	c.mu.Lock()
	reconciled := make(chan error, 1)
	go func() {
		_, err := c.Reconcile(t.Context(), request{kind: status, name: types.NamespacedName{Namespace: "shop", Name: "gone"}})
		reconciled <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); c.progress.check(later()) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the controller is live")
		}
	}
	if err := c.progress.check(time.Now()); err != nil {
		t.Errorf("at once: %v", err)
	}
	checked := make(chan error, 1)
	go func() { checked <- live["state"](nil) }()
	select {
	case err := <-checked:
		t.Errorf("the check of the state does not wait for its lock: %v", err)
	case <-time.After(10 * time.Millisecond):
	}

	c.mu.Unlock()
	if err := <-reconciled; err != nil {
		t.Fatal(err)
	}
	if err := <-checked; err != nil {
		t.Error(err)
	}
	if err := c.progress.check(later()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
