package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// deletedPolicies removes policies whose PolicyEndpoints are gone. A client may delete these objects, or their kind, while the policies
// exist. Those stay in force as they are until the PolicyEndpoint returns or the policy is deleted, too.
type deletedPolicies struct {
	state    *state
	policies Policies // nil: a policy whose PolicyEndpoint is gone does not exist
	metrics  *metrics
	log      logr.Logger
	gone     chan struct{} // has an element after a PolicyEndpoint has gone
}

// The pauses between two questions about policies that lost their PolicyEndpoints: each second, and a node asks at most so often.
const (
	deletedPause    = time.Second
	deletedInterval = 100 * time.Millisecond
	deletedTimeout  = 2 * time.Second
	listTimeout     = 10 * time.Second
)

func (d *deletedPolicies) endpointGone() {
	select {
	case d.gone <- struct{}{}:
	default:
	}
}

// run asks about policies until the context is done.
func (d *deletedPolicies) run(ctx context.Context) {
	lost := map[types.NamespacedName]bool{} // logged
	for {
		var wait <-chan time.Time
		if n := len(lost); n > 0 {
			wait = time.After(max(deletedPause, time.Duration(n)*deletedInterval))
		}
		select {
		case <-ctx.Done():
			return
		case <-wait:
		case <-d.gone:
			select {
			case <-ctx.Done():
				return
			case <-time.After(node.DeletionPatience):
			}
		}
		lost = d.ask(ctx, lost)
		d.metrics.lost.Set(float64(len(lost)))
	}
}

// ask removes the policies that do not exist any more, and returns the PolicyEndpoints of the others. before are those of the last time.
func (d *deletedPolicies) ask(ctx context.Context, before map[types.NamespacedName]bool) map[types.NamespacedName]bool {
	lost := map[types.NamespacedName]bool{}
	var deleted map[types.NamespacedName]policy.ID
	d.state.read(func(n *node.Node) { deleted = n.Deleted(time.Now()) })
	for key, id := range deleted {
		exists, err := false, error(nil)
		if d.policies != nil {
			exists, err = d.policies.Exists(ctx, id)
		}
		if err == nil && !exists {
			d.state.update(ctx, func(now time.Time, n *node.Node) { n.RemoveDeleted(now, key) })
			continue
		}
		if lost[key] = true; before[key] {
			continue
		}
		if err != nil {
			d.log.Error(err, "Cannot find out whether a policy whose PolicyEndpoint is gone still exists; it stays in force", "kind", id.Kind, "namespace", id.Namespace, "name", id.Name)
		} else {
			d.log.Info("A policy's PolicyEndpoint is gone, and the policy still exists; it stays in force", "kind", id.Kind, "namespace", id.Namespace, "name", id.Name)
		}
	}
	return lost
}

// The kinds of policies of which the controller writes PolicyEndpoints and ClusterPolicyEndpoints. Other clients write those of other kinds, and
// delete them with their policies.
var (
	NetworkPolicyKind = schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"}
	// ClusterNetworkPolicyKinds are the versions of one kind. An API server need not serve all of them.
	ClusterNetworkPolicyKinds = []schema.GroupVersionKind{
		{Group: "policy.networking.k8s.io", Version: "v1alpha2", Kind: "ClusterNetworkPolicy"},
		{Group: "policy.networking.k8s.io", Version: "v1beta1", Kind: "ClusterNetworkPolicy"},
	}
)

// Policies asks the API server about the policies themselves.
type Policies interface {
	// Exists reports whether a policy exists whose PolicyEndpoint or ClusterPolicyEndpoint is gone.
	Exists(ctx context.Context, id policy.ID) (bool, error)
	// List returns the policies that may select pods of some namespaces.
	List(ctx context.Context, namespaces []string) ([]policy.ID, error)
}

// NewPolicies returns Policies that ask by a reader, which must know both kinds.
func NewPolicies(r client.Reader) Policies { return policyReader{r} }

type policyReader struct{ client.Reader }

func (r policyReader) Exists(ctx context.Context, id policy.ID) (bool, error) {
	var kinds []schema.GroupVersionKind
	switch id.Kind {
	case NetworkPolicyKind.Kind:
		kinds = []schema.GroupVersionKind{NetworkPolicyKind}
	case ClusterNetworkPolicyKinds[0].Kind:
		kinds = ClusterNetworkPolicyKinds
	}
	for _, kind := range kinds {
		uid, err := r.uid(ctx, kind, id)
		if err != nil {
			return false, err
		}
		if uid != "" {
			return uid == id.UID, nil
		}
	}
	return false, nil
}

// uid returns the UID of the object of a kind that has a policy's name; empty if there is none, or if the API server does not serve the kind.
func (r policyReader) uid(ctx context.Context, kind schema.GroupVersionKind, id policy.ID) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, deletedTimeout)
	defer cancel()
	obj := &metav1.PartialObjectMetadata{}
	obj.SetGroupVersionKind(kind)
	switch err := r.Get(ctx, client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, obj); {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("get %s %s/%s: %w", id.Kind, id.Namespace, id.Name, err)
	}
	return string(obj.UID), nil
}

func (r policyReader) List(ctx context.Context, namespaces []string) ([]policy.ID, error) {
	var out []policy.ID
	for _, kind := range ClusterNetworkPolicyKinds {
		policies, err := r.list(ctx, kind, "")
		if apierrors.IsNotFound(err) {
			continue // the kind may not be installed, or be served in another version
		}
		if err != nil {
			return nil, err
		}
		out = policies
		break
	}
	for _, namespace := range namespaces {
		policies, err := r.list(ctx, NetworkPolicyKind, namespace)
		if err != nil {
			return nil, err
		}
		out = append(out, policies...)
	}
	return out, nil
}

func (r policyReader) list(ctx context.Context, kind schema.GroupVersionKind, namespace string) (out []policy.ID, _ error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if err := r.Reader.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list %s in namespace %q: %w", kind.Kind, namespace, err)
	}
	for i := range list.Items {
		obj := &list.Items[i]
		out = append(out, policy.ID{Kind: kind.Kind, Namespace: obj.Namespace, Name: obj.Name, UID: string(obj.UID)})
	}
	return out, nil
}
