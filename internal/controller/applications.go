package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	kjson "sigs.k8s.io/json"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/resolver"
)

// +kubebuilder:rbac:groups=networking.k8s.aws,resources=applicationnetworkpolicies,verbs=list;watch

// applications are the ApplicationNetworkPolicies of the cluster. The controller only reads them: another controller may serve them, too.
type applications struct {
	c   *Controller
	log logr.Logger

	// Guarded by the Controller's mu. Until synced is true, no PolicyEndpoint of such a policy is deleted.
	synced   bool
	policies map[types.NamespacedName]types.UID // by resolver.KeyOf
}

// watchApplications reads ApplicationNetworkPolicies, if that is asked for.
func (c *Controller) watchApplications(mgr manager.Manager, isOn bool) error {
	c.applications = &applications{
		c: c, log: mgr.GetLogger().WithName("applicationnetworkpolicies"), policies: map[types.NamespacedName]types.UID{}, synced: !isOn,
	}
	if !isOn {
		return nil
	}
	all, err := dynamic.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	resource := schema.GroupVersionResource{Group: application.Group, Version: application.Version, Resource: application.Resource}
	return mgr.Add(&optionalKind{versions: []dynamic.ResourceInterface{all.Resource(resource)}, log: c.applications.log, objects: c.applications})
}

// replace takes in that these are all policies.
func (a *applications) replace(all []unstructured.Unstructured) {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	keys := map[types.NamespacedName]bool{}
	for i := range all {
		keys[keyOf(&all[i])] = true
		a.set(&all[i])
	}
	for _, key := range slices.Collect(maps.Keys(a.policies)) {
		if !keys[key] {
			a.remove(key)
		}
	}
	if !a.synced {
		a.synced = true
		a.c.compareApplicationEndpoints()
	}
}

func (a *applications) change(obj *unstructured.Unstructured, isGone bool) {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	if isGone {
		a.remove(keyOf(obj))
	} else {
		a.set(obj)
	}
}

func keyOf(obj *unstructured.Unstructured) types.NamespacedName {
	return resolver.KeyOf(application.Kind, obj.GetNamespace(), obj.GetName())
}

// set takes in a policy. The caller holds mu.
func (a *applications) set(obj *unstructured.Unstructured) {
	p, err := readApplication(obj)
	if err != nil {
		a.log.Error(err, "Cannot read an ApplicationNetworkPolicy; its previous version stays in force", "namespace", obj.GetNamespace(), "name", obj.GetName())
		return
	}
	a.policies[keyOf(obj)] = p.UID
	a.feed(func() resolver.Changes { return a.c.resolver.Set(resolver.ApplicationPolicy(p)) })
}

// remove takes in that a policy is gone. The caller holds mu.
func (a *applications) remove(key types.NamespacedName) {
	delete(a.policies, key)
	a.feed(func() resolver.Changes { return a.c.resolver.DeletePolicy(key) })
}

func (a *applications) feed(change func() resolver.Changes) {
	a.c.feedLocked("applicationnetworkpolicy", change)
}

// mayDelete reports whether a PolicyEndpoint whose policy is not known may be deleted. The caller holds mu.
func (a *applications) mayDelete(pe *v1alpha1.PolicyEndpoint) bool {
	return a.synced || pe.Spec.PolicyRef.Kind != application.Kind
}

// readApplication reads a policy. What has a field that this version does not know may mean something else than the rest of it says: such a
// direction allows nothing, and the policy isolates the pods of its selector.
func readApplication(obj *unstructured.Unstructured) (*application.Policy, error) {
	content := maps.Clone(obj.Object)
	delete(content, "status")
	metadata := obj.DeepCopy()
	metadata.SetManagedFields(nil)
	content["metadata"] = metadata.Object["metadata"]
	data, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	p := &application.Policy{}
	unknown, err := kjson.UnmarshalStrict(data, p, kjson.DisallowUnknownFields)
	if err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", application.Kind, obj.GetNamespace(), obj.GetName(), err)
	}
	for _, err := range unknown {
		var field kjson.FieldError
		if !errors.As(err, &field) {
			return nil, fmt.Errorf("read %s %s/%s: %w", application.Kind, obj.GetNamespace(), obj.GetName(), err)
		}
		closeApplicationAt(&p.Spec, field.FieldPath())
	}
	return p, nil
}

// nothing is a peer that matches nothing, and is reported.
var nothing = networkingv1.NetworkPolicyPeer{}

// closeApplicationAt makes the direction that has an unknown field allow nothing.
func closeApplicationAt(spec *application.Spec, path string) {
	if !strings.HasPrefix(path, "spec.") {
		return
	}
	isEgress, isIngress := strings.HasPrefix(path, "spec.egress"), strings.HasPrefix(path, "spec.ingress")
	for i := range spec.Ingress {
		if !isEgress {
			spec.Ingress[i].From = []networkingv1.NetworkPolicyPeer{nothing}
		}
	}
	for i := range spec.Egress {
		if !isIngress {
			spec.Egress[i].To = []application.Peer{{NetworkPolicyPeer: nothing}}
		}
	}
}

// compareApplicationEndpoints enqueues the PolicyEndpoints of such policies to be compared. The caller holds mu.
func (c *Controller) compareApplicationEndpoints() {
	if !c.resolver.Started() {
		return // the start enqueues them
	}
	var list v1alpha1.PolicyEndpointList
	if err := c.client.List(context.Background(), &list, client.MatchingLabels{v1alpha1.LabelPolicyKind: application.Kind}); err != nil { // from the cache
		c.applications.log.Error(err, "Cannot list PolicyEndpoints")
	}
	for i := range list.Items {
		c.queue.Add(request{kind: endpoint, name: client.ObjectKeyFromObject(&list.Items[i])})
	}
}
