package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// groupState is what the controller knows of a group's slices on the API server. Controller.mu guards all but writing.
type groupState struct {
	// dirty are the indexes of the slices to compare with what they should be.
	dirty map[int32]struct{}
	// seen is when the first of the pods' new addresses was seen that the dirty slices are about; written is when the
	// writing of the group began last.
	seen, written time.Time
	// present says that all of the group was written and nothing of it was seen deleted since.
	present bool

	// writing is held while slices of the group are written; writers counts those who hold it or wait for it.
	writing sync.Mutex
	writers int
}

func (c *Controller) group(key policy.GroupKey) *groupState {
	g, ok := c.groups[key]
	if !ok {
		g = &groupState{dirty: map[int32]struct{}{}}
		c.groups[key] = g
	}
	return g
}

// plan is what a group's dirty slices should be.
type plan struct {
	// count is the number of slices that the group should have.
	count int32
	// specs are the dirty ones that should be there; gone are those that should not.
	specs map[int32]v1alpha1.PolicyEndpointSliceSpec
	gone  []int32
	seen  time.Time
}

// writeGroup writes a group's dirty slices, one writer at a time.
func (c *Controller) writeGroup(ctx context.Context, key policy.GroupKey) error {
	c.mu.Lock()
	g := c.group(key)
	g.writers++
	c.mu.Unlock()
	g.writing.Lock()
	defer g.writing.Unlock()

	p := c.plan(key, g)
	err := c.carryOut(ctx, key, p)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		for i := range p.specs {
			g.dirty[i] = struct{}{}
		}
		for _, i := range p.gone {
			g.dirty[i] = struct{}{}
		}
		if !p.seen.IsZero() {
			g.seen = p.seen
		}
	} else {
		g.present = p.count > 0
		if !p.seen.IsZero() {
			podToWriteSeconds.Observe(time.Since(p.seen).Seconds())
		}
	}
	if g.writers--; g.writers == 0 && len(g.dirty) == 0 && c.resolver.Slices(key) == 0 {
		delete(c.groups, key)
	}
	return err
}

// plan takes the dirty slices of a group. It takes none of a group that nothing uses any more as long as a PolicyEndpoint refers to it:
// who writes that one asks again.
func (c *Controller) plan(key policy.GroupKey, g *groupState) plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := plan{count: int32(c.resolver.Slices(key)), specs: map[int32]v1alpha1.PolicyEndpointSliceSpec{}}
	if p.count == 0 {
		if c.references.has(key) {
			return p
		}
		g.present = false // whoever wants to refer to it now waits for us and makes it anew
		c.resolver.Forget(key)
	}
	for i := range g.dirty {
		if spec, ok := c.resolver.Slice(resolver.SliceKey{Group: key, Index: i}); ok {
			p.specs[i] = spec
		} else {
			p.gone = append(p.gone, i)
		}
	}
	p.seen = g.seen
	g.seen = time.Time{}
	if len(g.dirty) > 0 {
		g.written = time.Now()
	}
	clear(g.dirty)
	return p
}

// carryOut writes a plan.
func (c *Controller) carryOut(ctx context.Context, key policy.GroupKey, p plan) error {
	counted := p.count // by the head that is there
	if len(p.gone) > 0 || len(p.specs) > 1 {
		var head v1alpha1.PolicyEndpointSlice
		switch found, err := c.get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: sliceName(key.Name, 0)}, &head); {
		case err != nil:
			return err
		case found:
			counted = max(1, head.Spec.Slices)
		default:
			counted = 0
		}
	}
	for _, spec := range p.writes(counted) {
		if err := c.writeSlice(ctx, key, spec); err != nil {
			return err
		}
	}
	for _, i := range p.gone {
		if err := c.delete(ctx, types.NamespacedName{Namespace: key.Namespace, Name: sliceName(key.Name, i)}, &v1alpha1.PolicyEndpointSlice{}); err != nil {
			return err
		}
	}
	return nil
}

// writes are what to write, in an order in which no reader misses an address that stays: a slice comes before the head counts it, and goes
// when it does so no more; and where slices were merged, an address stands in its new slice, whose index is lower, before it leaves the old.
// counted is the number of slices by the head that is there.
func (p *plan) writes(counted int32) []v1alpha1.PolicyEndpointSliceSpec {
	var fresh, rest []v1alpha1.PolicyEndpointSliceSpec
	for _, i := range slices.Sorted(maps.Keys(p.specs)) {
		switch spec := p.specs[i]; {
		case i > 0 && i >= counted:
			fresh = append(fresh, spec)
		case i == 0 && counted > p.count:
			spec.Slices = counted // until the others have what the last ones had
			rest = append(rest, spec)
		default:
			rest = append(rest, spec)
		}
	}
	out := append(fresh, rest...)
	if head, ok := p.specs[0]; ok && counted > p.count {
		out = append(out, head)
	}
	return out
}

// writeSlice makes a slice what it should be.
func (c *Controller) writeSlice(ctx context.Context, key policy.GroupKey, spec v1alpha1.PolicyEndpointSliceSpec) error {
	pes := &v1alpha1.PolicyEndpointSlice{}
	pes.Namespace, pes.Name = key.Namespace, sliceName(spec.Group, spec.Index)
	isOther := false
	_, err := c.put(ctx, pes, func() bool {
		if isSlice(pes, &spec) {
			return false
		}
		if isOther = pes.UID != "" && !isNamedBySpec(pes); isOther { // its group and index are immutable; as ours it is a stray, and swept
			return setLabels(pes, map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController})
		}
		setLabels(pes, sliceLabels(spec.Group))
		pes.Spec = spec
		return true
	})
	if err == nil && isOther {
		err = fmt.Errorf("PolicyEndpointSlice %s/%s is of another group; it is deleted to make room", pes.Namespace, pes.Name)
	}
	return err
}

// isSlice reports whether a slice is what it should be.
func isSlice(pes *v1alpha1.PolicyEndpointSlice, spec *v1alpha1.PolicyEndpointSliceSpec) bool {
	return hasLabels(pes, sliceLabels(spec.Group)) && equality.Semantic.DeepEqual(&pes.Spec, spec)
}

func sliceLabels(group string) map[string]string {
	return map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController, v1alpha1.LabelGroup: group}
}

func sliceName(group string, index int32) string { return fmt.Sprintf("%s-%d", group, index) }

func groupOf(pes *v1alpha1.PolicyEndpointSlice) policy.GroupKey {
	return policy.GroupKey{Namespace: pes.Namespace, Name: pes.Spec.Group}
}

// isNamedBySpec reports whether a slice has the name that we would give it.
func isNamedBySpec(pes *v1alpha1.PolicyEndpointSlice) bool {
	return pes.Name == sliceName(pes.Spec.Group, pes.Spec.Index)
}
