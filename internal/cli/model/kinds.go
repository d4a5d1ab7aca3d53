package model

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// kinds that are read.
var kinds = map[metav1.TypeMeta]func() metav1.Object{
	{APIVersion: "v1", Kind: "Namespace"}:                       func() metav1.Object { return &corev1.Namespace{} },
	{APIVersion: "v1", Kind: "Node"}:                            func() metav1.Object { return &corev1.Node{} },
	{APIVersion: "v1", Kind: "Pod"}:                             func() metav1.Object { return &corev1.Pod{} },
	{APIVersion: "v1", Kind: "Service"}:                         func() metav1.Object { return &corev1.Service{} },
	{APIVersion: "v1", Kind: "Endpoints"}:                       func() metav1.Object { return &corev1.Endpoints{} }, //nolint:staticcheck // manifests still have them
	{APIVersion: "v1", Kind: "ReplicationController"}:           func() metav1.Object { return &corev1.ReplicationController{} },
	{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}:  func() metav1.Object { return &discoveryv1.EndpointSlice{} },
	{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}: func() metav1.Object { return &networkingv1.NetworkPolicy{} },
	clusterPolicyType:                                           func() metav1.Object { return &cnp.ClusterNetworkPolicy{} },
	{APIVersion: "apps/v1", Kind: "Deployment"}:                 func() metav1.Object { return &appsv1.Deployment{} },
	{APIVersion: "apps/v1", Kind: "ReplicaSet"}:                 func() metav1.Object { return &appsv1.ReplicaSet{} },
	{APIVersion: "apps/v1", Kind: "StatefulSet"}:                func() metav1.Object { return &appsv1.StatefulSet{} },
	{APIVersion: "apps/v1", Kind: "DaemonSet"}:                  func() metav1.Object { return &appsv1.DaemonSet{} },
	{APIVersion: "batch/v1", Kind: "Job"}:                       func() metav1.Object { return &batchv1.Job{} },
	{APIVersion: "batch/v1", Kind: "CronJob"}:                   func() metav1.Object { return &batchv1.CronJob{} },
}

// known finds the kind that is read whose name this is but for upper and lower case.
func known(kind string) (metav1.TypeMeta, bool) {
	for t := range kinds {
		if strings.EqualFold(t.Kind, kind) {
			return t, true
		}
	}
	return metav1.TypeMeta{}, false
}

// refusal is the error for a type that the API server does not have although its kind is one of Kubernetes' own: of an API version that was
// removed, or misspelt.
func refusal(t metav1.TypeMeta) error {
	if t.APIVersion == "" {
		return fmt.Errorf("it has no apiVersion")
	}
	group := schema.FromAPIVersionAndKind(t.APIVersion, t.Kind).Group
	if strings.HasPrefix(group, "kustomize.") {
		return fmt.Errorf("this is a kustomization and no object: give its directory, or render it first, as by `kubectl kustomize DIR | kubectl kidoban … -f -`")
	}
	want, ok := known(t.Kind)
	if !ok || want == t || strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") {
		return nil
	}
	return fmt.Errorf("the API server has no kind %q in version %q: write kind %s, apiVersion %s", t.Kind, t.APIVersion, want.Kind, want.APIVersion)
}

// otherKinds decide about connections beside those whose names end in NetworkPolicy.
var otherKinds = []string{
	"AuthorizationPolicy", "ServerAuthorization", "EgressFirewall", "SecurityGroupPolicy", "PeerAuthentication", "CiliumLocalRedirectPolicy", "TrafficTarget",
}

// isPolicyOfOthers reports whether a kind holds policies that this package does not evaluate.
func isPolicyOfOthers(t metav1.TypeMeta) bool {
	return strings.HasSuffix(t.Kind, "NetworkPolicy") || slices.Contains(otherKinds, t.Kind)
}

// isConcern reports whether objects of this kind are read, reported or refused.
func isConcern(kind string) bool {
	_, ok := known(kind)
	return ok || strings.HasSuffix(kind, "NetworkPolicy") || slices.Contains(otherKinds, kind) || kind == "Kustomization" || kind == "Component"
}
