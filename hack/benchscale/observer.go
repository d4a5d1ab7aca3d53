package main

import (
	"context"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// observer watches the controller's objects and records when a pod's change has reached all of them.
type observer struct {
	members
	seen progress
}

// progress counts the existing objects and the PolicyEndpoints and ClusterPolicyEndpoints whose status is about their current spec, and
// has the times of the last change of a spec and of such a status.
type progress struct {
	endpoints, slices, reported int
	spec, status                time.Time
}

func newObserver() *observer {
	return &observer{members: newMembers()}
}

// watch watches the objects until the context is done, and calls failed on an error.
func (o *observer) watch(ctx context.Context, client rest.Interface, failed func(error)) error {
	for _, resource := range []string{"policyendpoints", "clusterpolicyendpoints"} {
		if err := followViews(ctx, client, resource, o.seeEndpoint, failed); err != nil {
			return err
		}
	}
	return followViews(ctx, client, "policyendpointslices", o.seeSlice, failed)
}

func (o *observer) seeEndpoint(old, now *view) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case old == nil:
		o.seen.endpoints++
	case now == nil:
		o.seen.endpoints--
	}
	if old == nil || now == nil || old.Metadata.Generation != now.Metadata.Generation {
		o.seen.spec = time.Now()
	}
	if n := reported(now) - reported(old); n != 0 {
		o.seen.reported += n
		o.seen.status = time.Now()
	}
}

// reported is 1 if the status is about the current spec.
func reported(pe *view) int {
	if pe != nil && pe.Status.ObservedGeneration == pe.Metadata.Generation {
		return 1
	}
	return 0
}

func (o *observer) seeSlice(old, now *view) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen.spec = time.Now()
	switch {
	case old == nil:
		o.seen.slices++
	case now == nil:
		o.seen.slices--
	}
	was, is := partsOf(old), partsOf(now)
	for key, part := range is {
		if o.groups[key] == nil {
			o.groups[key] = &groupView{addresses: map[netip.Addr]int{}}
		}
		if part.selector != nil {
			o.groups[key].selector, _ = parseGroupSelector(key.Namespace, part.selector) // expectRight finds a wrong one
		}
		see(&o.members, key, o.groups[key], addressOf, was[key].addresses, part.addresses)
	}
	for key, part := range was {
		if _, ok := is[key]; !ok {
			see(&o.members, key, o.groups[key], addressOf, part.addresses, nil)
		}
	}
}

// groupPart is what a slice has of a group.
type groupPart struct {
	slices    []types.NamespacedName
	selector  *v1alpha1.GroupSelector
	addresses []v1alpha1.CIDR
}

func partsOf(v *view) map[policy.GroupKey]groupPart {
	out := map[policy.GroupKey]groupPart{}
	if v == nil {
		return out
	}
	addresses := make([][]v1alpha1.CIDR, len(v.Spec.Groups))
	rest := v.Spec.Addresses
	for _, c := range v.Spec.Classes {
		for _, g := range c.Groups {
			addresses[g] = append(addresses[g], rest[:c.Count]...)
		}
		rest = rest[c.Count:]
	}
	for i, g := range v.Spec.Groups {
		key := policy.GroupKey{Namespace: v.Metadata.Namespace, Name: g.Name}
		if g.Namespace != "" {
			key.Namespace = g.Namespace
		}
		part := groupPart{selector: g.Selector, addresses: addresses[i]}
		for _, name := range g.Slices {
			part.slices = append(part.slices, types.NamespacedName{Namespace: v.Metadata.Namespace, Name: name})
		}
		for _, name := range g.SharedSlices {
			part.slices = append(part.slices, types.NamespacedName{Namespace: sharedNamespace, Name: name})
		}
		out[key] = part
	}
	return out
}

func (o *observer) progress() progress {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

func addressOf(cidr v1alpha1.CIDR) netip.Addr {
	p, _ := netip.ParsePrefix(string(cidr))
	return p.Addr()
}
