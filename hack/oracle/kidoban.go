package oracle

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// sliceSize is small, so that groups have several slices.
const sliceSize = 3

// kidoban is the controller and two agents, without an API server between them: the controller writes to the maps, the agents read them.
type kidoban struct {
	*objects
	resolver         *resolver.Resolver // nil while the controller is stopped
	endpoints        map[types.NamespacedName]*v1alpha1.PolicyEndpoint
	clusterEndpoints map[string]*v1alpha1.ClusterPolicyEndpoint
	slices           map[types.NamespacedName]v1alpha1.PolicyEndpointSliceSpec
	foreign          foreignObjects
	agents           map[string]*agent
}

// runKidoban lets all the events of a scenario happen, and the agents see the end.
func runKidoban(s *Scenario) (*kidoban, error) {
	k := &kidoban{
		objects:          newObjects(),
		resolver:         newResolver(),
		endpoints:        map[types.NamespacedName]*v1alpha1.PolicyEndpoint{},
		clusterEndpoints: map[string]*v1alpha1.ClusterPolicyEndpoint{},
		slices:           map[types.NamespacedName]v1alpha1.PolicyEndpointSliceSpec{},
		foreign:          foreignObjects{map[types.NamespacedName]*v1alpha1.PolicyEndpointSlice{}, map[types.NamespacedName]*v1alpha1.PolicyEndpoint{}},
	}
	k.agents = map[string]*agent{"node1": newAgent(k, "node1"), "node2": newAgent(k, "node2")}
	for i := range s.Events {
		if err := k.happen(&s.Events[i]); err != nil {
			return nil, fmt.Errorf("event %d, %v: %w", i, &s.Events[i], err)
		}
	}
	if k.resolver == nil || !k.resolver.Started() {
		k.start()
	}
	k.deleteForeign()
	return k, k.sync()
}

func newResolver() *resolver.Resolver {
	return resolver.New(resolver.Options{SharedNamespace: sharedNamespace, MaxAddresses: sliceSize})
}

func (k *kidoban) happen(e *Event) error {
	switch e.Do {
	case Stop:
		k.resolver = nil
	case Start:
		k.start()
	case Sync:
		return k.sync()
	case Deliver, Relist, Restart, Late:
		return k.happenToAgent(e)
	case RunSandbox:
		return k.agents[e.Pod.Spec.NodeName].runSandbox(e.Pod)
	case Set, Delete:
		if e.Slice != nil || e.Endpoint != nil {
			k.writeForeign(e)
			return nil
		}
		k.apply(e)
		if e.Pod != nil {
			for _, name := range k.agentNames() {
				k.agents[name].podChanged(e.Pod, e.Do == Delete)
			}
		}
		if e.Namespace != nil && e.Do == Set {
			for _, name := range k.agentNames() {
				k.agents[name].namespaceChanged(e.Namespace)
			}
		}
		if k.resolver != nil {
			k.write(feed(k.resolver, e))
		}
	}
	return nil
}

func (k *kidoban) agentNames() []string { return slices.Sorted(maps.Keys(k.agents)) }

// happenToAgent lets something happen to the agent, and to the watch, that the event's Pick chooses.
func (k *kidoban) happenToAgent(e *Event) error {
	names := k.agentNames()
	a := k.agents[names[e.Pick%uint64(len(names))]]
	pick := e.Pick / uint64(len(names))
	switch e.Do {
	case Deliver:
		_, err := a.deliver(pick)
		return err
	case Relist:
		namespaces := append(slices.Sorted(maps.Keys(a.followed)), clusterWide)
		if ns := namespaces[pick%uint64(len(namespaces))]; ns == clusterWide {
			a.listCluster()
		} else {
			a.list(ns)
		}
	case Restart:
		a.restart()
	case Late:
		return a.late()
	case Set, Delete, Stop, Start, Sync, RunSandbox: // happen to others
	}
	return nil
}

