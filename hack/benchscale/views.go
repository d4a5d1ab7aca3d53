package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// view is what the observer reads of a PolicyEndpoint or a slice. An informer would decode all of it, several times, and take CPU that
// is to be measured.
type view struct {
	Metadata struct {
		Namespace, Name string
		ResourceVersion string
		Generation      int64
	}
	Spec struct { // of a slice
		Group     string
		Selector  v1alpha1.GroupSelector
		Addresses []v1alpha1.CIDR
	}
	Status struct { // of a PolicyEndpoint
		ObservedGeneration int64
	}
}

// followViews tells of the objects of a kind what they were and are: nil and the object that is new, the object that is gone and nil. It returns
// when it has told what there was; failed is called if it cannot go on.
func followViews(ctx context.Context, config *rest.Config, resource string, tell func(old, now *view), failed func(error)) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	base, err := url.JoinPath(config.Host, "apis", v1alpha1.GroupVersion.String(), resource)
	if err != nil {
		return err
	}
	get := func(query string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+query, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err == nil && resp.StatusCode != http.StatusOK {
			_ = resp.Body.Close()
			err = fmt.Errorf("%s%s: %s", base, query, resp.Status)
		}
		return resp, err
	}
	resp, err := get("")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []*view
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return err
	}
	there := map[types.NamespacedName]*view{}
	keyOf := func(v *view) types.NamespacedName {
		return types.NamespacedName{Namespace: v.Metadata.Namespace, Name: v.Metadata.Name}
	}
	for _, v := range list.Items {
		there[keyOf(v)] = v
		tell(nil, v)
	}
	changes, err := get("?watch=1&resourceVersion=" + list.Metadata.ResourceVersion)
	if err != nil {
		return err
	}
	go func() {
		defer func() { _ = changes.Body.Close() }()
		in := json.NewDecoder(changes.Body)
		for {
			var event struct {
				Type   watch.EventType
				Object *view
			}
			if err := in.Decode(&event); err != nil {
				failed(fmt.Errorf("watch %s: %w", resource, err))
				return
			}
			key := keyOf(event.Object)
			old := there[key]
			switch event.Type {
			case watch.Added, watch.Modified:
				there[key] = event.Object
				tell(old, event.Object)
			case watch.Deleted:
				delete(there, key)
				tell(old, nil)
			default:
				failed(fmt.Errorf("watch %s: the API server says %s", resource, event.Type))
				return
			}
		}
	}()
	return nil
}
