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
	"github.com/kidoban/kidoban/internal/policy"
)

// writeSlices writes the slice of a request, if it is dirty, with those that its write depends on.
func (c *Controller) writeSlices(ctx context.Context, r request) error {
	c.mu.Lock()
	batch, wait, busy := c.slices.Take(r.name, c.resolver, time.Now())
	if busy != nil {
		c.waitFor(*busy, r)
	}
	c.mu.Unlock()
	if wait > 0 {
		c.queue.AddAfter(r, wait)
	}
	if batch == nil {
		return nil
	}
	return c.writeBatch(ctx, batch, r)
}

// writeGroup writes those slices of a group whose structure changed, without a wait for their windows. It reports
// true if another worker is writing some of them: then it has arranged for r to be reconciled afterwards.
func (c *Controller) writeGroup(ctx context.Context, group policy.GroupKey, r request) (waits bool, err error) {
	for {
		c.mu.Lock()
		batch, busy := c.slices.TakeGroup(group, c.resolver, time.Now())
		if batch == nil && busy != nil {
			c.waitFor(*busy, r)
		}
		c.mu.Unlock()
		if batch == nil {
			return busy != nil, nil
		}
		if err := c.writeBatch(ctx, batch, r); err != nil {
			return false, err
		}
	}
}

// writeNow writes a slice, if it is dirty, with those that its write depends on, without a wait for their windows. It
// returns when the slice is what it should be, also if other workers write it.
func (c *Controller) writeNow(ctx context.Context, name types.NamespacedName) error {
	for {
		c.mu.Lock()
		batch, busy := c.slices.TakeNow(name, c.resolver, time.Now())
		var end <-chan struct{}
		if batch == nil && busy != nil {
			end = c.endOf(*busy)
		}
		c.mu.Unlock()
		switch {
		case batch != nil:
			return c.writeBatch(ctx, batch, request{}) // the queue repeats all that fail
		case busy == nil:
			return nil
		}
		select {
		case <-end:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endOf is closed when a slice is not being written any more. The caller holds mu.
func (c *Controller) endOf(slice types.NamespacedName) <-chan struct{} {
	end, ok := c.ends[slice]
	if !ok {
		end = make(chan struct{})
		c.ends[slice] = end
	}
	return end
}

// waitFor makes r be reconciled when a slice that is being written is not any more. The caller holds mu.
func (c *Controller) waitFor(slice types.NamespacedName, r request) {
	if c.waiting[slice] == nil {
		c.waiting[slice] = map[request]struct{}{}
	}
	c.waiting[slice][r] = struct{}{}
}

// wake ends the waits for a slice. The caller holds mu.
func (c *Controller) wake(slice types.NamespacedName) {
	if end, ok := c.ends[slice]; ok {
		close(end)
		delete(c.ends, slice)
	}
	for r := range c.waiting[slice] {
		c.queue.Add(r)
	}
	delete(c.waiting, slice)
}

// writeBatch carries out the writes of a batch for a request, and enqueues those that fail to be repeated. (The
// request itself is repeated because of the error.)
func (c *Controller) writeBatch(ctx context.Context, batch *plan.Batch, r request) error {
	written, err := c.writeAll(ctx, batch)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, name := range c.slices.Done(batch, written, now) {
		again := request{sliceSet, name, r.causedBy()}
		if wait := c.slices.Wait(name, now); err == nil {
			c.queue.AddAfter(again, wait)
		} else if again != r {
			c.queue.AddRateLimited(again)
		}
		c.wake(name)
	}
	return err
}

// writeAll carries out the writes of a batch in their order and returns the slices that are what they should be.
func (c *Controller) writeAll(ctx context.Context, batch *plan.Batch) (written map[types.NamespacedName]bool, err error) {
	have := map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}
	names := batch.Names()
	if len(names) > 1 { // the order of one write does not matter
		for _, name := range names {
			pes := &v1alpha1.PolicyEndpointSlice{}
			switch found, err := c.get(ctx, name, pes); {
			case err != nil:
				return nil, err
			case found:
				have[name] = &pes.Spec
			}
		}
	}
	writes := batch.Writes(have)
	failed := inDependencyOrder(writes, func(w *plan.SliceWrite) error {
		if w.Later {
			return errHeld
		}
		err := c.writeSlice(ctx, w)
		if err == nil && w.Last {
			c.written(batch, w.Name)
		}
		return err
	})
	written = map[types.NamespacedName]bool{}
	for i := range writes {
		if writes[i].Last {
			written[writes[i].Name] = failed[i] == nil
		}
		if errors.Is(failed[i], errHeld) {
			failed[i] = nil // the error of the other write says why, or the write is for later
		}
	}
	return written, errors.Join(failed...)
}

// written records that a slice was written, so that it can be written again before its batch ends.
func (c *Controller) written(batch *plan.Batch, name types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seen := c.slices.Written(batch, name); !seen.IsZero() {
		podToWriteSeconds.Observe(time.Since(seen).Seconds())
	}
	c.wake(name)
}

// errHeld is the error of a write that is for later, or that would have come after one that failed.
var errHeld = errors.New("a write that comes first was not made")

// inDependencyOrder carries out writes in parallel, each when those that it comes after have ended, as many at a
// time as there are workers. It returns the error of each.
func inDependencyOrder(writes []plan.SliceWrite, do func(*plan.SliceWrite) error) []error {
	failed := make([]error, len(writes))
	if len(writes) == 1 {
		failed[0] = do(&writes[0])
		return failed
	}
	ended := make([]chan struct{}, len(writes))
	for i := range ended {
		ended[i] = make(chan struct{})
	}
	free := make(chan struct{}, workers)
	var wg sync.WaitGroup
	for i := range writes {
		w := &writes[i]
		free <- struct{}{} // a write only depends on earlier ones, which have their places
		wg.Go(func() {
			defer func() { <-free }()
			defer close(ended[i])
			for _, on := range w.AfterTry {
				<-ended[on]
			}
			for _, on := range w.After {
				if <-ended[on]; failed[on] != nil {
					failed[i] = errHeld
					return
				}
			}
			failed[i] = do(w)
		})
	}
	wg.Wait()
	return failed
}

// writeSlice makes a slice what it should be.
func (c *Controller) writeSlice(ctx context.Context, w *plan.SliceWrite) error {
	log.FromContext(ctx).V(1).Info("Writing a slice", "slice", w.Name, "reason", w.Reason)
	pes := &v1alpha1.PolicyEndpointSlice{}
	var err error
	if w.Spec == nil {
		err = c.delete(ctx, w.Name, pes)
	} else {
		pes.Namespace, pes.Name = w.Name.Namespace, w.Name.Name
		_, err = c.put(ctx, pes, func() bool { return plan.SetSlice(pes, w.Spec) })
	}
	if err != nil {
		return fmt.Errorf("PolicyEndpointSlice %s: %w", w.Name, err)
	}
	return nil
}
