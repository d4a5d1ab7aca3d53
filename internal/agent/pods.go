package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// A pod of this node that has addresses of its own.
type pod struct {
	uid       types.UID
	created   time.Time
	labels    labels.Set
	addresses []netip.Addr
	sandboxed []netip.Addr // of these, what the container runtime says
	ports     []policy.NamedPort
	workload  *agentapi.Workload
	seen      time.Time // first, with an address
}

// setPod takes in a pod as it is now.
func (s *state) setPod(obj *corev1.Pod) {
	key := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
	if s.isPast(key, obj.UID) {
		return
	}
	if obj.Spec.HostNetwork || obj.Status.Phase == corev1.PodSucceeded || obj.Status.Phase == corev1.PodFailed {
		s.deletePod(key)
		return
	}
	s.reside(key, obj)
	p := &pod{
		uid:       obj.UID,
		created:   obj.CreationTimestamp.Time,
		labels:    obj.Labels,
		addresses: policy.PodAddresses(obj),
		sandboxed: s.sandboxes[key].all(),
		ports:     policy.ContainerPorts(obj),
		workload:  workload(obj),
		seen:      time.Now(),
	}
	for _, addr := range p.sandboxed {
		if !slices.Contains(p.addresses, addr) {
			p.addresses = append(p.addresses, addr)
		}
	}
	old := s.pods[key]
	if len(p.addresses) == 0 && old == nil {
		return // it has none yet
	}
	if old != nil && old.equal(p) {
		return
	}
	if old == nil {
		s.landing.pods[key] = p
	} else {
		p.seen = old.seen
	}
	s.pods[key] = p
	s.own(key, old, p)
	s.compilePod(key, p)
}

func (p *pod) equal(q *pod) bool {
	return p.uid == q.uid && labels.Equals(p.labels, q.labels) && slices.Equal(p.addresses, q.addresses) && slices.Equal(p.sandboxed, q.sandboxed) &&
		slices.Equal(p.ports, q.ports) && sameWorkload(p.workload, q.workload)
}

// podGone takes in that the API server has a pod no more. One that was deleted by force, or whose mirror was deleted, may run on: it is
// judged as before until its sandbox stops, if somebody will say so.
func (s *state) podGone(obj *corev1.Pod) {
	key := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
	if s.isPast(key, obj.UID) {
		return
	}
	if sb, ok := s.sandboxes[key]; ok && s.runtime {
		sb.standIn = s.lastSeen(key)
		s.sandboxes[key] = sb
		return
	}
	s.deletePod(key)
}

// deletePod forgets a pod.
func (s *state) deletePod(key types.NamespacedName) {
	s.leave(key)
	delete(s.sandboxes, key)
	old := s.pods[key]
	if old == nil {
		return
	}
	delete(s.pods, key)
	delete(s.landing.pods, key)
	s.own(key, old, nil)
	s.depart(key, old)
	s.compiler.DeletePod(key.String())
}

// own notes who says that an address is theirs. Two pods may for a moment: one that is going and one that has come.
func (s *state) own(key types.NamespacedName, old, now *pod) {
	var others []types.NamespacedName
	if old != nil {
		for _, addr := range old.addresses {
			s.owners[addr] = slices.DeleteFunc(s.owners[addr], func(k types.NamespacedName) bool { return k == key })
			others = append(others, s.owners[addr]...)
			if len(s.owners[addr]) == 0 {
				delete(s.owners, addr)
			}
		}
	}
	if now != nil {
		for _, addr := range now.addresses {
			others = append(others, s.owners[addr]...)
			s.owners[addr] = append(s.owners[addr], key)
		}
	}
	for _, other := range others {
		s.compilePod(other, s.pods[other])
	}
}

// owns reports whether an address is the pod's: of those who say so, one whose sandbox has it, for a status may be of a former sandbox; then
// the youngest.
func (s *state) owns(key types.NamespacedName, addr netip.Addr) bool {
	return key == slices.MaxFunc(s.owners[addr], func(a, b types.NamespacedName) int {
		p, q := s.pods[a], s.pods[b]
		switch has := slices.Contains(p.sandboxed, addr); {
		case has == slices.Contains(q.sandboxed, addr):
			return cmp.Or(p.created.Compare(q.created), cmp.Compare(p.uid, q.uid))
		case has:
			return 1
		}
		return -1
	})
}

// compilePod tells the compiler what a pod is and which policies select it, once its namespace is known.
func (s *state) compilePod(key types.NamespacedName, p *pod) {
	ns := s.namespaces[key.Namespace]
	if ns == nil || !ns.known {
		return
	}
	spec := compiler.PodSpec{IfIndex: s.interfaceOf(p), Policies: s.policiesOf(key, p)}
	if s.audits(ns) {
		spec.Flags |= compiler.Audit
	}
	for _, addr := range p.addresses {
		if s.owns(key, addr) {
			spec.Addresses = append(spec.Addresses, addr)
		}
	}
	s.compiler.SetPod(key.String(), spec)
}

// policiesOf are the policies that select a pod, and what the mode adds, in the order of evaluation.
func (s *state) policiesOf(key types.NamespacedName, p *pod) []*policy.Policy {
	var out []*policy.Policy
	for _, e := range s.byNamespace[key.Namespace] {
		if e.active != nil && e.active.selector.Matches(p.labels) {
			out = append(out, e.active.policy.ForPod(p.ports))
		}
	}
	out = s.mode.closed(out)
	slices.SortFunc(out, policy.Compare)
	return out
}
