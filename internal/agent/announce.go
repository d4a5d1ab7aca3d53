package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/stream"
)

// DefaultHoldTimeout is how long the first container of a pod waits for the pod's addresses, counted from the announcement.
const DefaultHoldTimeout = 200 * time.Millisecond

const (
	// announcementLife is how long an announcement may become known. The controller uses none for longer.
	announcementLife = 30 * time.Second
	// reuseLimit is how long a pod with another pod's former address is kept from starting.
	reuseLimit = 5 * time.Second
	// recently: a controller that has answered within this time is taken to answer.
	recently = time.Second
)

// announcer announces new sandboxes to the controller. It holds their first containers until the pods' addresses are known: the API server
// has their groups, and the nodes that hold these groups have them in force.
type announcer struct {
	stream  Stream
	timeout time.Duration // of a hold; 0: none is held
	await   func(context.Context, membership) error
	metrics *metrics
	log     logr.Logger

	running context.Context // until stop
	stop    context.CancelFunc

	mu          sync.Mutex
	byUID       map[string]*announcement
	bySandbox   map[string]*announcement
	wasted      time.Duration // by holds that ended at the timeout, since an announcement became known in time
	answered    time.Time     // when the controller last answered
	questioning int           // questions of the controller that wait for their answer
}

// membership is which groups should contain addresses, and which should not.
type membership struct {
	addresses    []netip.Addr
	groups, left []policy.GroupKey
}

// announcement is a sandbox that was announced.
type announcement struct {
	pod          types.NamespacedName
	uid, sandbox string
	addresses    []netip.Addr
	since        time.Time
	reused       bool // another pod of this node had one of the addresses lately
	started      bool // a container has started

	over   context.Context // of a newer announcement for the same pod, of a sandbox that has ended, or after announcementLife
	cancel context.CancelFunc

	inForce, confirmed bool          // here; on the other nodes that hold its groups
	done               chan struct{} // closed when it is known or refused
	refused            string        // why; empty if it is not
}

var errReused = errors.New("another pod had the address of this one until lately, and may still be in force with it; the container can start when the controller has published the change")

func newAnnouncer(s Stream, timeout time.Duration, await func(context.Context, membership) error, m *metrics, log logr.Logger) *announcer {
	x := &announcer{stream: s, timeout: timeout, await: await, metrics: m, log: log, byUID: map[string]*announcement{}, bySandbox: map[string]*announcement{}}
	x.running, x.stop = context.WithCancel(context.Background())
	return x
}

// announce announces a sandbox, without waiting. reused is whether another pod had one of its addresses lately, and started whether a container
// of it has started.
func (x *announcer) announce(uid string, s node.Sandbox, reused, started bool) {
	a := &announcement{pod: s.Pod, uid: uid, sandbox: s.ID, addresses: s.Addresses, since: time.Now(), reused: reused, started: started, done: make(chan struct{})}
	a.over, a.cancel = context.WithTimeout(x.running, announcementLife)
	x.mu.Lock()
	if before := x.byUID[uid]; before != nil {
		x.forget(before)
	}
	x.byUID[uid], x.bySandbox[s.ID] = a, a
	x.mu.Unlock()
	context.AfterFunc(a.over, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.forget(a)
	})
	added := &stream.SandboxAdded{Uid: uid, Namespace: s.Pod.Namespace, Name: s.Pod.Name}
	for _, addr := range s.Addresses {
		added.Addresses = append(added.Addresses, addr.AsSlice())
	}
	x.stream.AddSandbox(added)
}

// forget drops an announcement. The caller holds mu.
func (x *announcer) forget(a *announcement) {
	a.cancel()
	if x.byUID[a.uid] == a {
		delete(x.byUID, a.uid)
	}
	if x.bySandbox[a.sandbox] == a {
		delete(x.bySandbox, a.sandbox)
	}
}

// end withdraws the announcement of a sandbox that has ended.
func (x *announcer) end(sandbox string) {
	x.mu.Lock()
	a := x.bySandbox[sandbox]
	if a != nil {
		x.forget(a)
	}
	x.mu.Unlock()
	if a != nil {
		x.stream.EndSandbox(a.uid)
	}
}

// Published begins to wait until this node has the addresses in force.
func (x *announcer) Published(m *stream.Published) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = time.Now()
	a := x.byUID[m.GetUid()]
	if a == nil || a.isDone() {
		return
	}
	a.confirmed = a.confirmed || !m.GetConfirms()
	want := membership{addresses: a.addresses, groups: groupKeysOf(m.GetGroups()), left: groupKeysOf(m.GetLeft())}
	if len(want.groups) == 0 && len(want.left) == 0 {
		a.inForce = true
		x.check(a)
		return
	}
	go func() {
		if x.await(a.over, want) == nil {
			x.mu.Lock()
			defer x.mu.Unlock()
			a.inForce = true
			x.check(a)
		}
	}()
}

