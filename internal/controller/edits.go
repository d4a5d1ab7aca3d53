package controller

import (
	"context"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/resolver"
)

// shortEdit is how long the resolver may be busy with a step of an edit without a pause afterwards.
const shortEdit = 5 * time.Millisecond

// edits are NetworkPolicies that changed and were not resolved yet. One policy is resolved at a time, and only its last
// version. The namespaces take turns by the time that their policies took: one whose policies take long, or change all the
// time, delays those of others by one policy at a time.
type edits struct {
	mu         sync.Mutex // guards what follows; no other lock is taken while it is held
	namespaces map[string]*edited
	// now is the begin of the turn that is going on, in the time that turns took.
	now   time.Duration
	added chan struct{} // has an element after an edit was added
	begun chan struct{} // closed by begin
}

// edited are the edits of one namespace.
type edited struct {
	policies map[types.NamespacedName]*resolver.Source // nil: deleted
	order    []types.NamespacedName
	// next is when the namespace's next turn may begin, in the time that turns took.
	next time.Duration
}

func newEdits() *edits {
	return &edits{namespaces: map[string]*edited{}, added: make(chan struct{}, 1), begun: make(chan struct{})}
}

// add takes a version of a policy in the place of an earlier one; np is nil if it was deleted.
func (e *edits) add(name types.NamespacedName, np *resolver.Source) {
	e.mu.Lock()
	e.put(name, np)
	e.mu.Unlock()
	e.wake()
}

// addAgain takes versions that the resolver has, but of policies that changed since.
func (e *edits) addAgain(policies []*resolver.Source) {
	if len(policies) == 0 {
		return
	}
	e.mu.Lock()
	for _, np := range policies {
		name := np.Key()
		if n, ok := e.namespaces[np.Namespace]; ok {
			if _, ok := n.policies[name]; ok {
				continue
			}
		}
		e.put(name, np)
	}
	e.mu.Unlock()
	e.wake()
}

func (e *edits) put(name types.NamespacedName, np *resolver.Source) {
	n, ok := e.namespaces[name.Namespace]
	if !ok {
		n = &edited{policies: map[types.NamespacedName]*resolver.Source{}}
		e.namespaces[name.Namespace] = n
	}
	if _, ok := n.policies[name]; !ok {
		n.order = append(n.order, name)
	}
	n.policies[name] = np
}

func (e *edits) wake() {
	select {
	case e.added <- struct{}{}:
	default:
	}
}

// begin returns what was added before the resolver starts, in no order. It is called once.
func (e *edits) begin() map[types.NamespacedName]*resolver.Source {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[types.NamespacedName]*resolver.Source{}
	for _, n := range e.namespaces {
		maps.Copy(out, n.policies)
	}
	clear(e.namespaces)
	close(e.begun)
	return out
}

// take returns the next policy, or false if there is none.
func (e *edits) take() (name types.NamespacedName, np *resolver.Source, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var first *edited
	for namespace, n := range e.namespaces {
		switch {
		case len(n.order) == 0 && n.next <= e.now: // it owes nothing any more
			delete(e.namespaces, namespace)
		case len(n.order) > 0 && (first == nil || max(n.next, e.now) < max(first.next, e.now)):
			first = n
		}
	}
	if first == nil {
		return name, nil, false
	}
	e.now = max(e.now, first.next)
	name = first.order[0]
	first.order = first.order[1:]
	np = first.policies[name]
	delete(first.policies, name)
	return name, np, true
}

// took records how long a policy took.
func (e *edits) took(namespace string, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n, ok := e.namespaces[namespace]; ok {
		n.next = e.now + d
	}
}

// resolvePolicies resolves edits from the resolver's start until the context is done. What does not need the resolver is done without mu, and
// the rest in steps, between which pods of others are resolved.
func (c *Controller) resolvePolicies(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.edits.begun:
	}
	for {
		name, np, ok := c.edits.take()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-c.edits.added:
			}
			continue
		}
		begin := time.Now()
		if np == nil {
			c.resolveEdit(ctx, name.Namespace, func() resolver.Changes { return c.resolver.DeletePolicy(name) })
		} else if np = c.loadEdit(ctx, np); np != nil {
			prepared := resolver.PrepareOutline(np)
			for more := true; more && ctx.Err() == nil; {
				c.resolveEdit(ctx, name.Namespace, func() (changes resolver.Changes) {
					changes, more = c.resolver.Fill(prepared)
					return changes
				})
			}
			c.resolveEdit(ctx, name.Namespace, func() resolver.Changes { return c.resolver.SetPreparedPolicy(prepared) })
		}
		c.edits.took(name.Namespace, time.Since(begin))
	}
}

// resolveEdit resolves a step of an edit. After one that kept the resolver busy, mu is free for as long.
func (c *Controller) resolveEdit(ctx context.Context, namespace string, change func() resolver.Changes) {
	busy := c.feed(c.queue, "networkpolicy", namespace, time.Time{}, change)
	if busy < shortEdit {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(busy):
	}
}
