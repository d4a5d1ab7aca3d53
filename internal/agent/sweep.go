package agent

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// The kernel's conntrack lets a flow go on that was allowed when it began. So after a change that takes something away, the sweeper looks up
// the flows that it may concern, decides each as its client opened it, and cuts those that are denied now.

const (
	// A packet that was decided just before the change makes its entry just after the first look: a second one finds it.
	secondLook = 250 * time.Millisecond
	sweepRetry = 5 * time.Second
	// A cut flow's server cannot open it again from its side for as long as conntrack would have kept the flow. Of TCP and SCTP that is at least
	// longer than a packet is sent again without an acknowledgement (net.ipv4.tcp_retries2, 924 s by default). Another protocol's packet may
	// well open a flow of its own; conntrack itself forgets a flow of UDP after 2 minutes.
	leastHold    = 20 * time.Minute
	holdOffOther = 3 * time.Minute
)

// narrowed are the addresses whose flows may have lost what allowed them.
type narrowed struct {
	addresses  map[netip.Addr]struct{}
	everything bool
	since      time.Time // of the first event that took something away; zero: it does not count
}

func (n *narrowed) add(more compiler.Narrowed, since time.Time) {
	if len(more.Addresses) == 0 && !more.Everything {
		return
	}
	if n.addresses == nil {
		n.addresses = map[netip.Addr]struct{}{}
	}
	for _, a := range more.Addresses {
		n.addresses[a] = struct{}{}
	}
	n.everything = n.everything || more.Everything
	if n.since.IsZero() {
		n.since = since
	}
}

func (n *narrowed) empty() bool { return len(n.addresses) == 0 && !n.everything }

func (n *narrowed) plain() compiler.Narrowed {
	return compiler.Narrowed{Addresses: slices.Collect(maps.Keys(n.addresses)), Everything: n.everything}
}

// sweeper cuts flows that are denied now.
type sweeper struct {
	kernel  Connections
	names   Names
	state   *state
	tunnels func() *inspect.Tunnels // in force
	metrics *metrics
	log     logr.Logger

	mu   sync.Mutex
	due  narrowed
	kick chan struct{} // something is due; capacity 1
}

// add has the flows of some addresses looked at. What took something away from them must be in the kernel already.
func (s *sweeper) add(n narrowed) {
	if n.empty() {
		return
	}
	s.mu.Lock()
	s.due.add(n.plain(), n.since)
	s.mu.Unlock()
	wake(s.kick)
}

func (s *sweeper) take() narrowed {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.due
	s.due = narrowed{}
	return due
}

// run cuts flows until the context is done or another agent has taken over.
func (s *sweeper) run(ctx context.Context) {
	var looks secondLooks
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		var work narrowed
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
			work = s.take()
			if looks.add(work.plain()) {
				timer.Reset(secondLook)
			}
		case <-timer.C:
			var more bool
			if work, more = looks.take(); more {
				timer.Reset(secondLook)
			}
		}
		begin := time.Now()
		cut, err := s.sweep(work)
		took := time.Since(begin)
		s.metrics.sweep.Observe(took.Seconds())
		s.metrics.cut.Add(float64(cut))
		if errors.Is(err, dataplane.ErrSuperseded) {
			return // the writer ends the agent
		}
		if err != nil {
			s.log.Error(err, "Cannot cut flows that are not allowed any more; retrying", "in", sweepRetry.String())
			looks.due.add(work.plain(), work.since)
			timer.Reset(sweepRetry)
		} else if !work.since.IsZero() {
			s.metrics.revocation.Observe(time.Since(work.since).Seconds())
		}
		// At most half of a core, however many changes there are.
		select {
		case <-ctx.Done():
		case <-time.After(took):
		}
	}
}

// secondLooks are what has been looked at once. A timer runs for those that are due when it fires; those that came since wait for the next,
// so that changes without an end delay nothing.
type secondLooks struct{ due, next narrowed }

// add takes in what was looked at now, and reports whether the timer is to be started for it.
func (l *secondLooks) add(n compiler.Narrowed) bool {
	if l.due.empty() {
		l.due.add(n, time.Time{})
		return !l.due.empty()
	}
	l.next.add(n, time.Time{})
	return false
}

// take returns what is due, and whether the timer is to be started again.
func (l *secondLooks) take() (work narrowed, more bool) {
	work, l.due, l.next = l.due, l.next, narrowed{}
	return work, !l.due.empty()
}

