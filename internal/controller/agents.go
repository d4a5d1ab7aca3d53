package controller

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/streamserver"
)

const (
	// announcedFor is how long an announced address is used without the pod's status.
	announcedFor = 30 * time.Second
	// unknownFor is how long an announcement waits until the watch delivers its pod.
	unknownFor = 3 * time.Second
	// maxPublishing is the number of announcements of one node that are being written; others wait in its stream.
	maxPublishing = 64
	// publishTries is how often the slices of an announcement are written, with publishPause in between. Afterwards the
	// queue goes on alone.
	publishTries = 5
	publishPause = 50 * time.Millisecond
)

// Agents takes what agents report. It implements streamserver.Handler.
//
// A replica that does not lead stores announcements in its resolver, and answers them when it leads.
type Agents struct {
	c   *Controller
	log logr.Logger
	ctx context.Context // of the manager's run

	leading  atomic.Bool                             // changes while mu is held
	mu       sync.Mutex                              // guards what follows; Controller.mu may be taken while it is held, never the reverse
	sessions map[*streamserver.Session]chan struct{} // slots for announcements that are being written
	unknown  map[onNode]announcement                 // the pod is not known yet
	waiting  map[onNode]announcement                 // that a follower has not answered

	limits        *streamserver.Limiters[string] // of announcements, by node and not by stream: a new stream does not begin anew
	confirmations *confirmations
}

// onNode is a pod that a node announces. Another node that announces the same pod does not take its place.
type onNode struct {
	node string
	uid  types.UID
}

// announcement is one that was not answered yet.
type announcement struct {
	resolver.Announcement
	session *streamserver.Session
	at      time.Time
	// accepted: the resolver uses it.
	accepted bool
	// left are the groups that the addresses left, and slices those that changed.
	left   []*stream.Group
	slices []types.NamespacedName
}

func newAgents(c *Controller, log logr.Logger) *Agents {
	return &Agents{
		c: c, log: log, ctx: context.Background(), sessions: map[*streamserver.Session]chan struct{}{},
		unknown: map[onNode]announcement{}, waiting: map[onNode]announcement{},
		limits: streamserver.NewLimiters[string](announceRate, announceBurst, 0), confirmations: newConfirmations(),
	}
}

// run ends announcements when their time comes, until the context is done.
func (a *Agents) run(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			a.expire(now)
		}
	}
}

func (a *Agents) expire(now time.Time) {
	a.limits.Forget(now, nil)
	a.c.mu.Lock()
	_, changes := a.c.resolver.Expire(now)
	a.c.enqueue(a.c.queue, changes, "", time.Time{})
	a.c.mu.Unlock()

	a.mu.Lock()
	defer a.mu.Unlock()
	for pod, n := range a.unknown {
		if now.Sub(n.at) > unknownFor {
			delete(a.unknown, pod)
			a.refuse(n.session, string(pod.uid), stream.Refused_POD_UNKNOWN)
		}
	}
	for pod, n := range a.waiting {
		if !now.Before(n.Until) {
			delete(a.waiting, pod)
		}
	}
}

// lead answers what was announced before this replica led. The resolver has started.
func (a *Agents) lead() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leading.Load() {
		return
	}
	a.leading.Store(true)
	for s := range a.sessions {
		s.Send(role(true))
	}
	for pod, n := range a.waiting {
		delete(a.waiting, pod)
		if n.accepted {
			go a.publish(n)
		} else {
			go a.announce(n) // this replica may have seen newer objects since
		}
	}
}

func role(leader bool) *stream.ControllerMessage {
	return &stream.ControllerMessage{Message: &stream.ControllerMessage_Role{Role: &stream.Role{Leader: leader}}}
}

// Connected sends an agent this replica's role.
func (a *Agents) Connected(s *streamserver.Session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[s] = make(chan struct{}, maxPublishing)
	s.Send(role(a.leading.Load()))
}

