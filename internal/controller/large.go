package controller

import (
	"context"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/internal/resolver"
)

const (
	// loadTimeout is how long the API server may take to return a large policy. Meanwhile no other edit is resolved.
	loadTimeout = 5 * time.Second
	// largeWrites is how many large PolicyEndpoints are written at a time. The API server validates one for up to a second, and other
	// objects need workers, too.
	largeWrites = 1
)

// largeTurns bounds how many requests about large PolicyEndpoints are reconciled at a time. The namespaces of the others take turns.
type largeTurns struct {
	mu      sync.Mutex // guards what follows; of the other locks, only those inside the queue are taken while it is held
	running int
	waiting turns
	// next are requests that have their turn, and waits those that will have it.
	next, waits map[request]struct{}
}

// begin reports whether a request may be reconciled now, until end is called; otherwise it is enqueued again for its turn.
func (l *largeTurns) begin(r request, isLarge bool, q queue) (end func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, isNext := l.next[r]
	switch {
	case isNext:
		delete(l.next, r)
	case !isLarge:
		return func() {}, true
	case l.running < largeWrites:
		l.running++
	default:
		if _, waits := l.waits[r]; !waits {
			if l.waits == nil {
				l.waits, l.next = map[request]struct{}{}, map[request]struct{}{}
			}
			l.waits[r] = struct{}{}
			l.waiting.push(r)
		}
		return nil, false
	}
	return func() { l.end(q) }, true
}

// end gives the turn to the next request, if any waits.
func (l *largeTurns) end(q queue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting.count == 0 {
		l.running--
		return
	}
	r := l.waiting.pop()
	delete(l.waits, r)
	l.next[r] = struct{}{}
	q.Add(r)
}

// isLarge reports whether a request is about a large PolicyEndpoint.
func (c *Controller) isLarge(r request) bool {
	if r.kind != endpoint && r.kind != status {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	want := c.want(r.name)
	return want != nil && resolver.IsOutline(want.Spec)
}

// whole returns what a PolicyEndpoint should be with all of its spec, to be written. It returns nil if its policy is gone or has to be
// resolved again before, which enqueues the PolicyEndpoint.
func (c *Controller) whole(ctx context.Context, want *resolver.Endpoint) (*resolver.Endpoint, error) {
	if !resolver.IsOutline(want.Spec) {
		return want, nil
	}
	c.mu.Lock()
	kept, ok := c.resolver.Source(want.Name)
	c.mu.Unlock()
	if !ok {
		return nil, nil
	}
	np, err := c.loadPolicy(ctx, kept)
	if np == nil {
		return nil, err
	}
	prepared := resolver.Prepare(np)
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.resolver.Whole(want.Name, prepared); ok {
		return &e, nil
	}
	if np.Generation == kept.Generation { // else the watch delivers the newer version
		c.resolver.Lost(want.Name)
		c.edits.addAgain([]*resolver.Source{kept})
	}
	return nil, nil
}

// loadPolicy reads a policy of which there is only an outline. It returns nil if the policy is gone, which its watch reports.
func (c *Controller) loadPolicy(ctx context.Context, np *resolver.Source) (*resolver.Source, error) {
	if !np.IsOutline() {
		return np, nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	whole := &networkingv1.NetworkPolicy{}
	if err := c.live.Get(ctx, np.Key(), whole); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return resolver.NetworkPolicy(whole), nil
}

// loadEdit is loadPolicy for an edit. If the policy cannot be read now, it adds the edit again later.
func (c *Controller) loadEdit(ctx context.Context, np *resolver.Source) *resolver.Source {
	whole, err := c.loadPolicy(ctx, np)
	if err != nil && ctx.Err() == nil {
		log.FromContext(ctx).Error(err, "Cannot read a large NetworkPolicy; trying again", "namespace", np.Namespace, "name", np.Name)
		time.AfterFunc(maxPause, func() { c.edits.addAgain([]*resolver.Source{np}) })
	}
	return whole
}
