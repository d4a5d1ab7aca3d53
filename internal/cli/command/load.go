package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	beta "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// page is how many objects one answer of the API server holds.
const page = 1000

var scheme = runtime.NewScheme()

func init() {
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	utilruntime.Must(cnp.Install(scheme))
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

// NewClient is a client of a cluster that Load reads, for processes without kubeconfig's flags.
func NewClient(config *rest.Config) (client.Client, error) {
	return client.New(config, client.Options{Scheme: scheme})
}

// Load lists the objects of the live cluster.
func Load(ctx context.Context, c client.Client) (*model.Cluster, error) {
	m := &model.Manifests{}
	if err := load(ctx, c, m); err != nil {
		return nil, err
	}
	return m.Cluster()
}

// load the objects that a reader of policies may list. Others may be forbidden: the commands that need them report it.
func load(ctx context.Context, c client.Client, m *model.Manifests) error {
	m.Live = true
	evaluated := map[string]bool{application.Kind: applications(ctx, c, m)}
	m.Notes = append(m.Notes, otherEngines(ctx, c, evaluated)...)
	adminPolicies(ctx, c, m)
	return errors.Join(
		list(ctx, c, &corev1.PodList{}, func(l *corev1.PodList) { add(m, l.Items) }),
		list(ctx, c, &corev1.NamespaceList{}, func(l *corev1.NamespaceList) { add(m, l.Items) }),
		list(ctx, c, &networkingv1.NetworkPolicyList{}, func(l *networkingv1.NetworkPolicyList) { add(m, l.Items) }),
		clusterPolicies(ctx, c, m),
		list(ctx, c, &corev1.ServiceList{}, func(l *corev1.ServiceList) { add(m, l.Items) }),
		optional(m, "EndpointSlices", list(ctx, c, &discoveryv1.EndpointSliceList{}, func(l *discoveryv1.EndpointSliceList) { add(m, l.Items) })),
		optional(m, "Nodes", list(ctx, c, &corev1.NodeList{}, func(l *corev1.NodeList) { add(m, l.Items) })),
		optional(m, "Deployments", list(ctx, c, &appsv1.DeploymentList{}, func(l *appsv1.DeploymentList) { add(m, l.Items) })),
		optional(m, "ReplicaSets", list(ctx, c, &appsv1.ReplicaSetList{}, func(l *appsv1.ReplicaSetList) { add(m, l.Items) })),
		optional(m, "StatefulSets", list(ctx, c, &appsv1.StatefulSetList{}, func(l *appsv1.StatefulSetList) { add(m, l.Items) })),
		optional(m, "DaemonSets", list(ctx, c, &appsv1.DaemonSetList{}, func(l *appsv1.DaemonSetList) { add(m, l.Items) })),
		optional(m, "Jobs", list(ctx, c, &batchv1.JobList{}, func(l *batchv1.JobList) { add(m, l.Items) })),
		optional(m, "CronJobs", list(ctx, c, &batchv1.CronJobList{}, func(l *batchv1.CronJobList) { add(m, l.Items) })),
	)
}

// otherKinds are the policies of other engines that are looked for in a live cluster.
var otherKinds = []schema.GroupKind{
	{Group: "networking.k8s.aws", Kind: "ClusterNetworkPolicy"},
	{Group: "networking.k8s.aws", Kind: "ApplicationNetworkPolicy"},
	{Group: "crd.projectcalico.org", Kind: "NetworkPolicy"},
	{Group: "crd.projectcalico.org", Kind: "GlobalNetworkPolicy"},
	{Group: "cilium.io", Kind: "CiliumNetworkPolicy"},
	{Group: "cilium.io", Kind: "CiliumClusterwideNetworkPolicy"},
	{Group: "crd.antrea.io", Kind: "NetworkPolicy"},
	{Group: "crd.antrea.io", Kind: "ClusterNetworkPolicy"},
}

// clusterPolicies lists the ClusterNetworkPolicies, if the cluster has the kind. One that may not be listed could change every answer, so that
// is a note.
func clusterPolicies(ctx context.Context, c client.Client, m *model.Manifests) error {
	err := ListClusterPolicies(ctx, c, func(items []cnp.ClusterNetworkPolicy) { add(m, items) })
	if isAbsent(err) {
		return nil
	}
	return optional(m, model.ClusterPolicyResource, err)
}

// ListClusterPolicies lists the ClusterNetworkPolicies in a version that the API server has, page by page.
func ListClusterPolicies(ctx context.Context, c client.Client, each func([]cnp.ClusterNetworkPolicy)) error {
	err := list(ctx, c, &cnp.ClusterNetworkPolicyList{}, func(l *cnp.ClusterNetworkPolicyList) { each(l.Items) })
	if !isAbsent(err) {
		return err
	}
	newer := &unstructured.UnstructuredList{}
	newer.SetGroupVersionKind(schema.GroupVersion(beta.GroupVersion).WithKind(model.ClusterPolicyKind + "List"))
	var unreadable error
	err = list(ctx, c, newer, func(l *unstructured.UnstructuredList) {
		items := make([]cnp.ClusterNetworkPolicy, len(l.Items))
		for i := range l.Items {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(l.Items[i].Object, &items[i]); err != nil && unreadable == nil {
				unreadable = fmt.Errorf("read %s %s: %w", model.ClusterPolicyKind, l.Items[i].GetName(), err)
			}
		}
		each(items)
	})
	return errors.Join(err, unreadable)
}

// isAbsent reports whether the cluster does not have a kind.
func isAbsent(err error) bool { return apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) }

