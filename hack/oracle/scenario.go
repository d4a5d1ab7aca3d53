package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Scenario is how a cluster came about.
type Scenario struct {
	Events []Event `json:"events"`
}

// Event is one thing that happens. Where it has an object, that object is set or deleted; else Do says what happens to kidoban.
type Event struct {
	Do            Action                      `json:"do"`
	Namespace     *corev1.Namespace           `json:"namespace,omitempty"`
	Pod           *corev1.Pod                 `json:"pod,omitempty"`
	Policy        *networkingv1.NetworkPolicy `json:"policy,omitempty"`
	Node          *corev1.Node                `json:"node,omitempty"`
	ClusterPolicy *cnp.ClusterNetworkPolicy   `json:"clusterPolicy,omitempty"`
	// Slice and Endpoint are written by another client than the controller; see dice.foreign.
	Slice    *v1alpha1.PolicyEndpointSlice `json:"slice,omitempty"`
	Endpoint *v1alpha1.PolicyEndpoint      `json:"endpoint,omitempty"`
	// Pick chooses the agent, and what of it, where an event happens to one.
	Pick uint64 `json:"pick,omitempty"`
}

// Action is what an event does.
type Action string

// The actions.
const (
	Set    Action = "set"
	Delete Action = "delete"
	// Stop ends the controller: what it wrote stays, and it does not see what happens until it starts again.
	Stop Action = "stop"
	// Start starts the controller. The first time it gets what was set before one by one, later as it is then.
	Start Action = "start"
	// Sync lets the agents receive all that is on its way.
	Sync Action = "sync"
	// Deliver lets an agent receive the next event of one of its watches.
	Deliver Action = "deliver"
	// Relist sends all PolicyEndpoints and slices of a namespace to an agent again.
	Relist Action = "relist"
	// Restart ends an agent and starts another in its place.
	Restart Action = "restart"
	// Late lets the time pass in which an agent waits for the groups of new policies.
	Late Action = "late"
	// RunSandbox lets the container runtime report a new sandbox of a pod, which the API server may not have sent yet.
	RunSandbox Action = "runSandbox"
)

// key names the object that an event is about; empty for the others.
func (e *Event) key() string {
	switch {
	case e.Namespace != nil:
		return "namespace " + e.Namespace.Name
	case e.Pod != nil:
		return "pod " + e.Pod.Namespace + "/" + e.Pod.Name
	case e.Policy != nil:
		return "policy " + e.Policy.Namespace + "/" + e.Policy.Name
	case e.Node != nil:
		return "node " + e.Node.Name
	case e.ClusterPolicy != nil:
		return "cluster policy " + e.ClusterPolicy.Name
	case e.Slice != nil:
		return "slice " + e.Slice.Namespace + "/" + e.Slice.Name
	case e.Endpoint != nil:
		return "endpoint " + e.Endpoint.Namespace + "/" + e.Endpoint.Name
	}
	return ""
}

func (e *Event) String() string { return fmt.Sprint(e.Do, " ", e.key()) }

// objects are what is in the API at one moment. They are not changed once they are in.
type objects struct {
	namespaces      map[string]*corev1.Namespace
	pods            map[types.NamespacedName]*corev1.Pod
	policies        map[types.NamespacedName]*networkingv1.NetworkPolicy
	nodes           map[string]*corev1.Node
	clusterPolicies map[string]*cnp.ClusterNetworkPolicy
}

func newObjects() *objects {
	return &objects{
		namespaces: map[string]*corev1.Namespace{},
		pods:       map[types.NamespacedName]*corev1.Pod{},
		policies:   map[types.NamespacedName]*networkingv1.NetworkPolicy{},
		nodes:      map[string]*corev1.Node{}, clusterPolicies: map[string]*cnp.ClusterNetworkPolicy{},
	}
}

func (o *objects) apply(e *Event) {
	switch {
	case e.Namespace != nil:
		put(o.namespaces, e.Namespace.Name, e.Namespace, e.Do)
	case e.Pod != nil && e.Do != RunSandbox:
		put(o.pods, types.NamespacedName{Namespace: e.Pod.Namespace, Name: e.Pod.Name}, e.Pod, e.Do)
	case e.Policy != nil:
		put(o.policies, types.NamespacedName{Namespace: e.Policy.Namespace, Name: e.Policy.Name}, e.Policy, e.Do)
	case e.Node != nil:
		put(o.nodes, e.Node.Name, e.Node, e.Do)
	case e.ClusterPolicy != nil:
		put(o.clusterPolicies, e.ClusterPolicy.Name, e.ClusterPolicy, e.Do)
	}
}

func put[K comparable, V any](m map[K]V, key K, value V, do Action) {
	if do == Delete {
		delete(m, key)
	} else {
		m[key] = value
	}
}

// events set all the objects, sorted by kind and name.
func (o *objects) events() []Event {
	var out []Event
	for _, name := range slices.Sorted(maps.Keys(o.namespaces)) {
		out = append(out, Event{Do: Set, Namespace: o.namespaces[name]})
	}
	for _, key := range sortedNames(o.pods) {
		out = append(out, Event{Do: Set, Pod: o.pods[key]})
	}
	for _, key := range sortedNames(o.policies) {
		out = append(out, Event{Do: Set, Policy: o.policies[key]})
	}
	for _, name := range slices.Sorted(maps.Keys(o.nodes)) {
		out = append(out, Event{Do: Set, Node: o.nodes[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(o.clusterPolicies)) {
		out = append(out, Event{Do: Set, ClusterPolicy: o.clusterPolicies[name]})
	}
	return out
}

// cluster is what the judges are asked about.
func (o *objects) cluster() *reference.Cluster {
	c := &reference.Cluster{}
	for _, e := range o.events() {
		switch {
		case e.Namespace != nil:
			c.Namespaces = append(c.Namespaces, *e.Namespace)
		case e.Pod != nil:
			c.Pods = append(c.Pods, *e.Pod)
		case e.Policy != nil:
			c.Policies = append(c.Policies, *e.Policy)
		case e.Node != nil:
			c.Nodes = append(c.Nodes, *e.Node)
		case e.ClusterPolicy != nil:
			c.ClusterPolicies = append(c.ClusterPolicies, *e.ClusterPolicy)
		}
	}
	return c
}

// Cluster is what there is after the last event.
func (s *Scenario) Cluster() *reference.Cluster {
	o := newObjects()
	for i := range s.Events {
		o.apply(&s.Events[i])
	}
	return o.cluster()
}

func sortedNames[V any](m map[types.NamespacedName]V) []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(m), compareNames)
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func nameOf(np *networkingv1.NetworkPolicy) types.NamespacedName {
	return types.NamespacedName{Namespace: np.Namespace, Name: np.Name}
}
