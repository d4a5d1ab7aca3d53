package main

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// view is the part of a PolicyEndpoint, ClusterPolicyEndpoint or slice that the observer reads. An informer would decode all of it,
// several times, and take CPU time from what is measured.
type view struct {
	Metadata struct {
		Namespace, Name string
		Generation      int64
	}
	Spec struct { // of a slice
		Groups    []v1alpha1.GroupPart
		Addresses []v1alpha1.CIDR
		Classes   []v1alpha1.AddressClass
	}
	Status struct { // of the former two
		ObservedGeneration int64
	}
}

// followViews calls notify with the old and the new version of each object of a kind: old is nil for a new
// object, now for a deleted one. Existing objects are new at the beginning. It calls failed on an error.
func followViews(ctx context.Context, client rest.Interface, resource string, notify func(old, now *view), failed func(error)) error {
	changes, err := client.Get().AbsPath("apis", v1alpha1.GroupVersion.String(), resource).
		SetHeader("Accept", "application/json").Param("watch", "1").Stream(ctx)
	if err != nil {
		return err
	}
	there := map[types.NamespacedName]*view{}
	go func() {
		defer func() { _ = changes.Close() }()
		in := json.NewDecoder(changes)
		for {
			var event struct {
				Type   watch.EventType
				Object *view
			}
			if err := in.Decode(&event); err != nil {
				failed(fmt.Errorf("watch %s: %w", resource, err))
				return
			}
			key := types.NamespacedName{Namespace: event.Object.Metadata.Namespace, Name: event.Object.Metadata.Name}
			old := there[key]
			switch event.Type {
			case watch.Added, watch.Modified:
				there[key] = event.Object
				notify(old, event.Object)
			case watch.Deleted:
				delete(there, key)
				notify(old, nil)
			default:
				failed(fmt.Errorf("watch %s: the API server sent an event of type %s", resource, event.Type))
				return
			}
		}
	}()
	return nil
}
