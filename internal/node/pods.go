package node

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/workload"
)

// pod is a pod of this node that has addresses of its own.
type pod struct {
	uid       types.UID
	created   time.Time
	labels    labels.Set
	addresses []netip.Addr
	sandboxed []netip.Addr // of these, those that the container runtime reports
	ports     []policy.NamedPort
	workload  *agentapi.Workload
	endpoints []*endpoint // that select it, as the compiler last received it
	seen      time.Time   // first, with an address
	revision  Revision    // at which the compiler last received it
	applied   Revision    // which of these the kernel's maps hold
}

// SetPod takes in a pod's object.
func (n *Node) SetPod(now time.Time, obj *corev1.Pod) {
	n.begin(now)
	n.setPod(obj)
}

func (n *Node) setPod(obj *corev1.Pod) {
	key := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
	if n.isReplaced(key, obj.UID) {
		return
	}
	if obj.Spec.HostNetwork || obj.Status.Phase == corev1.PodSucceeded || obj.Status.Phase == corev1.PodFailed {
		n.forgetPod(key)
		return
	}
	n.arrive(key, obj)
	p := &pod{
		uid:       obj.UID,
		created:   obj.CreationTimestamp.Time,
		labels:    obj.Labels,
		addresses: policy.PodAddresses(obj),
		sandboxed: n.sandboxes[key].allAddresses(),
		ports:     policy.ContainerPorts(obj),
		seen:      n.now,
	}
	if obj != n.sandboxes[key].standIn { // whose owner is not known
		w := workload.Of(obj)
		p.workload = &agentapi.Workload{Kind: w.Kind, Name: w.Name}
	}
	for _, addr := range p.sandboxed {
		if !slices.Contains(p.addresses, addr) {
			p.addresses = append(p.addresses, addr)
		}
	}
	old := n.pods[key]
	if len(p.addresses) == 0 && old == nil {
		return // it has none yet
	}
	if old != nil && old.equal(p) {
		return
	}
	if old == nil {
		n.unapplied.pods[key] = true
	} else {
		p.seen, p.revision, p.applied = old.seen, old.revision, old.applied
	}
	n.pods[key] = p
	n.claim(key, old, p)
	n.compilePod(key, p)
}

func (p *pod) equal(q *pod) bool {
	return p.uid == q.uid && labels.Equals(p.labels, q.labels) && slices.Equal(p.addresses, q.addresses) && slices.Equal(p.sandboxed, q.sandboxed) &&
		slices.Equal(p.ports, q.ports) && sameWorkload(p.workload, q.workload)
}

func sameWorkload(a, b *agentapi.Workload) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// DeletePod takes in that the API server has deleted a pod. A pod that was deleted by force, or whose mirror was deleted, may still run: its
// policies stay in force until its sandbox stops, if the container runtime reports that.
func (n *Node) DeletePod(now time.Time, obj *corev1.Pod) {
	n.begin(now)
	key := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
	if n.isReplaced(key, obj.UID) {
		return
	}
	if sb, ok := n.sandboxes[key]; ok && n.runtime {
		sb.standIn = n.lastSeen(key)
		n.sandboxes[key] = sb
		return
	}
	n.forgetPod(key)
}

func (n *Node) forgetPod(key types.NamespacedName) {
	n.leave(key)
	delete(n.sandboxes, key)
	old := n.pods[key]
	if old == nil {
		return
	}
	delete(n.pods, key)
	delete(n.unapplied.pods, key)
	n.claim(key, old, nil)
	for _, ns := range slices.Clone(n.owned[key]) {
		n.setOwner(ns, owner{})
	}
	n.depart(key, old)
	n.compiler.DeletePod(key.String())
	n.deleteOwn(key)
}

// compilePod gives the compiler a pod with its addresses and policies, once its namespace is synced.
func (n *Node) compilePod(key types.NamespacedName, p *pod) {
	if !n.synced(key.Namespace) {
		return
	}
	p.endpoints = n.endpointsOf(key, p)
	at := n.locate(key)
	spec := compiler.PodSpec{Interfaces: at.interfaces}
	spec.Policies, spec.AuditPolicies = n.policiesOf(key, p, p.endpoints)
	if n.audits(key.Namespace) {
		spec.Flags |= compiler.Audit
	}
	for _, addr := range p.addresses {
		if n.owner(addr) == key {
			spec.Addresses = append(spec.Addresses, addr)
		}
	}
	spec.Addresses = append(spec.Addresses, at.unlisted...)
	n.compiler.SetPod(key.String(), spec)
	n.compileOwn(key, p, spec)
	p.revision = n.revision
	if _, ok := n.unapplied.pods[key]; !ok {
		n.unapplied.pods[key] = false // until Applied
	}
}

// endpointsOf returns the endpoints of which a version is active that selects a pod.
func (n *Node) endpointsOf(key types.NamespacedName, p *pod) []*endpoint {
	var out []*endpoint
	for _, namespace := range [...]string{key.Namespace, clusterWide} {
		for _, e := range n.byNamespace[namespace] {
			if e.active != nil && n.selects(e.active, key, p.labels) {
				out = append(out, e)
			}
		}
	}
	return out
}

// policiesOf returns the policies of the endpoints that select a pod, and those that the mode or the end of its namespace adds, in the order of
// evaluation. If some of the policies are audited, audit contains those that would be in force if these were enforced; else it is empty.
func (n *Node) policiesOf(key types.NamespacedName, p *pod, selecting []*endpoint) (enforced, audit []*policy.Policy) {
	var all []*policy.Policy
	ns := n.namespaces[key.Namespace]
	bereft := ns != nil && ns.bereft
	for _, e := range selecting {
		selected := e.active.policy
		if e.active.namespaces != nil && (bereft || n.opts.Mode == Strict) {
			selected = e.active.strict
		}
		all = append(all, selected.ForPod(p.ports))
	}
	enforced = policy.Enforced(all)
	if len(enforced) < len(all) {
		audit = n.withDefaults(bereft, all)
	}
	return n.withDefaults(bereft, enforced), audit
}

// withDefaults adds what the mode and the end of a pod's namespace add to its policies, and returns all in the order of evaluation.
func (n *Node) withDefaults(bereft bool, policies []*policy.Policy) []*policy.Policy {
	if bereft {
		policies = isolateRest(policies, terminating)
	}
	policies = n.opts.Mode.withDefaults(policies)
	slices.SortFunc(policies, policy.Compare)
	return policies
}
