package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
)

// namespaceInterval is how often namespaces without pods are looked for.
const namespaceInterval = 5 * time.Second

// followNamespaces watches every namespace that the node needs, and no other, until the context is done.
func (a *Agent) followNamespaces(ctx context.Context) {
	watches := map[string]context.CancelFunc{}
	tick := time.NewTicker(namespaceInterval)
	defer tick.Stop()
	for {
		a.updateWatches(ctx, watches)
		select {
		case <-ctx.Done():
			return
		case <-a.state.namespaces:
		case <-tick.C:
		}
	}
}

// updateWatches starts and ends watches of namespaces.
func (a *Agent) updateWatches(ctx context.Context, watches map[string]context.CancelFunc) {
	a.state.update(ctx, func(now time.Time, n *node.Node) {
		wanted := n.WantedNamespaces(now)
		for name := range wanted {
			if watches[name] == nil {
				watching, cancel := context.WithCancel(ctx)
				watches[name] = cancel
				go a.watchNamespace(watching, name)
			}
		}
		for name, cancel := range watches {
			if !wanted[name] {
				cancel() // under the lock: no event of this watch comes after the namespace is forgotten
				delete(watches, name)
				n.ForgetNamespace(now, name)
			}
		}
	})
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
		a.state.update(ctx, func(now time.Time, n *node.Node) { n.NamespaceSynced(now, name) })
	}
}
