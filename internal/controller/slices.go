package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
)

// writeSlices writes a namespace's dirty slices, one writer of a namespace at a time. If all is true, no slice
// whose structure changed waits for its window.
func (c *Controller) writeSlices(ctx context.Context, namespace string, all bool) error {
	defer c.writing.lock(namespace)()

	c.mu.Lock()
	batch, next := c.slices.Take(namespace, c.resolver, all, time.Now())
	c.mu.Unlock()
	if next > 0 {
		c.queue.AddAfter(slicesOf(namespace), next)
	}
	written, err := c.writeBatch(ctx, &batch)

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seen := range c.slices.Done(&batch, written) {
		podToWriteSeconds.Observe(time.Since(seen).Seconds())
	}
	return err
}

// writeBatch carries out the writes of a batch and returns the slices that are what they should be.
func (c *Controller) writeBatch(ctx context.Context, batch *plan.Batch) (written map[string]bool, err error) {
	have := map[string]*v1alpha1.PolicyEndpointSliceSpec{}
	for _, name := range batch.Names() {
		pes := &v1alpha1.PolicyEndpointSlice{}
		switch found, err := c.get(ctx, types.NamespacedName{Namespace: batch.Namespace, Name: name}, pes); {
		case err != nil:
			return nil, err
		case found:
			have[name] = &pes.Spec
		}
	}
	written = map[string]bool{}
	for _, phase := range batch.Phases(have) {
		failed := make([]error, len(phase))
		inParallel(len(phase), func(i int) {
			failed[i] = c.writeSlice(ctx, types.NamespacedName{Namespace: batch.Namespace, Name: phase[i].Name}, phase[i])
		})
		for i, w := range phase {
			written[w.Name] = written[w.Name] || failed[i] == nil && w.Last
		}
		if err := errors.Join(failed...); err != nil {
			return written, err
		}
	}
	return written, nil
}

// inParallel calls do with each number below n, as many at a time as there are workers.
func inParallel(n int, do func(i int)) {
	var wg sync.WaitGroup
	free := make(chan struct{}, workers)
	for i := range n {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			do(i)
		})
	}
	wg.Wait()
}

// writeSlice makes a slice what it should be.
func (c *Controller) writeSlice(ctx context.Context, name types.NamespacedName, w plan.SliceWrite) error {
	log.FromContext(ctx).V(1).Info("Writing a slice", "slice", name, "reason", w.Reason)
	pes := &v1alpha1.PolicyEndpointSlice{}
	var err error
	if w.Spec == nil {
		err = c.delete(ctx, name, pes)
	} else {
		pes.Namespace, pes.Name = name.Namespace, name.Name
		_, err = c.put(ctx, pes, func() bool { return plan.SetSlice(pes, w.Spec) })
	}
	if err != nil {
		return fmt.Errorf("PolicyEndpointSlice %s: %w", name, err)
	}
	return nil
}

// namespaceLocks are one mutex for each namespace whose slices are being written. A goroutine holds at most
// one of them, and may take Controller.mu while holding it, never the reverse.
type namespaceLocks struct {
	mu    sync.Mutex // guards locks and their users
	locks map[string]*namespaceLock
}

type namespaceLock struct {
	sync.Mutex
	users int // that hold it or wait for it
}

// lock locks a namespace and returns the function that unlocks it.
func (l *namespaceLocks) lock(namespace string) (unlock func()) {
	l.mu.Lock()
	n, ok := l.locks[namespace]
	if !ok {
		n = &namespaceLock{}
		l.locks[namespace] = n
	}
	n.users++
	l.mu.Unlock()
	n.Lock()
	return func() {
		n.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(l.locks, namespace)
		}
	}
}
