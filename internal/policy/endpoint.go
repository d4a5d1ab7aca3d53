package policy

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Endpoint is a PolicyEndpoint in as many bytes as its Policy takes. Agents keep it in place of the object.
type Endpoint struct {
	metav1.ObjectMeta
	// Selector selects the pods of the namespace. It is nil if it cannot be read.
	Selector labels.Selector
	// Policy is what to enforce for these pods. If it cannot be read it isolates them and allows nothing.
	Policy *Policy
	// Err says what cannot be read.
	Err error
}

// ReadEndpoint reads a PolicyEndpoint. For shared see FromPolicyEndpoint.
func ReadEndpoint(pe *v1alpha1.PolicyEndpoint, shared string) *Endpoint {
	e := &Endpoint{ObjectMeta: metav1.ObjectMeta{
		Namespace: pe.Namespace, Name: pe.Name, UID: pe.UID, ResourceVersion: pe.ResourceVersion, Generation: pe.Generation,
	}}
	if e.Selector, e.Err = metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector); e.Err != nil {
		e.Selector, e.Err = nil, fmt.Errorf("spec.podSelector: %w", e.Err)
		return e
	}
	if e.Policy, e.Err = FromPolicyEndpoint(pe, shared); e.Err != nil {
		e.Policy = FailClosed(pe)
	}
	return e
}
