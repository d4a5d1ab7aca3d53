package controller

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

const (
	// absentWait is how often the controller looks whether the cluster has a kind.
	absentWait = 5 * time.Second
	// absentTimes is how often it must find that the cluster does not have the kind before the objects count as gone: a single answer may come
	// from a proxy, or from an API server that does not serve custom resources yet, and policies must not end by it.
	absentTimes = 2
	// watchSeconds and as many more at most are how long one watch lasts.
	watchSeconds = 300
)

// optionalKind watches a kind that the cluster may not have. A watch of the manager's would have to have it from the start.
type optionalKind struct {
	// versions of the kind, the one to read first at first. Objects of all of them have the same fields. If an API server stops serving a
	// version, its objects are still there.
	versions []dynamic.ResourceInterface
	log      logr.Logger
	// objects take in what there is.
	objects objects
}

// objects are those of a kind.
type objects interface {
	// replace takes in that these are all objects.
	replace(all []unstructured.Unstructured)
	// change takes in that an object appeared, changed or, if it is gone, disappeared.
	change(obj *unstructured.Unstructured, isGone bool)
}

// NeedLeaderElection makes a follower watch, so that it can lead at once.
func (*optionalKind) NeedLeaderElection() bool { return false }

// Start watches until the context is done. The kind may appear and disappear.
func (k *optionalKind) Start(ctx context.Context) error {
	state, absent := "", 0
	for ctx.Err() == nil {
		wait := time.Second
		err := k.follow(ctx)
		now := ""
		if absent++; !apierrors.IsNotFound(err) {
			absent = 0
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case absent > 0:
			now, wait = "Watching no policies of a kind: the cluster does not have it", absentWait
			if absent >= absentTimes {
				k.objects.replace(nil)
			}
		case err != nil:
			now, wait = "Cannot watch policies of a kind; retrying", maxPause
		}
		if now != state && now != "" {
			k.log.Info(now, "reason", err.Error())
		}
		state = now
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// follow takes in all objects, and then their changes until the watch ends.
func (k *optionalKind) follow(ctx context.Context) error {
	client, list, err := k.list(ctx)
	if err != nil {
		return err
	}
	k.objects.replace(list.Items)
	seconds := int64(watchSeconds + rand.IntN(watchSeconds))
	w, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion(), AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		obj, ok := e.Object.(*unstructured.Unstructured)
		switch {
		case e.Type == watch.Error:
			return nil // the next list has what this watch missed
		case e.Type == watch.Bookmark || !ok:
		default:
			k.objects.change(obj, e.Type == watch.Deleted)
		}
	}
	return nil
}

// list lists the objects in the first version that is served.
func (k *optionalKind) list(ctx context.Context) (client dynamic.ResourceInterface, list *unstructured.UnstructuredList, err error) {
	for _, client = range k.versions {
		if list, err = client.List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			break
		}
	}
	return client, list, err
}
