package oracle

import (
	"fmt"
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
	synced          map[string]bool
	clusterSynced   bool // all ClusterPolicyEndpoints have arrived
	namespaceLabels map[string]map[string]string
	pods            map[types.NamespacedName]*corev1.Pod
	standIns        map[types.NamespacedName]*corev1.Pod
	sandboxes       map[types.NamespacedName][]netip.Addr
	policies        map[types.NamespacedName]*receivedPolicy
	slices          map[types.NamespacedName]receivedSlice
	groups          map[policy.GroupKey]*receivedGroup
}

type receivedPolicy struct{ active, waiting *endpoint }

// receivedSlice is what a slice has of each group.
type receivedSlice map[policy.GroupKey]receivedPart

type receivedPart struct {
	slices  []types.NamespacedName // the list of the group's slices
	members []netip.Prefix
}

// receivedGroup is what is in force of a group: the addresses by the slice that they come from.
type receivedGroup struct {
	complete bool // once
	inForce  map[types.NamespacedName][]netip.Prefix
}

func newReceived() *received {
	return &received{
		synced: map[string]bool{}, namespaceLabels: map[string]map[string]string{}, pods: map[types.NamespacedName]*corev1.Pod{}, standIns: map[types.NamespacedName]*corev1.Pod{},
		sandboxes: map[types.NamespacedName][]netip.Addr{}, policies: map[types.NamespacedName]*receivedPolicy{},
		slices: map[types.NamespacedName]receivedSlice{}, groups: map[policy.GroupKey]*receivedGroup{},
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
	e, err := parseEndpoint(pe)
	return r.setPolicy(types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name}, e, err)
}

func (r *received) setClusterEndpoint(cpe *v1alpha1.ClusterPolicyEndpoint) error {
	e, err := parseClusterEndpoint(cpe)
	return r.setPolicy(types.NamespacedName{Name: cpe.Name}, e, err)
}

func (r *received) setPolicy(key types.NamespacedName, e *endpoint, err error) error {
	if err != nil {
		return err
	}
	p := r.policies[key]
	if p == nil {
		p = &receivedPolicy{}
		r.policies[key] = p
	}
	if p.active != nil && p.active.policy.Audited && !e.policy.Audited { // enforcement does not wait behind an audited version
		p.active = nil
	}
	p.waiting = e
	r.updateGroups()
	return nil
}

func (r *received) deletePolicy(key types.NamespacedName) {
	delete(r.policies, key)
	r.updateGroups()
}

