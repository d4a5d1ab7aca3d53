package oracle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// agent is one node's agent without its I/O: internal/node, and the watches that feed it. Each watch delivers its events in order; no watch
// waits for another.
type agent struct {
	name     string
	cluster  *kidoban
	node     *node.Node
	received *received
	watches  map[string][]delivery // events on their way; the key names the watch
	followed map[string]int        // by namespace: initial lists that have not arrived completely
	sent     map[types.NamespacedName]*corev1.Pod
	running  map[types.NamespacedName]node.Sandbox
	boxes    int // sandboxes so far
	steps    uint64
}

// delivery is an event of a watch. Without an object it is the end of the initial list.
type delivery struct {
	pod             *corev1.Pod
	namespace       *corev1.Namespace
	endpoint        *v1alpha1.PolicyEndpoint
	clusterEndpoint *v1alpha1.ClusterPolicyEndpoint
	slice           *v1alpha1.PolicyEndpointSlice
	listed          string // the namespace whose initial list ends here, or clusterWide
	deleted         bool
}

// clusterWatch is the watch of ClusterPolicyEndpoints, and clusterWide the namespace that they have in a list.
const (
	clusterWatch = "cluster"
	clusterWide  = ""
)

// began is when every agent starts; no time passes in a scenario except in Late.
var began = time.Unix(1_000_000, 0)

func newAgent(k *kidoban, name string) *agent {
	a := &agent{name: name, cluster: k, running: map[types.NamespacedName]node.Sandbox{}}
	a.restart()
	return a
}

// restart begins with nothing, as a new process of the agent does: it lists what there is and asks the runtime for its sandboxes.
func (a *agent) restart() {
	a.node = node.New(node.Options{SharedNamespace: sharedNamespace, ClusterPolicies: true})
	a.received = newReceived()
	a.watches, a.followed, a.sent = map[string][]delivery{}, map[string]int{}, map[types.NamespacedName]*corev1.Pod{}
	for _, key := range sortedNames(a.cluster.pods) {
		a.podChanged(a.cluster.pods[key], false)
	}
	var boxes []node.Sandbox
	for _, key := range sortedNames(a.running) {
		boxes = append(boxes, a.running[key])
	}
	a.node.SyncSandboxes(began, boxes)
	for _, s := range boxes {
		a.received.runSandbox(s)
	}
	a.listCluster()
	a.send(clusterWatch, delivery{listed: clusterWide})
	a.follow()
}

// listCluster sends all ClusterPolicyEndpoints, again where they were sent before.
func (a *agent) listCluster() {
	for _, name := range slices.Sorted(maps.Keys(a.cluster.clusterEndpoints)) {
		a.send(clusterWatch, delivery{clusterEndpoint: a.cluster.clusterEndpoints[name]})
	}
}

// follow opens watches in the namespaces that the node wants.
func (a *agent) follow() {
	for ns := range a.node.WantedNamespaces(began) {
		if a.isFollowed(ns) {
			continue
		}
		a.followed[ns] = 3
		a.list(ns)
		for _, watch := range [...]string{"namespaces", "policies", "slices"} {
			a.send(watch+" "+ns, delivery{listed: ns})
		}
	}
}

// list sends all objects of a namespace, again where they were sent before.
func (a *agent) list(ns string) {
	if obj := a.cluster.namespaces[ns]; obj != nil {
		a.send("namespaces "+ns, delivery{namespace: obj})
	}
	for _, name := range sortedNames(a.cluster.endpoints) {
		if name.Namespace == ns {
			a.send("policies "+ns, delivery{endpoint: a.cluster.endpoints[name]})
		}
	}
	for _, name := range sortedNames(a.cluster.foreign.endpoints) {
		if name.Namespace == ns {
			a.send("policies "+ns, delivery{endpoint: a.cluster.foreign.endpoints[name]})
		}
	}
	for _, name := range sortedNames(a.cluster.foreign.slices) {
		if name.Namespace == ns {
			a.send("slices "+ns, delivery{slice: a.cluster.foreign.slices[name]})
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(a.cluster.slices), compareNames) {
		if name.Namespace == ns {
			a.send("slices "+ns, delivery{slice: sliceObject(name, a.cluster.slices[name])})
		}
	}
}

func (a *agent) send(watch string, d delivery) { a.watches[watch] = append(a.watches[watch], d) }

// podChanged sends a pod's event if the pod is on this node, or was.
func (a *agent) podChanged(pod *corev1.Pod, deleted bool) {
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	before := a.sent[key]
	switch here := pod.Spec.NodeName == a.name && !deleted; {
	case here:
		a.sent[key] = pod
		a.send("pods", delivery{pod: pod})
	case before != nil:
		delete(a.sent, key)
		a.send("pods", delivery{pod: before, deleted: true})
	}
}

func (a *agent) namespaceChanged(ns *corev1.Namespace) {
	if a.isFollowed(ns.Name) {
		a.send("namespaces "+ns.Name, delivery{namespace: ns})
	}
}

func (a *agent) endpointChanged(pe *v1alpha1.PolicyEndpoint, deleted bool) {
	if a.isFollowed(pe.Namespace) {
		a.send("policies "+pe.Namespace, delivery{endpoint: pe, deleted: deleted})
	}
}

func (a *agent) sliceChanged(s *v1alpha1.PolicyEndpointSlice, deleted bool) {
	if a.isFollowed(s.Namespace) {
		a.send("slices "+s.Namespace, delivery{slice: s, deleted: deleted})
	}
}

func (a *agent) isFollowed(ns string) bool {
	_, ok := a.followed[ns]
	return ok
}

func sliceObject(name types.NamespacedName, spec v1alpha1.PolicyEndpointSliceSpec) *v1alpha1.PolicyEndpointSlice {
	return &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Spec: spec}
}

