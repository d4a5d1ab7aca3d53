package main

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// writes is what a churn writes to slices.
type writes struct {
	changes, slices int
	local, shared   int // bytes of the slices
}

// perChange is the number of slices that a pod's change writes, and their bytes.
func (w *writes) perChange() (slices, bytes float64) {
	return float64(w.slices) / float64(w.changes), float64(w.local+w.shared) / float64(w.changes)
}

// perAgent is the number of bytes of a pod's change that reach an agent on average: all that is shared, and a
// part of the namespaces.
func (w *writes) perAgent(l *load) float64 {
	part := float64(teamSize) / float64(l.namespaces)
	return (float64(w.shared) + part*float64(w.local)) / float64(w.changes)
}

// caseWrites counts what pods' changes write, in memory, in the cluster of the cases on the API server.
func caseWrites(ctx context.Context, o options, out *report) error {
	out.logf("in memory: writes of %s changes in %s", thousands(o.writeChanges), o.words(o.cluster))
	l := newLoad(o.cluster, o.clusterPolicies, o.seed)
	pods := l.allPods()
	r := fromNothing(l, pods)
	w, err := countWrites(ctx, l, r, pods, o.writeChanges)
	if err != nil {
		return err
	}
	slices, bytes := w.perChange()
	out.add(row{"in memory", fmt.Sprintf("%s: slices written for a pod's change (of %s changes; %s slices in all; %s bytes a change, %s of them to an average agent)",
		o.words(o.cluster), thousands(w.changes), thousands(r.Stats().Slices), thousands(int(bytes)), thousands(int(w.perAgent(l)))),
		slices / 2.5, fmt.Sprintf("%.2f", slices), "2.5"})
	return nil
}

// countWrites changes n pods, two of five added, two deleted and one relabelled.
func countWrites(ctx context.Context, l *load, r *resolved, pods []pod, n int) (writes, error) {
	var w writes
	pods = append([]pod(nil), pods...)
	var departed []pod
	takePod := func() pod {
		k := l.rng.IntN(len(pods))
		p := pods[k]
		pods[k] = pods[len(pods)-1]
		pods = pods[:len(pods)-1]
		return p
	}
	for i := range n {
		if ctx.Err() != nil {
			return w, ctx.Err()
		}
		var before, after *pod
		switch i % 5 {
		case 0, 3:
			p := takePod()
			before, departed = &p, append(departed, p)
		case 1, 4:
			p := l.pod(departed[0].namespace, departed[0].index)
			after, departed, pods = &p, departed[1:], append(pods, p)
		case 2:
			old := takePod()
			now := old.relabelled(l.rng)
			for now.labels["app"] == old.labels["app"] {
				now = old.relabelled(l.rng)
			}
			before, after, pods = &old, &now, append(pods, now)
		}
		w.changes++
		for _, c := range r.apply(before, after).Slices {
			w.slices++
			spec, ok := r.Slice(c.Name)
			bytes := sizeOf(c.Name, nil)
			if ok {
				bytes = sizeOf(c.Name, &spec)
			}
			if c.Name.Namespace == sharedNamespace {
				w.shared += bytes
			} else {
				w.local += bytes
			}
		}
	}
	return w, nil
}

// sizeOf is the size of a watch's event about a slice with the metadata that the controller's slices have.
func sizeOf(name types.NamespacedName, spec *v1alpha1.PolicyEndpointSliceSpec) int {
	type object struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta                 `json:"metadata"`
		Spec            *v1alpha1.PolicyEndpointSliceSpec `json:"spec"`
	}
	o := object{Spec: spec}
	o.APIVersion, o.Kind = v1alpha1.GroupVersion.String(), "PolicyEndpointSlice"
	o.Metadata = metav1.ObjectMeta{
		Namespace: name.Namespace, Name: name.Name, UID: types.UID("01234567-89ab-cdef-0123-456789abcdef"), ResourceVersion: "1234567", Generation: 123,
		CreationTimestamp: metav1.Now(), Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController},
	}
	data, err := json.Marshal(map[string]any{"type": "MODIFIED", "object": o})
	if err != nil {
		panic(err) // these types can be marshalled
	}
	return len(data)
}
