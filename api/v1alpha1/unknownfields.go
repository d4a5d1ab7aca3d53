package v1alpha1

import (
	"errors"

	kjson "sigs.k8s.io/json"
)

// UnmarshalJSON decodes a spec as Kubernetes clients do, and keeps the paths of fields that this build does not know.
// Ordinary decoding drops them silently.
func (s *PolicyEndpointSpec) UnmarshalJSON(data []byte) (err error) {
	type plain PolicyEndpointSpec // without this method
	s.UnknownFields, err = decode(data, (*plain)(s))
	return err
}

// UnmarshalJSON decodes a spec as Kubernetes clients do, and keeps the paths of fields that this build does not know.
// Ordinary decoding drops them silently.
func (s *ClusterPolicyEndpointSpec) UnmarshalJSON(data []byte) (err error) {
	type plain ClusterPolicyEndpointSpec // without this method
	s.UnknownFields, err = decode(data, (*plain)(s))
	return err
}

func decode(data []byte, into any) (unknown []string, err error) {
	found, err := kjson.UnmarshalStrict(data, into, kjson.DisallowUnknownFields)
	for _, e := range found {
		var field kjson.FieldError
		if !errors.As(e, &field) {
			return nil, e
		}
		unknown = append(unknown, field.FieldPath())
	}
	return unknown, err
}
