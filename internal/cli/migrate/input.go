package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/migrate/anp"
	"github.com/kidoban/kidoban/internal/migrate/calico"
)

// input is a cluster and Calico's objects in it.
type input struct {
	cluster *model.Cluster
	set     *calico.Set
}

// readFiles reads manifests, both Calico's and Kubernetes'.
func readFiles(env *command.Env, files []string) (*input, error) {
	in := &input{set: &calico.Set{}}
	m := &model.Manifests{Namespace: env.Namespace()}
	m.Other = func(t metav1.TypeMeta, raw []byte) error {
		_, err := in.set.Read(t, raw, m.Namespace)
		return err
	}
	if err := m.ReadPaths(files, env.In); err != nil {
		return nil, err
	}
	var err error
	if in.cluster, err = m.Cluster(); err != nil {
		return nil, err
	}
	in.clusterPolicies()
	in.kubernetes(isNotConverted)
	return in, nil
}

// kubernetes puts those of Kubernetes' policies that are wanted into the set.
func (in *input) kubernetes(wanted func(*networkingv1.NetworkPolicy) bool) {
	in.set.Kubernetes = nil
	for i := range in.cluster.Policies {
		if np := &in.cluster.Policies[i]; wanted(np) {
			in.set.Kubernetes = append(in.set.Kubernetes, *np)
		}
	}
}

// clusterPolicies puts the ClusterNetworkPolicies into the set.
func (in *input) clusterPolicies() {
	for i := range in.cluster.ClusterPolicies {
		in.set.AddCluster(&in.cluster.ClusterPolicies[i])
	}
}

// policyKinds are those of Calico's that decide about packets, of network-policy-api, and those that change nothing and are listed.
var policyKinds = []string{
	calico.KindTier, calico.KindNetworkPolicy, calico.KindGlobalNetworkPolicy, calico.KindNetworkSet, calico.KindGlobalNetworkSet, calico.KindHostEndpoint,
	calico.KindIPPool, "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy",
}

// readLive reads the cluster that kubeconfig names.
func readLive(ctx context.Context, c client.Client) (*input, error) {
	cluster, err := command.Load(ctx, c)
	if err != nil {
		return nil, err
	}
	in := &input{cluster: cluster, set: &calico.Set{}}
	in.clusterPolicies()
	found := false
	for _, kind := range policyKinds {
		list, err := listCalico(ctx, c, kind)
		if err != nil {
			return nil, err
		}
		found = found || list != nil
		if err := in.take(list); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, errors.New("this cluster does not know Calico's kinds of objects: is Calico installed here?")
	}
	for _, kind := range []string{anp.KindAdmin, anp.KindBaseline} {
		list, err := listKind(ctx, c, schema.GroupKind{Group: anp.Group, Kind: kind})
		if err != nil {
			return nil, err
		}
		if err := in.take(list); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (in *input) take(list []unstructured.Unstructured) error {
	for i := range list {
		raw, err := json.Marshal(&list[i])
		if err != nil {
			return err
		}
		if _, err := in.set.Read(metav1.TypeMeta{APIVersion: list[i].GetAPIVersion(), Kind: list[i].GetKind()}, raw, ""); err != nil {
			return err
		}
	}
	return nil
}

// notOf are the problems of what cannot be read that are not among these, such as those of objects that are no policies of Calico's.
func (in *input) notOf(known []calico.Problem) (out []calico.Problem) {
	for _, p := range in.set.Invalid {
		if !slices.Contains(known, p) {
			out = append(out, p)
		}
	}
	return out
}

// listCalico lists a kind of Calico's as it is stored or, where that is not to be had, as Calico's own API server gives it; nil where the cluster
// does not know the kind.
func listCalico(ctx context.Context, c client.Client, kind string) ([]unstructured.Unstructured, error) {
	for _, group := range []string{calico.GroupStored, calico.Group} {
		list, err := listKind(ctx, c, schema.GroupKind{Group: group, Kind: kind})
		if err != nil || list != nil {
			return list, err
		}
	}
	return nil, nil
}

// listKind is nil where the cluster does not know the kind.
func listKind(ctx context.Context, c client.Client, kind schema.GroupKind) ([]unstructured.Unstructured, error) {
	mapping, err := c.RESTMapper().RESTMapping(kind)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", kind, err)
	}
	var list unstructured.UnstructuredList
	list.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind.Kind + "List"))
	if err := c.List(ctx, &list); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	return append([]unstructured.Unstructured{}, list.Items...), nil
}

// namespaces with their labels; nil where only the name is known.
func (in *input) namespaces() map[string]map[string]string {
	out := map[string]map[string]string{}
	for i := range in.cluster.Namespaces {
		ns := &in.cluster.Namespaces[i]
		out[ns.Name] = nil
		if !in.cluster.Offline || ns.Kind != "" { // others are only mentioned
			out[ns.Name] = ns.Labels
		}
	}
	return out
}
