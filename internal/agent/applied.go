package agent

import (
	"sync"

	"github.com/kidoban/kidoban/internal/node"
)

// applied is how far the kernel is.
type applied struct {
	mu       sync.Mutex
	revision node.Revision // that the kernel's maps hold
	inForce  bool          // this agent's program is attached
	failure  error         // of the last write, or of putting back what is detached; nil if all is well
	changed  chan struct{} // closed, and replaced, when one of these changes
}

func newApplied() *applied { return &applied{changed: make(chan struct{})} }

// change makes a change and wakes all waiters.
func (a *applied) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *applied) setRevision(r node.Revision) { a.change(func() { a.revision = r }) }

// wake wakes all waiters: a part of the next revision is in the kernel's maps.
func (a *applied) wake() { a.change(func() {}) }

func (a *applied) setInForce() { a.change(func() { a.inForce = true }) }

// setFailure records the result of the last round: nil if it succeeded.
func (a *applied) setFailure(err error) {
	a.change(func() { a.failure = err })
}

func (a *applied) isInForce() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inForce
}

func (a *applied) lastFailure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure
}

// has reports whether a revision is in force. The channel is closed when the answer may be another one.
func (a *applied) has(revision node.Revision) (ok bool, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inForce && a.failure == nil && a.revision >= revision, a.changed
}
