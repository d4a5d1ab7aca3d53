package controller

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/inforce"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/streamserver"
)

const (
	// reportsWait is how long changes of where a policy is in force are collected before its status is written.
	reportsWait = time.Second
	// reportsGrace is how long a replica that begins to lead waits for the agents' full reports.
	reportsGrace = 10 * time.Second
	// silence is after how long without a report from any agent the controller writes that policies are in force nowhere.
	silence = time.Minute
)

// reports are what agents report about policies, and the pods that these select. Only the leader writes them to
// the status of PolicyEndpoints.
type reports struct {
	mu      sync.Mutex // guards what follows; no other lock is taken while it is held
	tracker *inforce.Tracker
	times   map[types.NamespacedName]*plan.InForceTimes
	began   time.Time // when this replica began to lead; zero: it does not
	any     bool      // an agent has reported
}

func newReports() *reports {
	return &reports{tracker: inforce.New(), times: map[types.NamespacedName]*plan.InForceTimes{}}
}

// queueStatus enqueues the status of policies whose state may have changed.
func (c *Controller) queueStatus(names []types.NamespacedName) {
	if len(names) == 0 || c.server == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resolver.Started() {
		return // the first reconciliation looks at every policy
	}
	for _, name := range names {
		c.queue.AddAfter(statusOf(name), reportsWait)
	}
}

// statusOf is the request that writes the status of a PolicyEndpoint or, without a namespace, of a ClusterPolicyEndpoint.
func statusOf(name types.NamespacedName) request {
	if name.Namespace == "" {
		return request{kind: clusterEndpoint, name: name}
	}
	return request{kind: status, name: name}
}

// trackPod records a pod for the counts of nodes. A pod counts when it has an address: a node has nothing to enforce
// for one that waits for a volume or an image, and its agent reports nothing.
func (c *Controller) trackPod(old, now **corev1.Pod) {
	p := old
	node := ""
	if now != nil {
		p = now
		if policy.IsPeer(*now) {
			node = (*now).Spec.NodeName
		}
	}
	c.reports.mu.Lock()
	changed := c.reports.tracker.SetPod(client.ObjectKeyFromObject(*p), (*p).Labels, node)
	c.reports.mu.Unlock()
	c.queueStatus(changed)
}

// trackNamespace records a namespace's labels, by which ClusterPolicyEndpoints select it.
func (c *Controller) trackNamespace(name string, now map[string]string) {
	c.reports.mu.Lock()
	changed := c.reports.tracker.SetNamespace(name, now)
	c.reports.mu.Unlock()
	c.queueStatus(changed)
}

// trackEndpoint records a version of a PolicyEndpoint.
func (c *Controller) trackEndpoint(old, now **v1alpha1.PolicyEndpoint) {
	recordAudit(nameOf(old, now), now, func(pe *v1alpha1.PolicyEndpoint) (*v1alpha1.PolicyReference, *v1alpha1.EndpointStatus) {
		return &pe.Spec.PolicyRef, &pe.Status
	})
	track(c, old, now, func(pe *v1alpha1.PolicyEndpoint, name types.NamespacedName) bool {
		c.reports.tracker.SetGroups(name, c.groupsOf(pe))
		return c.reports.tracker.SetPolicy(name, pe.UID, pe.Generation, selectorOf(&pe.Spec.PodSelector), time.Now())
	})
}

// trackClusterEndpoint records a version of a ClusterPolicyEndpoint.
func (c *Controller) trackClusterEndpoint(old, now **v1alpha1.ClusterPolicyEndpoint) {
	recordAudit(nameOf(old, now), now, func(cpe *v1alpha1.ClusterPolicyEndpoint) (*v1alpha1.PolicyReference, *v1alpha1.EndpointStatus) {
		return &cpe.Spec.PolicyRef, &cpe.Status
	})
	track(c, old, now, func(cpe *v1alpha1.ClusterPolicyEndpoint, name types.NamespacedName) bool {
		c.reports.tracker.SetGroups(name, policy.GroupKeys("", c.shared, cpe.Spec.Ingress, cpe.Spec.Egress))
		subject := &cpe.Spec.Subject
		return c.reports.tracker.SetClusterPolicy(name.Name, cpe.UID, cpe.Generation, selectorOf(&subject.NamespaceSelector),
			selectorOf(&subject.PodSelector), time.Now())
	})
}