// feed tells a resolver of an event, as the controller's watches do.
func feed(r *resolver.Resolver, e *Event) resolver.Changes {
	switch {
	case e.Namespace != nil && e.Do == Set:
		return r.SetNamespace(e.Namespace.Name, e.Namespace.Labels)
	case e.Namespace != nil:
		return r.DeleteNamespace(e.Namespace.Name)
	case e.Pod != nil && e.Do == Set:
		return r.SetPod(resolver.PodOf(e.Pod))
	case e.Pod != nil:
		return r.DeletePod(types.NamespacedName{Namespace: e.Pod.Namespace, Name: e.Pod.Name})
	case e.Node != nil && e.Do == Set:
		return r.SetNode(resolver.NodeOf(e.Node))
	case e.Node != nil:
		return r.DeleteNode(e.Node.Name)
	case e.ClusterPolicy != nil && e.Do == Set:
		return r.SetClusterPolicy(e.ClusterPolicy)
	case e.ClusterPolicy != nil:
		return r.DeleteClusterPolicy(e.ClusterPolicy.Name)
	case e.Do == Set:
		return r.SetPolicy(e.Policy)
	default:
		return r.DeletePolicy(types.NamespacedName{Namespace: e.Policy.Namespace, Name: e.Policy.Name})
	}
}

// start starts the controller: with what it was fed if it was never started, else anew with what there is.
func (k *kidoban) start() {
	if k.resolver == nil || k.resolver.Started() {
		k.resolver = newResolver()
		events := k.events()
		for i := range events {
			feed(k.resolver, &events[i])
		}
	}
	existing := resolver.Existing{
		Endpoints:        map[types.NamespacedName]*v1alpha1.PolicyEndpointSpec{},
		ClusterEndpoints: map[string]*v1alpha1.ClusterPolicyEndpointSpec{},
		Slices:           map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{},
	}
	for name, pe := range k.endpoints {
		existing.Endpoints[name] = &pe.Spec
	}
	for name, cpe := range k.clusterEndpoints {
		existing.ClusterEndpoints[name] = &cpe.Spec
	}
	for name, s := range k.slices {
		existing.Slices[name] = &s
	}
	k.write(k.resolver.Start(existing))
	for name := range k.endpoints { // sweep what nothing stands for any more
		if _, ok := k.resolver.Endpoint(name); !ok {
			k.deleteEndpoint(name)
		}
	}
	for name := range k.clusterEndpoints {
		if _, ok := k.resolver.ClusterEndpoint(name); !ok {
			k.deleteClusterEndpoint(name)
		}
	}
	k.forgetUnused()
	for name := range k.slices {
		if _, ok := k.resolver.Slice(name); !ok {
			k.deleteSlice(name)
		}
	}
}

// forgetUnused forgets the groups that no object refers to any more.
func (k *kidoban) forgetUnused() {
	used := map[policy.GroupKey]bool{}
	for name, pe := range k.endpoints {
		for _, g := range policy.GroupKeys(name.Namespace, sharedNamespace, pe.Spec.Ingress, pe.Spec.Egress) {
			used[g] = true
		}
	}
	for _, cpe := range k.clusterEndpoints {
		for _, g := range policy.GroupKeys(clusterWide, sharedNamespace, cpe.Spec.Ingress, cpe.Spec.Egress) {
			used[g] = true
		}
	}
	groups := map[policy.GroupKey]bool{}
	for name, s := range k.slices {
		for _, p := range s.Groups {
			groups[groupOf(name.Namespace, p)] = true
		}
	}
	for g := range groups {
		if !used[g] {
			k.writeSlices(k.resolver.Forget(g).Slices)
		}
	}
}

func (k *kidoban) deleteEndpoint(name types.NamespacedName) {
	pe, ok := k.endpoints[name]
	if !ok {
		return
	}
	delete(k.endpoints, name)
	for _, a := range k.agents {
		a.endpointChanged(pe, true)
	}
}

func (k *kidoban) deleteClusterEndpoint(name string) {
	cpe, ok := k.clusterEndpoints[name]
	if !ok {
		return
	}
	delete(k.clusterEndpoints, name)
	for _, a := range k.agents {
		a.send(clusterWatch, delivery{clusterEndpoint: cpe, deleted: true})
	}
}

