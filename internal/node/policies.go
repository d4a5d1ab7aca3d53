package node

import (
	"fmt"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// endpoint is a PolicyEndpoint or a ClusterPolicyEndpoint: its phase, the version that the compiler has, and the one that waits for its groups.
type endpoint struct {
	phase   Phase
	active  *version          // nil unless phase.isolates()
	waiting *version          // nil unless phase.waits()
	wants   []policy.GroupKey // the groups of both
	first   time.Time         // when the first version was seen
	seen    time.Time         // when the newest was
	gone    time.Time         // when the PolicyEndpoint was deleted, while the phase is Retained
}

// version is one version of a PolicyEndpoint or a ClusterPolicyEndpoint, as it was read.
type version struct {
	selector   labels.Selector
	namespaces labels.Selector // of a ClusterPolicyEndpoint
	policy     *policy.Policy
	strict     *policy.Policy // of a ClusterPolicyEndpoint, for pods that are denied what no policy decides about
	groups     []policy.GroupKey
	object     *metav1.ObjectMeta
	seen       time.Time
	revision   Revision  // at which the compiler received it
	inForce    time.Time // zero: the kernel does not have it yet
}

// How long a PolicyEndpoint of which no version is in force waits for its groups. The controller writes thousands of slices in that time.
// An agent that starts delays its pods' other policies for StartPatience, while an earlier agent's maps are in force.
const (
	GroupPatience = time.Minute
	StartPatience = 10 * time.Second
)

// DeletionPatience is how long the last version of a deleted PolicyEndpoint stays in force at least, so that the deletion of its namespace may
// be seen first: both come by different watches.
const DeletionPatience = 500 * time.Millisecond

// SetPolicyEndpoint takes in a PolicyEndpoint. On an error the version that is in force stays in force; if there is none, the policy isolates
// its pods and allows nothing.
func (n *Node) SetPolicyEndpoint(now time.Time, e *policy.Endpoint) error {
	n.begin(now)
	key := types.NamespacedName{Namespace: e.Namespace, Name: e.Name}
	if e.Selector == nil {
		return n.setVersion(key, nil, e.Err)
	}
	return n.setVersion(key, &version{selector: e.Selector, policy: e.Policy, groups: e.Policy.Groups(), object: &e.ObjectMeta}, e.Err)
}

// setVersion takes in a version; on an error it is the one to enforce if there is no other, or nil.
func (n *Node) setVersion(key types.NamespacedName, v *version, err error) error {
	if err == nil && v.policy.HasNames() && !n.opts.DomainNames {
		err = fmt.Errorf("domainNames: this agent does not enforce domain names, and the policy allows nothing by name: start it with --domain-names")
	}
	if err != nil {
		if v != nil {
			n.endAudit(key, v)
			n.move(key, unreadable, v)
		}
		return err
	}
	if e := n.policies[key]; e != nil && e.phase == InForce && e.active.sameAs(v) {
		return nil
	}
	n.want(v.groups) // before the groups of the versions that it replaces are released
	defer n.release(v.groups)
	if n.complete(v) {
		n.move(key, complete, v)
	} else {
		n.endAudit(key, v)
		n.move(key, incomplete, v)
	}
	return nil
}

// endAudit removes an audited version that must not stay in force while the next one, which is enforced, waits or is closed. The next one then
// isolates its pods as soon as that of a new policy would.
func (n *Node) endAudit(key types.NamespacedName, next *version) {
	if e := n.policies[key]; e != nil && e.active != nil && e.active.policy.Audited && !next.policy.Audited {
		n.move(key, removed, nil)
	}
}

// sameAs reports whether nothing differs that was read. A generation comes twice where etcd was restored.
func (v *version) sameAs(w *version) bool {
	return v.object.UID == w.object.UID && v.object.Generation == w.object.Generation &&
		reflect.DeepEqual(v.selector, w.selector) && reflect.DeepEqual(v.namespaces, w.namespaces) &&
		reflect.DeepEqual(v.policy, w.policy) && reflect.DeepEqual(v.strict, w.strict)
}

// again returns the version as if it had just been read.
func (v *version) again() *version {
	out := *v
	out.seen, out.revision, out.inForce = time.Time{}, 0, time.Time{}
	return &out
}

// selects reports whether a version selects a pod with these labels.
func (n *Node) selects(v *version, key types.NamespacedName, podLabels labels.Set) bool {
	if v.namespaces == nil {
		return key.Namespace == v.object.Namespace && v.selector.Matches(podLabels)
	}
	ns := n.namespaces[key.Namespace]
	return ns != nil && v.namespaces.Matches(ns.labels) && v.selector.Matches(podLabels)
}

// DeletePolicyEndpoint takes in that a PolicyEndpoint is gone. The version that was in force goes with RemoveDeleted.
func (n *Node) DeletePolicyEndpoint(now time.Time, key types.NamespacedName) {
	n.begin(now)
	switch e := n.policies[key]; {
	case e == nil:
	case !n.terminates(key.Namespace):
		n.move(key, deleted, nil)
	case e.phase == Waiting:
		n.move(key, orphaned, e.waiting.again())
	default:
		n.move(key, orphaned, nil)
	}
}

// Deleted returns the deleted PolicyEndpoints whose versions were retained for DeletionPatience, with their policies, except those in
// terminating namespaces.
func (n *Node) Deleted(now time.Time) map[types.NamespacedName]policy.ID {
	out := map[types.NamespacedName]policy.ID{}
	for key, e := range n.policies {
		if e.phase == Retained && !n.terminates(key.Namespace) && now.Sub(e.gone) >= DeletionPatience {
			out[key] = e.active.policy.ID
		}
	}
	return out
}

// RemoveDeleted removes the version of one that Deleted returned, unless the PolicyEndpoint came back.
func (n *Node) RemoveDeleted(now time.Time, key types.NamespacedName) {
	if e := n.policies[key]; e != nil && e.phase == Retained && !n.terminates(key.Namespace) {
		n.begin(now)
		n.move(key, removed, nil)
	}
}

// move makes the transition of a PolicyEndpoint for an event. v is the version that arrived or that waited; for unreadable, the one that
// isolates in its place.
func (n *Node) move(key types.NamespacedName, ev event, v *version) {
	e := n.policies[key]
	if e == nil {
		e = &endpoint{first: n.now}
		n.addEndpoint(key, e)
	}
	before := e.phase
	e.phase = transitions[before][ev]
	switch ev {
	case incomplete:
		e.waiting, e.seen = v, n.now
	case complete:
		v.seen = n.now
		if e.waiting == v {
			v = v.again()
			v.seen = e.seen
		}
		n.unapplied.versions = append(n.unapplied.versions, v)
		n.replace(e, v)
		e.waiting = nil
	case unreadable, late:
		if e.phase != before {
			n.isolate(e, v)
		}
	case deleted, orphaned, removed:
		e.waiting = nil
		switch {
		case e.phase == Unknown:
			n.removeEndpoint(key)
			n.replace(e, nil)
		case before == Waiting:
			n.isolate(e, v)
			fallthrough
		case before != Retained:
			e.gone = n.now
		}
	case events:
	}
	n.updateWants(e)
	if e.phase.waits() {
		n.waiting[key] = struct{}{}
	} else {
		delete(n.waiting, key)
	}
}

// isolate puts a version in force whose groups may not be complete: it allows the addresses that are known so far.
func (n *Node) isolate(e *endpoint, v *version) {
	n.replace(e, v)
	for _, g := range v.groups {
		if n.groups[g] != nil {
			n.updateGroup(g, n.groups[g])
		}
	}
}

// updateWants counts the references to groups from the versions of a PolicyEndpoint that it now has.
func (n *Node) updateWants(e *endpoint) {
	before := e.wants
	e.wants = nil
	if e.active != nil {
		e.wants = append(e.wants, e.active.groups...)
	}
	if e.waiting != nil {
		e.wants = append(e.wants, e.waiting.groups...)
	}
	n.want(e.wants)
	n.release(before)
}

func (n *Node) addEndpoint(key types.NamespacedName, e *endpoint) {
	n.policies[key] = e
	if n.byNamespace[key.Namespace] == nil {
		n.byNamespace[key.Namespace] = map[types.NamespacedName]*endpoint{}
	}
	n.byNamespace[key.Namespace][key] = e
}

func (n *Node) removeEndpoint(key types.NamespacedName) {
	delete(n.policies, key)
	if delete(n.byNamespace[key.Namespace], key); len(n.byNamespace[key.Namespace]) == 0 {
		delete(n.byNamespace, key.Namespace)
	}
}

func (n *Node) complete(v *version) bool {
	for _, g := range v.groups {
		if n.groups[g] == nil || !n.groups[g].completed {
			return false
		}
	}
	return true
}

// activate puts the waiting version of a PolicyEndpoint in force if its groups are complete.
func (n *Node) activate(key types.NamespacedName) {
	if v := n.policies[key].waiting; n.complete(v) {
		n.move(key, complete, v)
	}
}

// IsolateLate isolates the pods of PolicyEndpoints of which no version is in force and whose groups have not arrived for so long. They allow
// the addresses that are known so far, and wait for the rest. Audited ones only wait. It returns the PolicyEndpoints.
func (n *Node) IsolateLate(now time.Time, patience time.Duration) (isolated []types.NamespacedName) {
	for key := range n.waiting {
		e := n.policies[key]
		if transitions[e.phase][late] == e.phase || now.Sub(e.first) < patience || e.waiting.policy.Audited {
			continue
		}
		if len(isolated) == 0 {
			n.begin(now)
		}
		isolated = append(isolated, key)
		n.move(key, late, e.waiting.again())
	}
	return isolated
}

// AwaitsGroups reports whether a PolicyEndpoint that selects a pod of this node, and of which no version is in force, may wait longer for its
// groups.
func (n *Node) AwaitsGroups(now time.Time, patience time.Duration) bool {
	for key := range n.waiting {
		e := n.policies[key]
		if e.phase != Waiting || now.Sub(e.first) >= patience || e.waiting.policy.Audited {
			continue
		}
		for podKey, p := range n.pods {
			if n.selects(e.waiting, podKey, p.labels) {
				return true
			}
		}
	}
	return false
}

// replace gives the compiler another version of a PolicyEndpoint; nil for none.
func (n *Node) replace(e *endpoint, v *version) {
	old := e.active
	e.active = v
	if v != nil {
		v.revision = n.revision
		for _, g := range v.groups {
			n.groupUsers[g]++
		}
	}
	if old != nil {
		for _, g := range old.groups {
			if n.groupUsers[g]--; n.groupUsers[g] == 0 {
				delete(n.groupUsers, g)
				n.dropUnused(g)
			}
		}
	}
	for key, p := range n.pods {
		if old != nil && n.selects(old, key, p.labels) || v != nil && n.selects(v, key, p.labels) {
			n.compilePod(key, p)
		}
	}
}
