package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of every type in this package.
var GroupVersion = schema.GroupVersion{Group: "networking.kidoban.dev", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&PolicyEndpoint{}, &PolicyEndpointList{},
		&ClusterPolicyEndpoint{}, &ClusterPolicyEndpointList{},
		&PolicyEndpointSlice{}, &PolicyEndpointSliceList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
})

// AddToScheme registers this package's types.
var AddToScheme = schemeBuilder.AddToScheme
