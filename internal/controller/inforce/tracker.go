// Package inforce computes on how many nodes each policy is in force: the nodes with pods that it selects, from the
// pods, and the nodes where it is in force, from the agents' reports. It is pure: no client, no clock.
package inforce

import (
	"iter"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// maxReported is the number of policies that one node may report. A namespace of a node has far fewer.
const maxReported = 20_000

// Report is what a node reports about a policy.
type Report struct {
	UID types.UID
	// Generation is in force; 0: none. Reason is why the newest one is not; empty if it is.
	Generation int64
	Reason     string
}

// Tracker is not safe for concurrent use.
//
// The keys of policies without a namespace are ClusterPolicyEndpoints.
type Tracker struct {
	namespaces map[string]*namespace
	labels     map[string]map[string]string // of namespaces
	cluster    map[string]*tracked
	reports    map[string]map[types.NamespacedName]Report // by node
	partial    map[string]map[types.NamespacedName]Report // of full reports that have not ended
	uses       uses
}

type namespace struct {
	pods     map[string]pod
	policies map[string]*tracked
}

type pod struct {
	labels map[string]string
	node   string
}

type tracked struct {
	selector   labels.Selector
	namespaces labels.Selector // only of a ClusterPolicyEndpoint
	uid        types.UID
	generation int64
	since      time.Time
	nodes      map[string]int // the pods that the policy selects
}

// State is the state of a policy.
type State struct {
	Total, InForce int
	// Since is when the policy's generation was first seen.
	Since time.Time
	// Silent are those of the other nodes from which no agent has ever reported.
	Silent int
	// Missing is the first node, by name, where it is not in force, and Reason what the node reports about it.
	Missing, Reason string
}

// New returns an empty Tracker.
func New() *Tracker {
	return &Tracker{
		namespaces: map[string]*namespace{}, labels: map[string]map[string]string{}, cluster: map[string]*tracked{},
		reports: map[string]map[types.NamespacedName]Report{}, partial: map[string]map[types.NamespacedName]Report{}, uses: newUses(),
	}
}

func (t *Tracker) namespace(name string) *namespace {
	ns, ok := t.namespaces[name]
	if !ok {
		ns = &namespace{pods: map[string]pod{}, policies: map[string]*tracked{}}
		t.namespaces[name] = ns
	}
	return ns
}

func (t *Tracker) drop(name string) {
	if ns := t.namespaces[name]; ns != nil && len(ns.pods)+len(ns.policies) == 0 {
		delete(t.namespaces, name)
	}
}

// SetPod records a pod that policies can select: its labels, and its node; no node: there is no such pod. It
// returns the policies whose nodes change.
func (t *Tracker) SetPod(key types.NamespacedName, podLabels map[string]string, node string) (changed []types.NamespacedName) {
	ns := t.namespace(key.Namespace)
	defer t.drop(key.Namespace)
	old := ns.pods[key.Name]
	if old.node == node && (node == "" || maps.Equal(old.labels, podLabels)) {
		return nil
	}
	for name, p := range t.selecting(key.Namespace) {
		was := old.node != "" && p.selector.Matches(labels.Set(old.labels))
		is := node != "" && p.selector.Matches(labels.Set(podLabels))
		if was && is && old.node == node {
			continue
		}
		before := len(p.nodes)
		joined := false
		if is {
			p.nodes[node]++
			joined = p.nodes[node] == 1
		}
		if was {
			p.leave(old.node)
		}
		if joined || len(p.nodes) != before {
			changed = append(changed, name)
		}
	}
	if node == "" {
		delete(ns.pods, key.Name)
	} else {
		ns.pods[key.Name] = pod{podLabels, node}
	}
	return changed
}

func (p *tracked) leave(node string) {
	if p.nodes[node]--; p.nodes[node] == 0 {
		delete(p.nodes, node)
	}
}

// SetPolicy records a version of a PolicyEndpoint, and reports whether it is another one.
func (t *Tracker) SetPolicy(key types.NamespacedName, uid types.UID, generation int64, selector labels.Selector, now time.Time) bool {
	ns := t.namespace(key.Namespace)
	if ns.policies[key.Name].is(uid, generation) {
		return false
	}
	p := &tracked{selector: selector, uid: uid, generation: generation, since: now, nodes: map[string]int{}}
	p.join(ns)
	ns.policies[key.Name] = p
	return true
}

// SetClusterPolicy is SetPolicy for a ClusterPolicyEndpoint, which selects namespaces and pods in them.
func (t *Tracker) SetClusterPolicy(name string, uid types.UID, generation int64, namespaces, pods labels.Selector, now time.Time) bool {
	if t.cluster[name].is(uid, generation) {
		return false
	}
	p := &tracked{selector: pods, namespaces: namespaces, uid: uid, generation: generation, since: now, nodes: map[string]int{}}
	for name, ns := range t.namespaces {
		if namespaces.Matches(labels.Set(t.labels[name])) {
			p.join(ns)
		}
	}
	t.cluster[name] = p
	return true
}

// SetNamespace records the labels of a namespace; none: it is gone. It returns the policies whose nodes change.
func (t *Tracker) SetNamespace(name string, now map[string]string) (changed []types.NamespacedName) {
	old := t.labels[name]
	if len(now) == 0 {
		delete(t.labels, name)
	} else {
		t.labels[name] = now
	}
	ns := t.namespaces[name]
	if ns == nil || maps.Equal(old, now) {
		return nil
	}
	for policy, p := range t.cluster {
		was, is := p.namespaces.Matches(labels.Set(old)), p.namespaces.Matches(labels.Set(now))
		if was == is {
			continue
		}
		if is {
			p.join(ns)
		} else {
			for _, pod := range ns.pods {
				if p.selector.Matches(labels.Set(pod.labels)) {
					p.leave(pod.node)
				}
			}
		}
		changed = append(changed, types.NamespacedName{Name: policy})
	}
	return changed
}

func (p *tracked) is(uid types.UID, generation int64) bool {
	return p != nil && p.uid == uid && p.generation == generation
}

// join adds the pods of a namespace.
func (p *tracked) join(ns *namespace) {
	for _, pod := range ns.pods {
		if p.selector.Matches(labels.Set(pod.labels)) {
			p.nodes[pod.node]++
		}
	}
}

// selecting are the policies that may select pods of a namespace.
func (t *Tracker) selecting(namespace string) iter.Seq2[types.NamespacedName, *tracked] {
	return func(yield func(types.NamespacedName, *tracked) bool) {
		if ns := t.namespaces[namespace]; ns != nil {
			for name, p := range ns.policies {
				if !yield(types.NamespacedName{Namespace: namespace, Name: name}, p) {
					return
				}
			}
		}
		for name, p := range t.cluster {
			if p.namespaces.Matches(labels.Set(t.labels[namespace])) && !yield(types.NamespacedName{Name: name}, p) {
				return
			}
		}
	}
}

// all are all policies.
func (t *Tracker) all() iter.Seq2[types.NamespacedName, *tracked] {
	return func(yield func(types.NamespacedName, *tracked) bool) {
		for namespace, ns := range t.namespaces {
			for name, p := range ns.policies {
				if !yield(types.NamespacedName{Namespace: namespace, Name: name}, p) {
					return
				}
			}
		}
		for name, p := range t.cluster {
			if !yield(types.NamespacedName{Name: name}, p) {
				return
			}
		}
	}
}

func (t *Tracker) policy(key types.NamespacedName) *tracked {
	if key.Namespace == "" {
		return t.cluster[key.Name]
	}
	if ns := t.namespaces[key.Namespace]; ns != nil {
		return ns.policies[key.Name]
	}
	return nil
}

// Policies returns all policies.
func (t *Tracker) Policies() (out []types.NamespacedName) {
	for key := range t.all() {
		out = append(out, key)
	}
	return out
}

// DeletePolicy forgets a policy.
func (t *Tracker) DeletePolicy(key types.NamespacedName) {
	t.SetGroups(key, nil)
	if key.Namespace == "" {
		delete(t.cluster, key.Name)
		return
	}
	delete(t.namespace(key.Namespace).policies, key.Name)
	t.drop(key.Namespace)
}

// Report records a node's report about one policy; gone: the policy selects no pod there.
func (t *Tracker) Report(node string, key types.NamespacedName, r Report, gone bool) {
	into := t.reports[node]
	if t.partial[node] != nil {
		into = t.partial[node]
	}
	switch {
	case gone:
		delete(into, key)
	case into == nil:
		t.reports[node] = map[types.NamespacedName]Report{key: r}
	case len(into) < maxReported:
		into[key] = r
	}
}

// BeginFull begins a full report of a node, and EndFull ends it: it replaces what the node reported before. EndFull
// returns the policies that either of them is about.
func (t *Tracker) BeginFull(node string) { t.partial[node] = map[types.NamespacedName]Report{} }

// EndFull ends a full report.
func (t *Tracker) EndFull(node string) (concerned []types.NamespacedName) {
	next, ok := t.partial[node]
	if !ok {
		return nil
	}
	concerned = slices.Collect(maps.Keys(t.reports[node]))
	for key := range next {
		if _, had := t.reports[node][key]; !had {
			concerned = append(concerned, key)
		}
	}
	t.reports[node] = next
	delete(t.partial, node)
	return concerned
}

// Ended ends the stream of a node: a full report that did not end is dropped.
func (t *Tracker) Ended(node string) { delete(t.partial, node) }

// DeleteNode forgets a node's reports. It returns the policies that have pods there.
func (t *Tracker) DeleteNode(node string) (concerned []types.NamespacedName) {
	delete(t.reports, node)
	delete(t.partial, node)
	for key, p := range t.all() {
		if p.nodes[node] > 0 {
			concerned = append(concerned, key)
		}
	}
	return concerned
}

// State returns the state of a version of a policy; false if the Tracker has another version. exists reports
// whether a node exists.
func (t *Tracker) State(key types.NamespacedName, uid types.UID, generation int64, exists func(node string) bool) (State, bool) {
	p := t.policy(key)
	if !p.is(uid, generation) {
		return State{}, false
	}
	s := State{Since: p.since}
	for node := range p.nodes {
		if !exists(node) {
			continue
		}
		s.Total++
		all, speaks := t.reports[node]
		if !speaks {
			s.Silent++
		}
		r, reported := all[key]
		switch {
		case reported && r.UID == uid && r.Generation >= generation:
			s.InForce++
		case s.Missing == "" || node < s.Missing:
			s.Missing, s.Reason = node, ""
			if reported && r.UID == uid {
				s.Reason = r.Reason
			} else if !speaks {
				s.Reason = v1alpha1.ReasonNoAgent
			}
		}
	}
	return s, true
}
