package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/node"
)

// state is the Node, with what the goroutines need to share it.
type state struct {
	mu    sync.Mutex // guards what follows; held while computing, never during I/O
	node  *node.Node
	since time.Time                    // of the first event of which the writer has not taken everything; zero without one
	hooks map[types.NamespacedName]int // pods whose containers wait, with the number of hooks

	changed    chan struct{} // an event was taken in; capacity 1, for the writer
	namespaces chan struct{} // the same, for the watches of namespaces
}

func newState(opts node.Options) *state {
	return &state{node: node.New(opts), hooks: map[types.NamespacedName]int{}, changed: make(chan struct{}, 1), namespaces: make(chan struct{}, 1)}
}

// update takes in an event and wakes the writer. It does nothing once the context is done.
func (s *state) update(ctx context.Context, event func(now time.Time, n *node.Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.take(event)
	}
}

// take is update for a caller that holds mu.
func (s *state) take(event func(now time.Time, n *node.Node)) {
	now := time.Now()
	before := s.node.Revision()
	if event(now, s.node); s.node.Revision() == before {
		return
	}
	if s.since.IsZero() {
		s.since = now
	}
	wake(s.changed)
	wake(s.namespaces)
}

// stepLimit is how many steps the compiler makes under the lock: some milliseconds for ordinary policies, some tens for the worst.
const stepLimit = 50_000

// step hands changes to the writer: those of all events so far or, if that takes long, a part with those of pods whose containers wait. since is
// the time of the first event.
func (s *state) step() (changes compiler.Changes, revision node.Revision, since time.Time, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes, revision, more = s.node.Step(stepLimit, slices.Collect(maps.Keys(s.hooks)))
	if since = s.since; !more {
		s.since = time.Time{}
	}
	return changes, revision, since, more
}

// commit hands the changes of all events so far to a writer that compares all entries afterwards. It drops what is unused if there is no room.
func (s *state) commit(isFull bool) (narrowed compiler.Narrowed, revision node.Revision, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes, revision := s.node.Commit()
	if isFull {
		s.node.Collect()
		if s.node.IsUnfinished() {
			wake(s.changed)
		}
	}
	since, s.since = s.since, time.Time{}
	return changes.Narrowed, revision, since
}

// start hands all that has arrived so far to a writer whose maps no program reads yet. So what is unused can go at once, until it is decided
// what fits.
func (s *state) start() (narrowed compiler.Narrowed, revision node.Revision, since time.Time) {
	narrowed, revision, since = s.commit(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < mostCollects && (s.node.IsCrowded() || s.node.IsUnfinished()); i++ {
		s.node.Collect()
		s.node.Commit()
	}
	return narrowed, revision, since
}

// mostCollects are enough to decide what fits: each takes out what the one before left unused.
const mostCollects = 12

// collect hands the removal of what is unused to the writer, unless there are events that it should write first.
func (s *state) collect() (changes compiler.Changes, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		return changes, false
	}
	changes = s.node.Collect()
	if s.node.IsUnfinished() {
		wake(s.changed)
	}
	return changes, true
}

// read calls f with the Node. f must not keep what it gets from it, except plain values.
func (s *state) read(f func(n *node.Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.node)
}

// awaitPod has a pod come first while its containers wait, until done is called.
func (s *state) awaitPod(key types.NamespacedName) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks[key]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hooks[key]--; s.hooks[key] == 0 {
			delete(s.hooks, key)
		}
	}
}

// wake sends to a channel of capacity 1 that a goroutine waits for.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