// Confirmed takes in that the other nodes have the addresses in force.
func (x *announcer) Confirmed(m *stream.Confirmed) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = time.Now()
	if a := x.byUID[m.GetUid()]; a != nil {
		a.confirmed = true
		x.check(a)
	}
}

// Refused lets a pod start that the controller does not take addresses for.
func (x *announcer) Refused(m *stream.Refused) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = time.Now()
	if a := x.byUID[m.GetUid()]; a != nil && a.refused == "" && !a.isDone() {
		a.refused = refusals[m.GetReason()]
		close(a.done)
	}
}

// refusals are the metric's reasons for the controller's.
var refusals = map[stream.Refused_Reason]string{
	stream.Refused_REASON_UNSPECIFIED: "refused",
	stream.Refused_INVALID:            "refused_invalid",
	stream.Refused_POD_UNKNOWN:        "refused_pod_unknown",
	stream.Refused_OTHER_NODE:         "refused_other_node",
	stream.Refused_HOST_NETWORK:       "refused_host_network",
	stream.Refused_ADDRESS_IN_USE:     "refused_address_in_use",
	stream.Refused_ENDED:              "refused_ended",
	stream.Refused_TOO_MANY:           "refused_too_many",
}

// check lets an announcement's pod start if the addresses are known now. The caller holds mu.
func (x *announcer) check(a *announcement) {
	if !a.inForce || !a.confirmed || a.isDone() {
		return
	}
	close(a.done)
	took := time.Since(a.since)
	x.metrics.known.Observe(took.Seconds())
	if took <= x.timeout {
		x.wasted = 0
	}
}

func (a *announcement) isDone() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// hold waits until the addresses of a sandbox are known, when its first container starts. The runtime runs one hook at a time on a node: so the
// time counts from the announcement, and all holds together may waste little more than one when the controller does not answer.
func (x *announcer) hold(ctx context.Context, sandbox string) error {
	x.mu.Lock()
	a := x.bySandbox[sandbox]
	if a == nil || a.started {
		x.mu.Unlock()
		return nil
	}
	a.started = true
	left := min(x.timeout-time.Since(a.since), x.timeout+x.timeout/4-x.wasted)
	hasLeader := x.stream.HasLeader()
	answers := hasLeader && (left > 0 || time.Since(x.answered) < recently)
	x.mu.Unlock()

	begin := time.Now()
	isOver := a.isDone()
	if !isOver && hasLeader && left > 0 {
		t := time.NewTimer(left)
		defer t.Stop()
		select {
		case <-a.done:
			isOver = true
		case <-t.C:
		case <-a.over.Done():
		case <-ctx.Done():
		}
	}
	waited := time.Since(begin)
	x.metrics.hold.Observe(waited.Seconds())

	x.mu.Lock()
	defer x.mu.Unlock()
	reason := a.refused
	if !isOver {
		x.wasted += waited
		if a.reused && x.timeout > 0 && answers && time.Since(a.since) < reuseLimit {
			a.started = false
			x.metrics.heldBack.Inc()
			return errReused
		}
		if reason = "late"; !hasLeader {
			reason = "no_leader"
		}
	}
	if reason != "" {
		x.metrics.unknown.WithLabelValues(reason).Inc()
		x.log.Info("A pod starts before its addresses are known; its first packets may be denied", "pod", a.pod, "reason", reason,
			"announced", time.Since(a.since).Round(time.Millisecond).String())
	}
	return nil
}

const (
	// mostQuestions is how many questions of the controller may wait for their answer. One more goes without.
	mostQuestions = 1024
	// questionLife is how long a question is of interest.
	questionLife = 5 * time.Second
)

// AskInForce answers the controller's question about another node's pod once this node has its addresses in force.
func (x *announcer) AskInForce(q *stream.AskInForce, answer func()) {
	var addresses []netip.Addr
	for _, b := range q.GetAddresses() {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		addresses = append(addresses, addr)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.questioning >= mostQuestions {
		return
	}
	x.questioning++
	go func() {
		ctx, cancel := context.WithTimeout(x.running, questionLife)
		defer cancel()
		if x.await(ctx, membership{addresses, groupKeysOf(q.GetGroups()), groupKeysOf(q.GetLeft())}) == nil {
			answer()
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.questioning--
	}()
}

func groupKeysOf(groups []*stream.Group) []policy.GroupKey {
	out := make([]policy.GroupKey, len(groups))
	for i, g := range groups {
		out[i] = policy.GroupKey{Namespace: g.GetNamespace(), Name: g.GetName()}
	}
	return out
}