func (k *kidoban) deleteSlice(name types.NamespacedName) {
	spec, ok := k.slices[name]
	if !ok {
		return
	}
	delete(k.slices, name)
	for _, a := range k.agents {
		a.sliceChanged(sliceObject(name, spec), true)
	}
}

// writeSlices brings slices up to date, those that are deleted last.
func (k *kidoban) writeSlices(changes []resolver.SliceChange) {
	var gone []types.NamespacedName
	for _, c := range changes {
		s, ok := k.resolver.Slice(c.Name)
		if !ok {
			gone = append(gone, c.Name)
			continue
		}
		k.slices[c.Name] = s
		for _, a := range k.agents {
			a.sliceChanged(sliceObject(c.Name, s), false)
		}
	}
	for _, name := range gone {
		k.deleteSlice(name)
	}
}

// write brings the objects that the resolver named up to date, and no others.
func (k *kidoban) write(c resolver.Changes) {
	k.writeSlices(c.Slices)
	for _, name := range c.Endpoints {
		e, ok := k.resolver.Endpoint(name)
		switch {
		case !ok:
			k.deleteEndpoint(name)
		case e.Spec != nil:
			pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Spec: *e.Spec}
			k.endpoints[name] = pe
			for _, a := range k.agents {
				a.endpointChanged(pe, false)
			}
		}
	}
	for _, name := range c.ClusterEndpoints {
		e, ok := k.resolver.ClusterEndpoint(name)
		if !ok {
			k.deleteClusterEndpoint(name)
			continue
		}
		cpe := &v1alpha1.ClusterPolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *e.Spec}
		k.clusterEndpoints[name] = cpe
		for _, a := range k.agents {
			a.send(clusterWatch, delivery{clusterEndpoint: cpe})
		}
	}
	for _, g := range c.Unused { // the PolicyEndpoints that referred to them were written above
		k.writeSlices(k.resolver.Forget(g).Slices)
	}
}

func (k *kidoban) sync() error {
	for _, name := range k.agentNames() {
		if err := k.agents[name].catchUp(); err != nil {
			return err
		}
	}
	return nil
}

// leftover says how what was written differs from what a controller would write that finds the objects as they are at the end. How
// addresses are spread over slices depends on the past; nothing else does.
func (k *kidoban) leftover() string {
	fresh := newResolver()
	events := k.events()
	for i := range events {
		feed(fresh, &events[i])
	}
	fresh.Start(resolver.Existing{})
	for name, pe := range k.endpoints {
		if e, ok := fresh.Endpoint(name); !ok || e.Spec == nil || !reflect.DeepEqual(*e.Spec, pe.Spec) {
			return fmt.Sprintf("PolicyEndpoint %s depends on the past: %+v\n", name, pe.Spec)
		}
	}
	for name, cpe := range k.clusterEndpoints {
		if e, ok := fresh.ClusterEndpoint(name); !ok || !reflect.DeepEqual(*e.Spec, cpe.Spec) {
			return fmt.Sprintf("ClusterPolicyEndpoint %s depends on the past: %+v\n", name, cpe.Spec)
		}
	}
	want, got := fresh.Stats(), resolver.Stats{Policies: len(k.endpoints) + len(k.clusterEndpoints), Slices: len(k.slices)}
	groups := map[policy.GroupKey]bool{}
	for name, s := range k.slices {
		got.Addresses += len(s.Addresses)
		for _, p := range s.Groups {
			groups[groupOf(name.Namespace, p)] = true
		}
	}
	got.Groups = len(groups)
	if want.Slices = got.Slices; want != got || got != k.resolver.Stats() {
		return fmt.Sprintf("%+v, from nothing %+v, by the resolver's count %+v\n", got, want, k.resolver.Stats())
	}
	return ""
}

// problems are what the controller tells about policies at the end.
func (k *kidoban) problems() map[types.NamespacedName][]resolver.Problem {
	out := map[types.NamespacedName][]resolver.Problem{}
	for name := range k.endpoints {
		e, _ := k.resolver.Endpoint(name)
		out[e.Policy] = e.Problems
	}
	for name := range k.clusterEndpoints {
		e, _ := k.resolver.ClusterEndpoint(name)
		out[types.NamespacedName{Name: e.Policy}] = e.Problems
	}
	return out
}
