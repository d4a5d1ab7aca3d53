package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// A namespace is one that this node has pods in, or kidoban's own.
type namespace struct {
	pods  map[types.NamespacedName]*corev1.Pod // as last seen; also those without an address yet
	known bool                                 // what its policies and groups are
	idle  time.Time                            // since when it has no pods
	// enforcement is the value of its LabelEnforcement.
	enforcement string
}

// A namespace without pods is watched for this long: the next run of a job finds its policies there.
const idleNamespace = time.Minute

// reside notes that a pod is on this node. A pod is there some time before it has an address: its namespace's policies are known by then.
func (s *state) reside(key types.NamespacedName, obj *corev1.Pod) {
	ns := s.namespaces[key.Namespace]
	if ns == nil {
		ns = &namespace{pods: map[types.NamespacedName]*corev1.Pod{}}
		s.namespaces[key.Namespace] = ns
	}
	ns.pods[key] = obj
}

func (s *state) leave(key types.NamespacedName) {
	if ns := s.namespaces[key.Namespace]; ns != nil && len(ns.pods) > 0 {
		if delete(ns.pods, key); len(ns.pods) == 0 {
			ns.idle = time.Now()
		}
	}
}

// complete reports whether all namespaces with pods are known.
func (s *state) complete() bool {
	for _, ns := range s.namespaces {
		if !ns.known {
			return false
		}
	}
	return true
}

// namespaceKnown says that all the policies and groups of a namespace have been told: its pods can be judged.
func (s *state) namespaceKnown(name string) {
	ns := s.namespaces[name]
	if ns == nil || ns.known {
		return
	}
	ns.known = true
	s.compileNamespace(name)
}

// forgetNamespace drops a namespace that has no pods here and all that was known of it.
func (s *state) forgetNamespace(name string) {
	delete(s.namespaces, name)
	for key := range s.byNamespace[name] {
		s.deletePolicyEndpoint(key)
	}
	for key, g := range s.groups {
		if key.Namespace == name {
			clear(g.slices)
			s.dropUnused(key)
		}
	}
}

// followNamespaces watches every namespace that has pods here, and no other.
func (a *Agent) followNamespaces(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, ns := range a.state.namespaces {
		cancel := a.watches[name]
		idle := len(ns.pods) == 0 && name != a.opts.SharedNamespace && time.Since(ns.idle) > idleNamespace
		switch {
		case cancel == nil && !idle:
			watching, cancel := context.WithCancel(ctx)
			a.watches[name] = cancel
			go a.watchNamespace(watching, name)
		case cancel != nil && idle:
			cancel()
			delete(a.watches, name)
			a.state.forgetNamespace(name)
			a.metrics.observe(a.state)
		}
	}
}

// watchNamespace feeds the state from one namespace until the context is done.
func (a *Agent) watchNamespace(ctx context.Context, name string) {
	c, err := a.opts.NamespaceCache(name)
	if err != nil {
		a.opts.Log.Error(err, "Cannot watch a namespace", "namespace", name)
		return
	}
	go func() { _ = c.Start(ctx) }() // ends with the context; its watches retry by themselves
	var synced []toolscache.InformerSynced
	for _, w := range []struct {
		object client.Object
		set    func(ctx context.Context, old, now any)
		gone   func(context.Context, any)
	}{
		{&corev1.Namespace{}, a.onNamespace, func(context.Context, any) {}}, // its pods go with it
		{&v1alpha1.PolicyEndpointSlice{}, a.onSlice, a.onSliceGone},
		{&v1alpha1.PolicyEndpoint{}, a.onPolicyEndpoint, a.onPolicyEndpointGone},
	} {
		s, err := a.subscribe(ctx, c, w.object, w.set, w.gone)
		if err != nil {
			return
		}
		synced = append(synced, s)
	}
	if toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		a.update(ctx, func(s *state) { s.namespaceKnown(name) })
	}
}