// deliver lets one event of a watch arrive; pick chooses the watch. It reports whether there was one.
func (a *agent) deliver(pick uint64) (bool, error) {
	watches := slices.Sorted(maps.Keys(a.watches))
	if len(watches) == 0 {
		return false, nil
	}
	watch := watches[pick%uint64(len(watches))]
	d := a.watches[watch][0]
	if a.watches[watch] = a.watches[watch][1:]; len(a.watches[watch]) == 0 {
		delete(a.watches, watch)
	}
	if err := a.take(d); err != nil {
		return true, err
	}
	a.follow()
	return true, a.check(watch)
}

func (a *agent) take(d delivery) error {
	switch {
	case d.pod != nil && d.deleted:
		a.node.DeletePod(began, d.pod)
		a.received.deletePod(d.pod)
	case d.pod != nil:
		a.node.SetPod(began, d.pod)
		a.received.setPod(d.pod)
	case d.namespace != nil:
		a.node.SetNamespace(began, d.namespace.Name, d.namespace.Labels, false)
		a.received.namespaceLabels[d.namespace.Name] = d.namespace.Labels
	case d.clusterEndpoint != nil && d.deleted:
		a.node.DeleteClusterPolicyEndpoint(began, d.clusterEndpoint.Name)
		a.node.RemoveDeleted(began, types.NamespacedName{Name: d.clusterEndpoint.Name})
		a.received.deletePolicy(types.NamespacedName{Name: d.clusterEndpoint.Name})
	case d.clusterEndpoint != nil:
		if err := a.node.SetClusterPolicyEndpoint(began, d.clusterEndpoint); err != nil {
			return err
		}
		return a.received.setClusterEndpoint(d.clusterEndpoint)
	case d.endpoint != nil && d.deleted:
		a.node.DeletePolicyEndpoint(began, types.NamespacedName{Namespace: d.endpoint.Namespace, Name: d.endpoint.Name})
		a.node.RemoveDeleted(began, types.NamespacedName{Namespace: d.endpoint.Namespace, Name: d.endpoint.Name})
		a.received.deletePolicy(types.NamespacedName{Namespace: d.endpoint.Namespace, Name: d.endpoint.Name})
	case d.endpoint != nil:
		if err := a.node.SetPolicyEndpoint(began, policy.ReadEndpoint(d.endpoint, sharedNamespace)); err != nil {
			return err
		}
		return a.received.setEndpoint(d.endpoint)
	case d.slice != nil && d.deleted:
		a.node.DeleteSlice(began, types.NamespacedName{Namespace: d.slice.Namespace, Name: d.slice.Name})
		a.received.deleteSlice(d.slice)
	case d.slice != nil:
		got, want := a.node.SetSlice(began, policy.ReadSlice(d.slice)), a.received.setSlice(d.slice)
		switch {
		case (got == nil) != (want == nil):
			return fmt.Errorf("slice %s/%s: the node's error is %v; by what has arrived it is %v", d.slice.Namespace, d.slice.Name, got, want)
		case !isForeign(d.slice):
			return got
		}
	case d.listed == clusterWide:
		a.node.ClusterSynced(began)
		a.received.clusterSynced = true
	default:
		if a.followed[d.listed]--; a.followed[d.listed] == 0 {
			a.node.NamespaceSynced(began, d.listed)
			a.received.synced[d.listed] = true
		}
	}
	return nil
}

