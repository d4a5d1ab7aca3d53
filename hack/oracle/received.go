package oracle

import (
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// received is what has arrived at one agent, and the rules that docs/architecture.md gives for what is in force then: a policy when its
// groups are complete, a group's last complete content until the next one is complete, a sandbox before a status. It is written to be read,
// computes everything anew at each question, and shares no code with internal/node.
type received struct {
	synced    map[string]bool
	pods      map[types.NamespacedName]*corev1.Pod
	standIns  map[types.NamespacedName]*corev1.Pod
	sandboxes map[types.NamespacedName][]netip.Addr
	policies  map[types.NamespacedName]*receivedPolicy
	groups    map[policy.GroupKey]*receivedGroup
}

type receivedPolicy struct{ active, waiting *v1alpha1.PolicyEndpoint }

type receivedGroup struct {
	slices   map[string]v1alpha1.PolicyEndpointSliceSpec
	complete bool // once
	members  map[netip.Prefix]bool
}

func newReceived() *received {
	return &received{
		synced: map[string]bool{}, pods: map[types.NamespacedName]*corev1.Pod{}, standIns: map[types.NamespacedName]*corev1.Pod{},
		sandboxes: map[types.NamespacedName][]netip.Addr{}, policies: map[types.NamespacedName]*receivedPolicy{},
		groups: map[policy.GroupKey]*receivedGroup{},
	}
}

func podName(p *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

func (r *received) setPod(p *corev1.Pod) {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		r.forget(podName(p))
		return
	}
	r.pods[podName(p)] = p
}

func (r *received) deletePod(p *corev1.Pod) {
	key := podName(p)
	if _, runs := r.sandboxes[key]; runs {
		r.standIns[key] = r.pods[key]
		return
	}
	r.forget(key)
}

func (r *received) forget(key types.NamespacedName) {
	delete(r.pods, key)
	delete(r.standIns, key)
	delete(r.sandboxes, key)
}

func (r *received) runSandbox(s node.Sandbox) {
	r.sandboxes[s.Pod] = s.Addresses
	if r.pods[s.Pod] == nil {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Pod.Namespace, Name: s.Pod.Name, Labels: s.Labels, CreationTimestamp: metav1.NewTime(began),
		}}
		r.pods[s.Pod], r.standIns[s.Pod] = p, p
	}
}

func (r *received) stopSandbox(key types.NamespacedName) {
	if _, runs := r.sandboxes[key]; !runs {
		return
	}
	delete(r.sandboxes, key)
	if p := r.pods[key]; p == r.standIns[key] {
		r.forget(key)
	}
	delete(r.standIns, key)
}

func (r *received) setEndpoint(pe *v1alpha1.PolicyEndpoint) error {
	if _, err := parseEndpoint(pe); err != nil {
		return err
	}
	key := types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name}
	if r.policies[key] == nil {
		r.policies[key] = &receivedPolicy{}
	}
	r.policies[key].waiting = pe
	r.updateGroups()
	return nil
}

func (r *received) deleteEndpoint(pe *v1alpha1.PolicyEndpoint) {
	delete(r.policies, types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name})
	r.updateGroups()
}

func (r *received) setSlice(s *v1alpha1.PolicyEndpointSlice) error {
	if _, err := prefixes(s.Spec.Addresses); err != nil {
		return err
	}
	key := policy.GroupKey{Namespace: s.Namespace, Name: s.Spec.Group}
	if r.groups[key] == nil {
		r.groups[key] = &receivedGroup{slices: map[string]v1alpha1.PolicyEndpointSliceSpec{}, members: map[netip.Prefix]bool{}}
	}
	r.groups[key].slices[s.Name] = s.Spec
	r.updateGroups()
	return nil
}

func (r *received) deleteSlice(s *v1alpha1.PolicyEndpointSlice) {
	if g := r.groups[policy.GroupKey{Namespace: s.Namespace, Name: s.Spec.Group}]; g != nil {
		delete(g.slices, s.Name)
	}
	r.updateGroups()
}

func (r *received) late() {
	for _, p := range r.policies {
		if p.active == nil {
			p.active = p.waiting
		}
	}
	r.updateGroups()
}