// applications reads the ApplicationNetworkPolicies of a cluster whose controller enforces them: it has written PolicyEndpoints for them. It
// reports whether it has read them.
func applications(ctx context.Context, c client.Client, m *model.Manifests) bool {
	var written metav1.PartialObjectMetadataList
	written.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PolicyEndpointList"))
	if err := c.List(ctx, &written, client.Limit(1), client.MatchingLabels{v1alpha1.LabelPolicyKind: application.Kind}); err != nil || len(written.Items) == 0 {
		return false
	}
	found := &unstructured.UnstructuredList{}
	found.SetGroupVersionKind(schema.GroupVersionKind{Group: application.Group, Version: application.Version, Kind: application.Kind + "List"})
	var policies []*application.Policy
	err := list(ctx, c, found, func(l *unstructured.UnstructuredList) {
		for i := range l.Items {
			p := &application.Policy{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(l.Items[i].Object, p); err != nil {
				m.Notes = append(m.Notes, fmt.Sprintf("not read: %s %s/%s: %v", application.Kind, l.Items[i].GetNamespace(), l.Items[i].GetName(), err))
				continue
			}
			policies = append(policies, p)
		}
	})
	if err != nil {
		m.Notes = append(m.Notes, "not read: "+err.Error())
		return false
	}
	for _, p := range policies {
		m.AddApplication(p)
	}
	return true
}

// adminPolicies notes the AdminNetworkPolicies of a cluster: nothing enforces them.
func adminPolicies(ctx context.Context, c client.Client, m *model.Manifests) {
	for _, kind := range []string{"AdminNetworkPolicy", "BaselineAdminNetworkPolicy"} {
		mapping, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: cnp.GroupVersion.Group, Kind: kind})
		if err != nil {
			continue
		}
		found := &metav1.PartialObjectMetadataList{}
		found.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind + "List"))
		if err := list(ctx, c, found, func(l *metav1.PartialObjectMetadataList) {
			for i := range l.Items {
				m.AddAdminPolicy(kind + " " + l.Items[i].Name)
			}
		}); err != nil {
			m.Notes = append(m.Notes, "not read: "+err.Error())
		}
	}
}

// otherEngines notes which kinds of policies a live cluster has besides NetworkPolicy. Kinds that the cluster does not have, or that may not be
// listed, are no obstacle to an answer about NetworkPolicies.
func otherEngines(ctx context.Context, c client.Client, evaluated map[string]bool) []string {
	var found []string
	for _, kind := range otherKinds {
		if evaluated[kind.Kind] {
			continue
		}
		mapping, err := c.RESTMapper().RESTMapping(kind)
		if err != nil {
			continue
		}
		var list metav1.PartialObjectMetadataList
		list.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind.Kind + "List"))
		switch err := c.List(ctx, &list, client.Limit(1)); {
		case err != nil:
			found = append(found, kind.Kind+" ("+kind.Group+", not listed: "+err.Error()+")")
		case len(list.Items) > 0:
			found = append(found, kind.Kind+" ("+kind.Group+")")
		}
	}
	if len(found) == 0 {
		return nil
	}
	return []string{"not evaluated: " + strings.Join(found, ", ")}
}

// add objects, without the fields that are of no use here and take most of the memory.
func add[T any, O interface {
	*T
	metav1.Object
}](m *model.Manifests, items []T) {
	for i := range items {
		o := O(&items[i])
		o.SetManagedFields(nil)
		m.Add(o)
	}
}

// optional makes a note of objects that may not be listed.
func optional(m *model.Manifests, what string, err error) error {
	if apierrors.IsForbidden(err) {
		m.Notes = append(m.Notes, "not read, for lack of the permission to list them: "+what)
		return nil
	}
	return err
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