// runSandbox starts a pod's sandbox, in place of the one that it has.
func (a *agent) runSandbox(pod *corev1.Pod) error {
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if err := a.stopSandbox(key); err != nil {
		return err
	}
	a.boxes++
	s := node.Sandbox{Pod: key, Labels: pod.Labels, ID: fmt.Sprint(a.boxes), Process: true, Addresses: policy.PodAddresses(pod)}
	a.running[key] = s
	a.node.RunSandbox(began, s)
	a.received.runSandbox(s)
	a.follow()
	return a.check("sandbox")
}

func (a *agent) stopSandbox(key types.NamespacedName) error {
	s, ok := a.running[key]
	if !ok {
		return nil
	}
	delete(a.running, key)
	a.node.StopSandbox(began, key, s.ID)
	a.received.stopSandbox(key)
	return a.check("sandbox")
}

// late lets the time pass in which a policy's groups should have arrived.
func (a *agent) late() error {
	a.node.IsolateLate(began, 0)
	a.received.late()
	return a.check("late groups")
}

// catchUp delivers everything, and stops the sandboxes of pods that are gone or have other addresses.
func (a *agent) catchUp() error {
	for more := true; more; {
		var err error
		if more, err = a.deliver(a.steps * 7); err != nil {
			return err
		}
	}
	for _, key := range sortedNames(a.running) {
		pod := a.cluster.pods[key]
		if pod == nil || pod.Spec.NodeName != a.name || !policy.IsPeer(pod) || !slices.Equal(policy.PodAddresses(pod), a.running[key].Addresses) {
			if err := a.stopSandbox(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// flowsPerStep are checked after each event that arrives.
const flowsPerStep = 6

// check compares the maps with the reference evaluator, asked about what has arrived so far.
func (a *agent) check(event string) error {
	a.steps++
	a.node.Commit()
	if a.steps%5 == 0 {
		a.node.Collect()
	}
	addresses := a.received.addresses()
	if len(addresses) == 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(a.steps, 1))
	for range flowsPerStep {
		d := policy.Directions[random.IntN(2)]
		f := policy.Flow{
			Source: addresses[random.IntN(len(addresses))], Destination: addresses[random.IntN(len(addresses))],
			Protocol: [...]policy.Protocol{policy.TCP, policy.TCP, policy.UDP}[random.IntN(3)],
			Port:     [...]uint16{80, 53, 443, 8080}[random.IntN(4)],
		}
		if f.Source.Is4() != f.Destination.Is4() {
			continue
		}
		want, ifEnforced := a.received.judge(d, f)
		got := a.judge(d, f, false)
		if got.agrees(want) {
			want, got = ifEnforced, a.judge(d, f, true)
		}
		if !got.agrees(want) {
			return fmt.Errorf("%s, after %d events, the last of %s: %v of %v %v → %v port %d is %v; what has arrived means %v",
				a.name, a.steps, event, d, f.Protocol, f.Source, f.Destination, f.Port, got, want)
		}
	}
	return nil
}

// judge looks a flow up in the node's maps, as it is or as it would be if audited policies were enforced.
func (a *agent) judge(d policy.Direction, f policy.Flow, ifEnforced bool) verdict {
	if v, audited := a.node.Maps().LookupAudit(d, f); ifEnforced && audited {
		return a.verdict(v, true)
	}
	return a.verdict(a.node.Maps().Lookup(d, f))
}

// judgeOwn looks a flow of a pod to this node up.
func (a *agent) judgeOwn(f policy.Flow, ifEnforced bool) verdict {
	if v, audited := a.node.Maps().LookupOwnAudit(policy.Egress, f); ifEnforced && audited {
		return a.verdict(v, true)
	}
	return a.verdict(a.node.Maps().LookupOwn(policy.Egress, f))
}

func (a *agent) verdict(v compiler.Decision, isolated bool) verdict {
	if !isolated {
		return allowedByDefault
	}
	ref, ok := a.node.Rule(v.Rule)
	switch {
	case ok:
		return decided(v.Action, v.Tier, ref.Policy.ID.Namespace, ref.Policy.ID.Name)
	case v.Action == policy.Allow:
		return allowedByDefault
	}
	return verdict{why: refused, tier: v.Tier.String()}
}

// outside are addresses of no pod that rules may be about.
var outside = [...]netip.Addr{netip.MustParseAddr("203.0.113.200"), netip.MustParseAddr("2001:db8::1")}
