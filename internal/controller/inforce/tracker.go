// Package inforce computes on how many nodes each policy is in force: the nodes with pods that it selects, from the
// pods, and the nodes where it is in force, from the agents' reports. It is pure: no client, no clock.
package inforce

import (
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
type Tracker struct {
	namespaces map[string]*namespace
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
	return &Tracker{namespaces: map[string]*namespace{}, reports: map[string]map[types.NamespacedName]Report{}, partial: map[string]map[types.NamespacedName]Report{}, uses: newUses()}
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
	for name, p := range ns.policies {
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
			changed = append(changed, types.NamespacedName{Namespace: key.Namespace, Name: name})
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

// SetPolicy records a version of a policy's object, and reports whether it is another one.
func (t *Tracker) SetPolicy(key types.NamespacedName, uid types.UID, generation int64, selector labels.Selector, now time.Time) bool {
	ns := t.namespace(key.Namespace)
	old := ns.policies[key.Name]
	if old != nil && old.uid == uid && old.generation == generation {
		return false
	}
	p := &tracked{selector: selector, uid: uid, generation: generation, since: now, nodes: map[string]int{}}
	for _, pod := range ns.pods {
		if selector.Matches(labels.Set(pod.labels)) {
			p.nodes[pod.node]++
		}
	}
	ns.policies[key.Name] = p
	return true
}

// Policies returns all policies.
func (t *Tracker) Policies() (out []types.NamespacedName) {
	for namespace, ns := range t.namespaces {
		for name := range ns.policies {
			out = append(out, types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	return out
}

// DeletePolicy forgets a policy.
func (t *Tracker) DeletePolicy(key types.NamespacedName) {
	t.SetGroups(key, nil)
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
	for namespace, ns := range t.namespaces {
		for name, p := range ns.policies {
			if p.nodes[node] > 0 {
				concerned = append(concerned, types.NamespacedName{Namespace: namespace, Name: name})
			}
		}
	}
	return concerned
}

// State returns the state of a version of a policy; false if the Tracker has another version. exists reports
// whether a node exists.
func (t *Tracker) State(key types.NamespacedName, uid types.UID, generation int64, exists func(node string) bool) (State, bool) {
	ns, ok := t.namespaces[key.Namespace]
	if !ok {
		return State{}, false
	}
	p, ok := ns.policies[key.Name]
	if !ok || p.uid != uid || p.generation != generation {
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