// Ended forgets a stream. What its node announced stays until it expires.
func (a *Agents) Ended(s *streamserver.Session) {
	if a.c.server.Session(s.Node) == nil { // else a newer stream has begun a full report, or will
		a.c.reports.mu.Lock()
		a.c.reports.tracker.Ended(s.Node)
		a.c.reports.mu.Unlock()
	}
	a.confirmations.ended(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, s)
	for pod, n := range a.unknown {
		if n.session == s {
			delete(a.unknown, pod)
		}
	}
}

// Received takes a message. It ignores those of newer versions.
func (a *Agents) Received(s *streamserver.Session, m *stream.AgentMessage) {
	switch {
	case m.GetSandboxAdded() != nil:
		a.added(s, m.GetSandboxAdded())
	case m.GetSandboxEnded() != nil:
		a.withdrawn(s, types.UID(m.GetSandboxEnded().GetUid()))
	case m.GetGroupsInForce() != nil:
		a.confirmations.answered(s, m.GetGroupsInForce().GetId())
	case m.GetInForce() != nil:
		a.inForce(s, m.GetInForce())
	case m.GetUnseen() != nil:
		a.unseen(s, m.GetUnseen())
	}
}

// added takes an announcement.
func (a *Agents) added(s *streamserver.Session, m *stream.SandboxAdded) {
	if !fits(m.GetUid(), m.GetNamespace(), m.GetName()) {
		a.refuse(s, "", stream.Refused_INVALID)
		return
	}
	now := time.Now()
	if !a.limits.Of(s.Node).AllowN(now, 1) {
		a.refuse(s, m.GetUid(), stream.Refused_TOO_MANY)
		return
	}
	addresses, ok := announcedAddresses(m.GetAddresses())
	if !ok || m.GetUid() == "" {
		a.refuse(s, m.GetUid(), stream.Refused_INVALID)
		return
	}
	a.announce(announcement{session: s, at: now, Announcement: resolver.Announcement{
		Pod: types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, UID: types.UID(m.GetUid()),
		Node: s.Node, Addresses: addresses, Until: now.Add(announcedFor),
	}})
}

// announce gives an announcement to the resolver.
func (a *Agents) announce(n announcement) {
	a.mu.Lock()
	slots, connected := a.sessions[n.session]
	if !connected {
		a.mu.Unlock()
		return
	}
	// mu is held meanwhile, so that the pod's event comes before, or finds the announcement in unknown.
	verdict := a.resolve(&n)
	n.accepted = verdict == resolver.Accepted
	publish := false
	switch {
	case verdict == resolver.UnknownPod:
		a.unknown[onNode{n.Node, n.UID}] = n
	case !a.leading.Load():
		a.waiting[onNode{n.Node, n.UID}] = n
	case verdict != resolver.Accepted:
		a.refuse(n.session, string(n.UID), refusals[verdict])
	default:
		publish = true
	}
	a.mu.Unlock()
	if !publish {
		return
	}
	select {
	case slots <- struct{}{}:
		go func() {
			defer func() { <-slots }()
			a.publish(n)
		}()
	case <-n.session.Done():
	}
}

// refusals are the reasons for the verdicts of the resolver.
var refusals = map[resolver.Verdict]stream.Refused_Reason{
	resolver.UnknownPod:   stream.Refused_POD_UNKNOWN,
	resolver.OtherNode:    stream.Refused_OTHER_NODE,
	resolver.HostNetwork:  stream.Refused_HOST_NETWORK,
	resolver.AddressInUse: stream.Refused_ADDRESS_IN_USE,
	resolver.Ended:        stream.Refused_ENDED,
}

// resolve gives an announcement to the resolver, and enqueues the slices that change.
func (a *Agents) resolve(n *announcement) resolver.Verdict {
	if slices.ContainsFunc(n.Addresses, a.c.known.isReserved) {
		return resolver.AddressInUse
	}
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	var verdict resolver.Verdict
	var left []policy.GroupKey
	changes := a.c.resolve("announcement", func() (changes resolver.Changes) {
		verdict, left, changes = a.c.resolver.Announce(n.Announcement)
		return changes
	})
	for _, change := range changes.Slices {
		n.slices = append(n.slices, change.Name)
	}
	a.c.enqueue(a.c.queue, changes, n.Pod.Namespace, n.at)
	n.left = groupsOf(left)
	if verdict == resolver.Accepted {
		announcements.WithLabelValues("Accepted").Inc()
	}
	return verdict
}