// sweep looks at the flows of some addresses once, and returns how many it cut.
func (s *sweeper) sweep(work narrowed) (int, error) {
	addresses := slices.Collect(maps.Keys(work.addresses))
	if work.everything {
		s.state.read(func(n *node.Node) { addresses = slices.Collect(maps.Keys(n.Maps().Pods)) })
	}
	if len(addresses) == 0 {
		return 0, nil
	}
	own, err := s.kernel.NodeAddresses()
	if err != nil {
		return 0, err
	}
	timeout := s.kernel.EstablishedTimeout()
	tunnels := s.tunnels()
	cut := 0
	for flows, err := range s.kernel.Flows(addresses...) {
		if err != nil {
			return cut, err
		}
		names := s.readNames(flows)
		s.state.read(func(n *node.Node) {
			j := judgement{n.Maps(), own, names}
			flows = slices.DeleteFunc(flows, func(f conntrack.Flow) bool { return !j.isToCut(&f) && !isSmuggled(n.Maps(), &f, tunnels) })
		})
		opening, other := byHoldOff(flows)
		if err := errors.Join(s.kernel.Cut(opening, max(timeout, leastHold)), s.kernel.Cut(other, holdOffOther)); err != nil {
			return cut, err
		}
		cut += len(flows)
	}
	return cut, nil
}

// sweepNow cuts the denied flows of a pod that is about to start, or returns the error of the context. The pod's policies must be in the
// kernel already. What it could not look at in time is swept like the rest.
func (s *sweeper) sweepNow(ctx context.Context, addresses []netip.Addr) error {
	work := narrowed{addresses: map[netip.Addr]struct{}{}}
	s.state.read(func(n *node.Node) {
		for _, a := range addresses {
			if n.Maps().Pods[a].Sets != [2]compiler.SetID{} { // nothing is denied to a pod that is not isolated
				work.addresses[a] = struct{}{}
			}
		}
	})
	swept := make(chan error, 1)
	go func() {
		cut, err := s.sweep(work)
		s.metrics.cut.Add(float64(cut))
		swept <- err
	}()
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-swept:
	}
	if err != nil {
		s.add(work)
	}
	return err
}

// byHoldOff separates flows of protocols that begin a flow with a packet of its own from all others.
func byHoldOff(flows []conntrack.Flow) (opening, other []conntrack.Flow) {
	for _, f := range flows {
		if f.Protocol == policy.TCP || f.Protocol == policy.SCTP {
			opening = append(opening, f)
		} else {
			other = append(other, f)
		}
	}
	return opening, other
}

// readNames returns the patterns that the destinations of flows were learned under; nothing while no policy has names.
func (s *sweeper) readNames(flows []conntrack.Flow) map[netip.Addr][]compiler.PatternID {
	hasNames := false
	s.state.read(func(n *node.Node) { hasNames = len(n.Maps().Domains) > 0 })
	if !hasNames {
		return nil
	}
	out := map[netip.Addr][]compiler.PatternID{}
	read := func(addr netip.Addr) {
		if _, ok := out[addr]; !ok {
			out[addr] = s.names.PatternsOf(addr)
		}
	}
	for i := range flows {
		read(flows[i].Opened().Destination)
		for _, m := range flows[i].Masters {
			read(m.Destination)
		}
	}
	return out
}

// A judgement is what flows are decided by.
type judgement struct {
	maps  *compiler.Maps
	own   map[netip.Addr]bool                 // the node's addresses
	names map[netip.Addr][]compiler.PatternID // that addresses were learned under: a live flow stays when a name's time is over
}

// isToCut reports whether neither a live flow nor a master of it, for whose sake it was allowed, would be allowed to begin now.
func (j *judgement) isToCut(f *conntrack.Flow) bool {
	return j.denies(f.Opened()) && !slices.ContainsFunc(f.Masters, func(m policy.Flow) bool { return !j.denies(m) })
}

// isSmuggled reports whether a pod's flow leads to the end of a tunnel, which would decapsulate it.
func isSmuggled(t *compiler.Maps, f *conntrack.Flow, tunnels *inspect.Tunnels) bool {
	opened := f.Opened()
	_, isPod := t.Pods[opened.Source]
	return isPod && tunnels.Takes(uint8(opened.Protocol), netip.AddrPortFrom(opened.Destination, opened.Port))
}

// denies reports whether a flow would not be allowed to begin now. The node's traffic to its pods is always allowed. A pod's traffic to its own
// node, and to itself, is judged by cluster policies only.
func (j *judgement) denies(f policy.Flow) bool {
	judge := func(d policy.Direction, lookUp func(policy.Direction, policy.Flow, []compiler.PatternID) (compiler.Decision, bool)) bool {
		v, _ := lookUp(d, f, j.names[f.Peer(d)])
		return v.Action == policy.Deny && j.maps.Pods[f.Self(d)].Flags&compiler.Audit == 0
	}
	switch {
	case j.own[f.Source]:
		return false
	case j.own[f.Destination]:
		return judge(policy.Egress, j.maps.LookupOwnNamed)
	case f.Source == f.Destination:
		return judge(policy.Egress, j.maps.LookupOwnNamed) || judge(policy.Ingress, j.maps.LookupOwnNamed)
	}
	return judge(policy.Egress, j.maps.LookupNamed) || judge(policy.Ingress, j.maps.LookupNamed)
}