// track calls set, which reports whether the version is a new one.
func track[T client.Object](c *Controller, old, now *T, set func(T, types.NamespacedName) bool) {
	name := nameOf(old, now)
	c.reports.mu.Lock()
	if now == nil || old != nil && (*old).GetUID() != (*now).GetUID() {
		c.reports.tracker.DeletePolicy(name)
		delete(c.reports.times, name)
	}
	isNew := now != nil && set(*now, name)
	c.reports.mu.Unlock()
	if isNew {
		c.queueStatus([]types.NamespacedName{name})
	}
}

// selectorOf reads a selector. The resolver writes valid ones only; another client's stays until it is replaced.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// countNodes makes this replica, which leads, write where policies are in force.
func (c *Controller) countNodes() {
	c.reports.mu.Lock()
	c.reports.began = time.Now()
	var all []types.NamespacedName
	if c.reports.any {
		all = c.reports.tracker.Policies()
	}
	c.reports.mu.Unlock()
	c.queueStatus(all)
}

// nodeChanged looks again at the policies of a node that appeared or disappeared.
func (c *Controller) nodeChanged(node string) {
	c.reports.mu.Lock()
	var concerned []types.NamespacedName
	if !c.known.hasNode(node) {
		concerned = c.reports.tracker.DeleteNode(node)
	}
	c.reports.mu.Unlock()
	c.queueStatus(concerned)
}

// inForce takes an agent's report.
func (a *Agents) inForce(s *streamserver.Session, m *stream.InForce) {
	r := a.c.reports
	r.mu.Lock()
	var concerned []types.NamespacedName
	if !r.any {
		r.any = true
		concerned = r.tracker.Policies()
	}
	if m.GetFull() {
		r.tracker.BeginFull(s.Node)
	}
	for _, p := range m.GetPolicies() {
		if !isReport(p) {
			continue
		}
		name := types.NamespacedName{Namespace: p.GetNamespace(), Name: p.GetName()}
		r.tracker.Report(s.Node, name, inforce.Report{UID: types.UID(p.GetUid()), Generation: p.GetGeneration(), Reason: p.GetReason()}, p.GetGone())
		concerned = append(concerned, name)
	}
	if !m.GetMore() {
		concerned = append(concerned, r.tracker.EndFull(s.Node)...)
	}
	r.mu.Unlock()
	a.c.queueStatus(concerned)
}

// setInForce sets the condition InForce of a PolicyEndpoint or a ClusterPolicyEndpoint and reports whether that changed its status. Without
// a stream the controller leaves it as it is, and also until an agent has reported or for as long as silence.
func (c *Controller) setInForce(pe client.Object, endpoint *v1alpha1.EndpointStatus, now time.Time) (changed bool, note string) {
	r := c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	name := client.ObjectKeyFromObject(pe)
	if c.server == nil || r.began.IsZero() {
		return false, ""
	}
	if wait := silence - now.Sub(r.began); wait > 0 && !r.any {
		c.queue.AddAfter(statusOf(name), wait)
		return false, ""
	}
	state, ok := r.tracker.State(name, pe.GetUID(), pe.GetGeneration(), c.known.hasNode)
	if !ok {
		return false, "" // the watch of the newer version enqueues it
	}
	if wait := reportsGrace - now.Sub(r.began); wait > 0 && state.InForce < state.Total && endpoint.ObservedGeneration == pe.GetGeneration() && endpoint.Nodes != nil {
		c.queue.AddAfter(statusOf(name), wait)
		return false, ""
	}
	times, ok := r.times[name]
	if !ok {
		times = &plan.InForceTimes{}
		r.times[name] = times
	}
	changed, again, note := plan.SetInForce(endpoint, pe.GetGeneration(), state, times, now)
	if again > 0 {
		c.queue.AddAfter(statusOf(name), again)
	}
	return changed, note
}

// noteLate writes an Event on a policy that takes long until it is in force; no text: none.
func (c *Controller) noteLate(ctx context.Context, want *resolver.Endpoint, text string) error {
	if text == "" {
		return nil
	}
	if want.Spec.PolicyRef.Kind == application.Kind {
		return nil // another controller's object
	}
	np := &networkingv1.NetworkPolicy{}
	if found, err := c.get(ctx, want.Policy, np); !found || np.UID != want.UID {
		return err
	}
	c.recorder.Eventf(np, nil, corev1.EventTypeWarning, v1alpha1.ReasonNotOnAllNodes, "Enforce", "%s", text)
	return nil
}
