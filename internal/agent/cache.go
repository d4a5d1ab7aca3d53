package agent

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// CacheOptions are those of the cache that an Agent is given: the node's pods, and of them only what is used.
func CacheOptions(nodeName string) cache.Options {
	return cache.Options{
		DefaultWatchErrorHandler: watches.handle,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {
				Field:     fields.OneTermEqualSelector("spec.nodeName", nodeName),
				Transform: stripPod,
			},
		},
	}
}

// NamespaceCaches makes the caches of single namespaces that an Agent watches while it has pods there: of what is in
// them, and of the Namespace itself. They share the manager's connection.
func NamespaceCaches(mgr manager.Manager) func(namespace string) (cache.Cache, error) {
	return func(namespace string) (cache.Cache, error) {
		return cache.New(mgr.GetConfig(), cache.Options{
			HTTPClient:               mgr.GetHTTPClient(),
			Scheme:                   mgr.GetScheme(),
			Mapper:                   mgr.GetRESTMapper(),
			DefaultNamespaces:        map[string]cache.Config{namespace: {}},
			DefaultTransform:         cache.TransformStripManagedFields(),
			DefaultWatchErrorHandler: watches.handle,
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Namespace{}: {Field: fields.OneTermEqualSelector("metadata.name", namespace)},
			},
		})
	}
}

func stripPod(obj any) (any, error) {
	in, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: in.Namespace, Name: in.Name, UID: in.UID, ResourceVersion: in.ResourceVersion,
			Labels: in.Labels, CreationTimestamp: in.CreationTimestamp, OwnerReferences: in.OwnerReferences,
		},
		Spec:   corev1.PodSpec{HostNetwork: in.Spec.HostNetwork, Containers: stripContainers(in.Spec.Containers), InitContainers: stripContainers(in.Spec.InitContainers)},
		Status: corev1.PodStatus{Phase: in.Status.Phase, PodIP: in.Status.PodIP, PodIPs: in.Status.PodIPs},
	}
	return out, nil
}

func stripContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range in {
		if len(in[i].Ports) > 0 {
			out = append(out, corev1.Container{Ports: in[i].Ports, RestartPolicy: in[i].RestartPolicy})
		}
	}
	return out
}

// watchFailures says when watches begin to fail and when they have ceased to. An API server that is away fails each watch of each namespace, again
// and again.
type watchFailures struct {
	log logr.Logger

	mu      sync.Mutex
	failing bool
	last    time.Time // of the failures
}

// watches are all of this process: they ask one API server.
var watches = &watchFailures{log: log.Log.WithName("agent")}

// watchesQuiet is how long no watch has failed when that is over. Nobody says that a watch goes well, and client-go waits up to a minute before it
// tries again.
const watchesQuiet = 2 * time.Minute

// handle is a WatchErrorHandlerWithContext.
func (f *watchFailures) handle(ctx context.Context, r *toolscache.Reflector, err error) {
	if ctx.Err() != nil {
		return
	}
	ended := err == io.EOF || err == io.ErrUnexpectedEOF //nolint:errorlint // wrapped, it is that of a connection
	if ended || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		toolscache.DefaultWatchErrorHandler(ctx, r, err) // for which these are no failures
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = time.Now()
	if f.failing {
		f.log.V(1).Info("Cannot watch", "kind", r.TypeDescription(), "err", err.Error())
		return
	}
	f.failing = true
	f.log.Error(err, "Cannot watch the API server; what is in force stays so, and it is tried again", "kind", r.TypeDescription())
	time.AfterFunc(watchesQuiet, f.over)
}

func (f *watchFailures) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rest := watchesQuiet - time.Since(f.last); rest > 0 {
		time.AfterFunc(rest, f.over)
		return
	}
	f.failing = false
	f.log.Info("Watches of the API server do not fail any more", "for", watchesQuiet.String())
}