func groupsOf(keys []policy.GroupKey) (out []*stream.Group) {
	for _, g := range keys {
		out = append(out, &stream.Group{Namespace: g.Namespace, Name: g.Name})
	}
	return out
}

// publish writes the slices of an announcement, and answers it.
func (a *Agents) publish(n announcement) {
	ctx := log.IntoContext(a.ctx, a.log)
	var asked *question
	for range publishTries {
		groups, names := a.concerned(&n)
		if asked == nil { // before the write: agents answer as soon as they have it
			asked = a.ask(&n, groups)
		}
		failures := make([]error, len(names))
		var wg sync.WaitGroup
		for i, name := range names {
			wg.Go(func() { failures[i] = a.c.writeNow(ctx, name) })
		}
		wg.Wait()
		failed := errors.Join(failures...)
		if failed == nil {
			publishSeconds.Observe(time.Since(n.at).Seconds())
			asked.publish(func(confirms bool) {
				n.session.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Published{Published: &stream.Published{
					Uid: string(n.UID), Groups: groups, Left: n.left, Confirms: confirms,
				}}})
			}, func() {
				confirmSeconds.Observe(time.Since(n.at).Seconds())
				n.session.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Confirmed{Confirmed: &stream.Confirmed{Uid: string(n.UID)}}})
			})
			return
		}
		a.log.V(1).Info("Cannot write the slices of an announced pod", "pod", n.Pod, "reason", failed.Error())
		select {
		case <-n.session.Done():
			return
		case <-a.ctx.Done():
			return
		case <-time.After(publishPause):
		}
	}
}

// concerned returns the groups of an announced pod, and the slices that may have to be written for it. An announcement
// that changes nothing may be about slices that are being written.
func (a *Agents) concerned(n *announcement) (groups []*stream.Group, names []types.NamespacedName) {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	names = slices.Clone(n.slices)
	for _, name := range a.c.resolver.SlicesOf(n.Pod) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return groupsOf(a.c.resolver.GroupsOf(n.Pod)), names
}

// withdrawn ends what a node announced for a pod.
func (a *Agents) withdrawn(s *streamserver.Session, uid types.UID) {
	a.mu.Lock()
	delete(a.unknown, onNode{s.Node, uid})
	delete(a.waiting, onNode{s.Node, uid})
	a.mu.Unlock()
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.c.enqueue(a.c.queue, a.c.resolver.Withdraw(s.Node, uid), "", time.Time{})
}

// sawPod announces again what waited for a pod of a node. The resolver has the pod.
func (a *Agents) sawPod(node string, uid types.UID) {
	a.mu.Lock()
	n, ok := a.unknown[onNode{node, uid}]
	delete(a.unknown, onNode{node, uid})
	a.mu.Unlock()
	if ok {
		go a.announce(n) // its node's slots may be in use, and the caller is a watch
	}
}

// refuse refuses an announcement. A follower leaves that to the leader, which may have seen newer objects.
func (a *Agents) refuse(s *streamserver.Session, uid string, reason stream.Refused_Reason) {
	if !a.leading.Load() {
		return
	}
	announcements.WithLabelValues(camelCase(reason.String())).Inc()
	s.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Refused{Refused: &stream.Refused{Uid: uid, Reason: reason}}})
}

// unseen writes an Event on a pod with an interface that the agent cannot put policies on.
func (a *Agents) unseen(s *streamserver.Session, m *stream.Unseen) {
	if !a.leading.Load() {
		return
	}
	pod := &corev1.Pod{}
	found, err := a.c.get(a.ctx, client.ObjectKey{Namespace: m.GetNamespace(), Name: m.GetName()}, pod)
	if err != nil || !found || string(pod.UID) != m.GetUid() || pod.Spec.NodeName != s.Node {
		return
	}
	a.c.recorder.Eventf(pod, nil, corev1.EventTypeWarning, "UnseenInterface", "Enforce",
		"No policy applies to traffic on the pod's interface %.64q (%.32q) on node %s", m.GetInterface(), m.GetKind(), s.Node)
}
