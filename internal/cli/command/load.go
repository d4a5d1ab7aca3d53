package command

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// page is how many objects one answer of the API server holds.
const page = 1000

var scheme = runtime.NewScheme()

func init() {
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
}

// Client of the cluster that kubeconfig's flags name.
func (e *Env) Client() (client.Client, error) {
	config, err := e.Config.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster to ask (give --context or --kubeconfig, or manifests with -f where the command has it): %w", err)
	}
	config.QPS, config.Burst = 50, 100
	mapper, err := e.Config.ToRESTMapper()
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
}

// Cluster reads these manifests or, where there are none, the live cluster.
func (e *Env) Cluster(ctx context.Context, files []string) (*model.Cluster, error) {
	if len(files) > 0 {
		return model.ReadPaths(files, e.Namespace(), e.In)
	}
	c, err := e.Client()
	if err != nil {
		return nil, err
	}
	return Load(ctx, c)
}

// Load lists what there is. Nodes and EndpointSlices may be refused: what needs them says so.
func Load(ctx context.Context, c client.Client) (*model.Cluster, error) {
	out := &model.Cluster{}
	var pods []corev1.Pod
	if err := list(ctx, c, &corev1.PodList{}, func(l *corev1.PodList) { pods = append(pods, l.Items...) }); err != nil {
		return nil, err
	}
	for i := range pods {
		pods[i].ManagedFields = nil
		out.Pods = append(out.Pods, model.Pod{Pod: pods[i]})
	}
	if err := list(ctx, c, &corev1.NamespaceList{}, func(l *corev1.NamespaceList) { out.Namespaces = append(out.Namespaces, l.Items...) }); err != nil {
		return nil, err
	}
	if err := list(ctx, c, &networkingv1.NetworkPolicyList{}, func(l *networkingv1.NetworkPolicyList) { out.Policies = append(out.Policies, l.Items...) }); err != nil {
		return nil, err
	}
	if err := list(ctx, c, &corev1.ServiceList{}, func(l *corev1.ServiceList) { out.Services = append(out.Services, l.Items...) }); err != nil {
		return nil, err
	}
	if err := list(ctx, c, &discoveryv1.EndpointSliceList{}, func(l *discoveryv1.EndpointSliceList) { out.EndpointSlices = append(out.EndpointSlices, l.Items...) }); err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	if err := list(ctx, c, &corev1.NodeList{}, func(l *corev1.NodeList) { out.Nodes = append(out.Nodes, l.Items...) }); err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	out.Complete()
	return out, nil
}

// list reads all pages of a kind.
func list[L client.ObjectList](ctx context.Context, c client.Client, into L, each func(L)) error {
	for next := ""; ; {
		if err := c.List(ctx, into, client.Limit(page), client.Continue(next)); err != nil {
			return fmt.Errorf("list %T: %w", into, err)
		}
		each(into)
		if next = into.GetContinue(); next == "" {
			return nil
		}
	}
}

// ParameterCodec writes the options of a request into its URL.
func ParameterCodec() runtime.ParameterCodec { return clientgoscheme.ParameterCodec }