func (r *received) setSlice(s *v1alpha1.PolicyEndpointSlice) error {
	slice, err := readSlice(s.Namespace, &s.Spec)
	if err != nil {
		return err
	}
	r.slices[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = slice
	r.updateGroups()
	return nil
}

func (r *received) deleteSlice(s *v1alpha1.PolicyEndpointSlice) {
	delete(r.slices, types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
	r.updateGroups()
}

// readSlice reads a slice of a namespace: it looks up the class of each address.
func readSlice(namespace string, spec *v1alpha1.PolicyEndpointSliceSpec) (receivedSlice, error) {
	addrs, err := prefixes(spec.Addresses)
	if err != nil {
		return nil, err
	}
	var classOf [][]int32
	for _, c := range spec.Classes {
		if c.Count < 1 || !slices.IsSortedFunc(c.Groups, func(a, b int32) int { return int(a) - int(b) }) ||
			len(slices.Compact(slices.Clone(c.Groups))) < len(c.Groups) {
			return nil, fmt.Errorf("a class of %d addresses in the groups %v", c.Count, c.Groups)
		}
		for _, g := range c.Groups {
			if int(g) >= len(spec.Groups) {
				return nil, fmt.Errorf("a class of group %d of %d", g, len(spec.Groups))
			}
		}
		classOf = append(classOf, slices.Repeat([][]int32{c.Groups}, int(c.Count))...)
	}
	if len(classOf) != len(addrs) {
		return nil, fmt.Errorf("%d addresses in classes of %d", len(addrs), len(classOf))
	}
	out := receivedSlice{}
	for i, g := range spec.Groups {
		key := groupOf(namespace, g)
		if g.Namespace != "" && namespace != sharedNamespace {
			return nil, fmt.Errorf("a slice of namespace %s has group %s", namespace, key)
		}
		if len(g.Slices)+len(g.SharedSlices) > 0 && key.Namespace != namespace {
			return nil, fmt.Errorf("a slice of namespace %s lists the slices of group %s", namespace, key)
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("group %s is twice in a slice", key)
		}
		var part receivedPart
		for _, name := range g.Slices {
			part.slices = append(part.slices, types.NamespacedName{Namespace: namespace, Name: name})
		}
		for _, name := range g.SharedSlices {
			part.slices = append(part.slices, types.NamespacedName{Namespace: sharedNamespace, Name: name})
		}
		for j, a := range addrs {
			if slices.Contains(classOf[j], int32(i)) {
				part.members = append(part.members, a)
			}
		}
		out[key] = part
	}
	return out, nil
}

// groupOf is the group that a slice of a namespace has a part of.
func groupOf(namespace string, g v1alpha1.GroupPart) policy.GroupKey {
	if g.Namespace == "" {
		return policy.GroupKey{Namespace: namespace, Name: g.Name}
	}
	return policy.GroupKey{Namespace: g.Namespace, Name: g.Name}
}

func (r *received) late() {
	for _, p := range r.policies {
		if p.active == nil && !p.waiting.policy.Audited {
			p.active = p.waiting
		}
	}
	r.updateGroups()
}

// updateGroups applies the rules for groups and policies until nothing changes any more. What is in force of a group begins when a policy uses
// it or waits for it, and ends with the last of these.
func (r *received) updateGroups() {
	r.forgetGroups()
	for _, slice := range r.slices {
		for key := range slice {
			if r.groups[key] == nil && r.wants(key) {
				r.groups[key] = &receivedGroup{inForce: map[types.NamespacedName][]netip.Prefix{}}
			}
		}
	}
	for key, g := range r.groups {
		parts := r.parts(key)
		switch all := complete(parts); {
		case all:
			g.complete = true
			clear(g.inForce)
		case g.complete || !r.uses(key):
			continue
		}
		for name, part := range parts {
			g.inForce[name] = part.members
		}
	}
	for _, p := range r.policies {
		if p.waiting != nil && r.ready(p.waiting) {
			p.active, p.waiting = p.waiting, nil
		}
	}
	r.forgetGroups()
}

func (r *received) forgetGroups() {
	for key := range r.groups {
		if !r.wants(key) || len(r.parts(key)) == 0 && !r.uses(key) {
			delete(r.groups, key)
		}
	}
}

// parts are what has arrived of a group, by the slice's name.
func (r *received) parts(key policy.GroupKey) map[types.NamespacedName]receivedPart {
	out := map[types.NamespacedName]receivedPart{}
	for name, slice := range r.slices {
		if part, ok := slice[key]; ok {
			out[name] = part
		}
	}
	return out
}

// complete reports whether the parts list any slices, and all of these are among the parts.
func complete(parts map[types.NamespacedName]receivedPart) bool {
	var listed []types.NamespacedName
	for _, part := range parts {
		listed = append(listed, part.slices...)
	}
	missing := func(name types.NamespacedName) bool { _, here := parts[name]; return !here }
	return len(listed) > 0 && !slices.ContainsFunc(listed, missing)
}

func (r *received) ready(e *endpoint) bool {
	return !slices.ContainsFunc(e.groups, func(key policy.GroupKey) bool { return r.groups[key] == nil || !r.groups[key].complete })
}

// uses reports whether a policy that is in force refers to a group.
func (r *received) uses(key policy.GroupKey) bool {
	for _, p := range r.policies {
		if p.active != nil && slices.Contains(p.active.groups, key) {
			return true
		}
	}
	return false
}

// wants reports whether a policy that is in force or waits refers to a group.
func (r *received) wants(key policy.GroupKey) bool {
	for _, p := range r.policies {
		if p.waiting != nil && slices.Contains(p.waiting.groups, key) {
			return true
		}
	}
	return r.uses(key)
}

// Contains makes it a policy.Groups.
func (r *received) Contains(key policy.GroupKey, a netip.Addr) bool {
	g := r.groups[key]
	if g == nil {
		return false
	}
	for _, members := range g.inForce {
		if slices.Contains(members, netip.PrefixFrom(a, a.BitLen())) {
			return true
		}
	}
	return false
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
		for _, members := range g.inForce {
			for _, p := range members {
				seen[p.Addr()] = true
			}
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

// judge returns the verdict of the enforced policies, and the one if audited policies were enforced.
func (r *received) judge(d policy.Direction, f policy.Flow) (verdict, verdict) {
	pod := r.owner(f.Self(d))
	if pod == nil || !r.synced[pod.Namespace] || !r.clusterSynced {
		return allowedByDefault, allowedByDefault
	}
	var active []*endpoint
	for _, p := range r.policies {
		if p.active != nil {
			active = append(active, p.active)
		}
	}
	policies := selecting(active, pod.Namespace, r.namespaceLabels[pod.Namespace], pod.Labels, policy.ContainerPorts(pod))
	audit := reference.EvaluateAudit(d, policies, f, r, nil)
	return verdictOf(audit.Enforced), verdictOf(audit.All)
}
