package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	kjson "sigs.k8s.io/json"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	beta "sigs.k8s.io/network-policy-api/apis/v1beta1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/resolver"
)

// clusterPolicies are the ClusterNetworkPolicies of the cluster, which may not have the kind.
type clusterPolicies struct {
	c        *Controller
	versions map[string]dynamic.ResourceInterface // by apiVersion
	log      logr.Logger

	// Guarded by the Controller's mu. Until synced is true, no ClusterPolicyEndpoint is deleted.
	synced   bool
	policies map[string]*cnp.ClusterNetworkPolicy
}

func (c *Controller) watchClusterPolicies(mgr manager.Manager) error {
	client, err := dynamic.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	c.cluster = &clusterPolicies{
		c: c, log: mgr.GetLogger().WithName("clusternetworkpolicies"), policies: map[string]*cnp.ClusterNetworkPolicy{},
		versions: map[string]dynamic.ResourceInterface{},
	}
	kind := &optionalKind{log: c.cluster.log, objects: c.cluster}
	for _, version := range []metav1.GroupVersion{cnp.GroupVersion, beta.GroupVersion} { // an API server need not serve both
		of := client.Resource(schema.GroupVersion(version).WithResource("clusternetworkpolicies"))
		c.cluster.versions[version.String()] = of
		kind.versions = append(kind.versions, of)
	}
	return mgr.Add(kind)
}

// change takes in a change of a policy.
func (p *clusterPolicies) change(obj *unstructured.Unstructured, isGone bool) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if isGone {
		p.remove(obj.GetName())
	} else {
		p.set(obj)
	}
}

// replace takes in that these are all policies.
func (p *clusterPolicies) replace(all []unstructured.Unstructured) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	names := map[string]bool{}
	for i := range all {
		names[all[i].GetName()] = true
		p.set(&all[i])
	}
	for _, name := range slices.Collect(maps.Keys(p.policies)) {
		if !names[name] {
			p.remove(name)
		}
	}
	if !p.synced {
		p.synced = true
		p.c.compareClusterEndpoints()
	}
}

// set takes in a policy. The caller holds mu.
func (p *clusterPolicies) set(obj *unstructured.Unstructured) {
	np, err := readClusterPolicy(obj)
	if err != nil {
		p.log.Error(err, "Cannot read a ClusterNetworkPolicy; its previous version stays in force", "name", obj.GetName())
		return
	}
	old := p.policies[np.Name]
	p.policies[np.Name] = np
	// A version with another spec may have the same generation: where the CRD's channel changes, fields disappear. So may one with other labels.
	if old == nil || old.UID != np.UID || old.Generation != np.Generation || !equality.Semantic.DeepEqual(old.Spec, np.Spec) ||
		old.Labels[v1alpha1.LabelEnforcement] != np.Labels[v1alpha1.LabelEnforcement] {
		p.c.feedLocked("clusternetworkpolicy", func() resolver.Changes { return p.c.resolver.SetClusterPolicy(np) })
	}
	if name, ok := p.c.resolver.ClusterEndpointName(np.Name); ok && p.c.queue != nil {
		p.c.queue.Add(request{kind: clusterEndpoint, name: types.NamespacedName{Name: name}}) // its status may differ
	}
}

// remove takes in that a policy is gone. The caller holds mu.
func (p *clusterPolicies) remove(name string) {
	delete(p.policies, name)
	p.c.feedLocked("clusternetworkpolicy", func() resolver.Changes { return p.c.resolver.DeleteClusterPolicy(name) })
}

// feedLocked gives a change to the resolver and enqueues the objects that become different. The caller holds mu. Before the
// resolver's start nothing does.
func (c *Controller) feedLocked(input string, change func() resolver.Changes) {
	c.enqueue(c.queue, c.resolve(input, change), "", time.Time{})
}

// readClusterPolicy reads a policy. What has a field that this version does not know, from a newer CRD, may mean something
// else than the rest of it says: such a rule becomes one with an unknown peer, which fails closed and is reported.
func readClusterPolicy(obj *unstructured.Unstructured) (*cnp.ClusterNetworkPolicy, error) {
	content := maps.Clone(obj.Object)
	metadata := obj.DeepCopy()
	metadata.SetManagedFields(nil)
	content["metadata"] = metadata.Object["metadata"]
	np := &cnp.ClusterNetworkPolicy{}
	unknown, err := readStrictly(content, np)
	if err == nil && unknown {
		spec, _ := content["spec"].(map[string]any)
		err = closeUnknown(&np.Spec, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("read ClusterNetworkPolicy %s: %w", obj.GetName(), err)
	}
	return np, nil
}

// readStrictly reads the content of an object, and reports whether it has fields that its type does not have.
func readStrictly(content, into any) (unknown bool, err error) {
	data, err := json.Marshal(content)
	if err != nil {
		return false, err
	}
	strict, err := kjson.UnmarshalStrict(data, into, kjson.DisallowUnknownFields)
	return len(strict) > 0, err
}

// closeUnknown makes the parts of a policy that have unknown fields such that cannot be read: a rule, the subject, or all rules. It reads each
// part alone, because the list of unknown fields that a decoder returns ends after a hundred.
func closeUnknown(spec *cnp.ClusterNetworkPolicySpec, content map[string]any) error {
	var errs []error
	has := func(content, into any) bool {
		unknown, err := readStrictly(content, into)
		errs = append(errs, err)
		return unknown
	}
	rules := func(content any) []any { list, _ := content.([]any); return list }
	for i, r := range rules(content["ingress"]) {
		if has(r, &cnp.ClusterNetworkPolicyIngressRule{}) {
			spec.Ingress[i].From = []cnp.ClusterNetworkPolicyIngressPeer{{}}
		}
	}
	for i, r := range rules(content["egress"]) {
		if has(r, &cnp.ClusterNetworkPolicyEgressRule{}) {
			spec.Egress[i].To = []cnp.ClusterNetworkPolicyEgressPeer{{}}
		}
	}
	if has(content["subject"], &cnp.ClusterNetworkPolicySubject{}) {
		spec.Subject = cnp.ClusterNetworkPolicySubject{}
	}
	rest := maps.Clone(content)
	for _, known := range []string{"ingress", "egress", "subject"} {
		delete(rest, known)
	}
	if has(rest, &cnp.ClusterNetworkPolicySpec{}) {
		for i := range spec.Ingress {
			spec.Ingress[i].From = []cnp.ClusterNetworkPolicyIngressPeer{{}}
		}
		for i := range spec.Egress {
			spec.Egress[i].To = []cnp.ClusterNetworkPolicyEgressPeer{{}}
		}
	}
	return errors.Join(errs...)
}

// compareClusterEndpoints enqueues all ClusterPolicyEndpoints to be compared. The caller holds mu.
func (c *Controller) compareClusterEndpoints() {
	if !c.resolver.Started() {
		return // the start enqueues them
	}
	var list v1alpha1.ClusterPolicyEndpointList
	if err := c.client.List(context.Background(), &list); err != nil { // from the cache, which is in sync since the start
		c.cluster.log.Error(err, "Cannot list ClusterPolicyEndpoints")
	}
	for i := range list.Items {
		c.queue.Add(request{kind: clusterEndpoint, name: types.NamespacedName{Name: list.Items[i].Name}})
	}
}
