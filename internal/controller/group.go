package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// writeGroup writes a group's dirty slices, one writer of a group at a time.
func (c *Controller) writeGroup(ctx context.Context, key policy.GroupKey) error {
	defer c.writing.lock(key)()

	c.mu.Lock()
	batch := c.groups.Take(key, c.resolver, time.Now())
	c.mu.Unlock()

	err := c.writeBatch(ctx, &batch)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.groups.Failed(&batch)
		return err
	}
	if seen := c.groups.Written(&batch); !seen.IsZero() {
		podToWriteSeconds.Observe(time.Since(seen).Seconds())
	}
	return nil
}

// writeBatch carries out the writes of a batch.
func (c *Controller) writeBatch(ctx context.Context, batch *plan.Batch) error {
	counted := batch.Count
	if batch.DependsOnCount() {
		var first v1alpha1.PolicyEndpointSlice
		switch found, err := c.get(ctx, sliceKey(batch.Group, 0), &first); {
		case err != nil:
			return err
		case found && len(first.Spec.Groups) > 0:
			counted = int32(len(first.Spec.Groups[0].Slices))
		default:
			counted = 0
		}
	}
	for _, w := range batch.Writes(counted) {
		name := sliceKey(batch.Group, w.Index)
		log.FromContext(ctx).V(1).Info("Writing a slice", "slice", name, "reason", w.Reason)
		var err error
		if w.Spec == nil {
			err = c.delete(ctx, name, &v1alpha1.PolicyEndpointSlice{})
		} else {
			err = c.writeSlice(ctx, name, w.Spec)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSlice makes a slice what it should be.
func (c *Controller) writeSlice(ctx context.Context, name types.NamespacedName, spec *v1alpha1.PolicyEndpointSliceSpec) error {
	pes := &v1alpha1.PolicyEndpointSlice{}
	pes.Namespace, pes.Name = name.Namespace, name.Name
	var taken error
	_, err := c.put(ctx, pes, func() (changed bool) {
		changed, taken = plan.SetSlice(pes, spec)
		return changed
	})
	if err != nil {
		return err
	}
	return taken
}

func sliceKey(group policy.GroupKey, index int32) types.NamespacedName {
	return types.NamespacedName{Namespace: group.Namespace, Name: resolver.SliceName(group.Name, index)}
}

// groupLocks are one mutex for each group that is being written. A goroutine holds at most one of them, and
// may take Controller.mu while holding it, never the reverse.
type groupLocks struct {
	mu    sync.Mutex // guards locks and their users
	locks map[policy.GroupKey]*groupLock
}

type groupLock struct {
	sync.Mutex
	users int // that hold it or wait for it
}

// lock locks a group and returns the function that unlocks it.
func (l *groupLocks) lock(key policy.GroupKey) (unlock func()) {
	l.mu.Lock()
	g, ok := l.locks[key]
	if !ok {
		g = &groupLock{}
		l.locks[key] = g
	}
	g.users++
	l.mu.Unlock()
	g.Lock()
	return func() {
		g.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if g.users--; g.users == 0 {
			delete(l.locks, key)
		}
	}
}