// updateGroups applies the rules for groups and policies until nothing changes any more.
func (r *received) updateGroups() {
	for key, g := range r.groups {
		count, all := g.count()
		switch {
		case all:
			g.complete = true
			g.take(count)
		case !g.complete && r.uses(key):
			g.take(math.MaxInt)
		}
	}
	for _, p := range r.policies {
		if p.waiting != nil && r.ready(p.waiting) {
			p.active, p.waiting = p.waiting, nil
		}
	}
	for key, g := range r.groups {
		if len(g.slices) == 0 && !r.uses(key) {
			delete(r.groups, key)
		}
	}
}

// take makes the slices below an index the group's content.
func (g *receivedGroup) take(count int) {
	clear(g.members)
	for _, s := range g.slices {
		if int(s.Index) < count {
			addrs, _ := prefixes(s.Addresses) // setSlice has parsed them before
			for _, a := range addrs {
				g.members[a] = true
			}
		}
	}
}

func (g *receivedGroup) count() (int, bool) {
	indexes := map[int32]bool{}
	count := int32(0)
	for _, s := range g.slices {
		indexes[s.Index] = true
		if s.Index == 0 {
			count = max(1, s.Slices)
		}
	}
	for i := range count {
		if !indexes[i] {
			return 0, false
		}
	}
	return int(count), count > 0
}

func groupsOf(pe *v1alpha1.PolicyEndpoint) (out []policy.GroupKey) {
	for _, rule := range slices.Concat(pe.Spec.Ingress, pe.Spec.Egress) {
		for _, p := range rule.Peers {
			if p.Group == nil {
				continue
			}
			key := policy.GroupKey{Namespace: pe.Namespace, Name: p.Group.Name}
			if p.Group.Shared {
				key.Namespace = sharedNamespace
			}
			out = append(out, key)
		}
	}
	return out
}

func (r *received) ready(pe *v1alpha1.PolicyEndpoint) bool {
	return !slices.ContainsFunc(groupsOf(pe), func(key policy.GroupKey) bool { return r.groups[key] == nil || !r.groups[key].complete })
}

// uses reports whether a policy that is in force refers to a group.
func (r *received) uses(key policy.GroupKey) bool {
	for _, p := range r.policies {
		if p.active != nil && slices.Contains(groupsOf(p.active), key) {
			return true
		}
	}
	return false
}

// Contains makes it a policy.Groups.
func (r *received) Contains(key policy.GroupKey, a netip.Addr) bool {
	g := r.groups[key]
	return g != nil && g.members[netip.PrefixFrom(a, a.BitLen())]
}

// addressesOf are those of a pod's status and of its sandbox.
func (r *received) addressesOf(key types.NamespacedName) []netip.Addr {
	return append(policy.PodAddresses(r.pods[key]), r.sandboxes[key]...)
}

// addresses are those of the node's pods, and some others that rules may be about.
func (r *received) addresses() []netip.Addr {
	seen := map[netip.Addr]bool{}
	for _, a := range outside {
		seen[a] = true
	}
	for key := range r.pods {
		for _, a := range r.addressesOf(key) {
			seen[a] = true
		}
	}
	for _, g := range r.groups {
		for p := range g.members {
			seen[p.Addr()] = true
		}
	}
	out := make([]netip.Addr, 0, len(seen))
	for a := range seen {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// owner is the pod that has an address: one whose sandbox has it, else the youngest.
func (r *received) owner(a netip.Addr) *corev1.Pod {
	var best *corev1.Pod
	sandboxed := false
	for key, p := range r.pods {
		if !slices.Contains(r.addressesOf(key), a) {
			continue
		}
		has := slices.Contains(r.sandboxes[key], a)
		if best == nil || has && !sandboxed || has == sandboxed && p.CreationTimestamp.After(best.CreationTimestamp.Time) {
			best, sandboxed = p, has
		}
	}
	return best
}

func (r *received) judge(d policy.Direction, f policy.Flow) verdict {
	pod := r.owner(self(d, f))
	if pod == nil || !r.synced[pod.Namespace] {
		return verdict{true, notIsolated}
	}
	var active []*endpoint
	for _, p := range r.policies {
		if p.active == nil {
			continue
		}
		if e, err := parseEndpoint(p.active); err == nil { // setEndpoint has parsed it before
			active = append(active, e)
		}
	}
	return verdictOf(reference.Evaluate(d, selecting(active, pod.Namespace, pod.Labels, policy.ContainerPorts(pod)), f, r))
}
