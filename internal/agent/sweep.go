package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// The kernel's conntrack lets a flow go on that was allowed when it began. So after a change that takes something away,
// the flows that it may concern are looked up, judged as their clients opened them, and cut where they are refused now.

const (
	// A packet that was judged just before the change makes its entry just after the first look: a second one finds it.
	secondLook = 250 * time.Millisecond
	// How long a cut flow's server cannot open it again from its side. Of TCP that is only what opens nothing, for longer than it is sent
	// again when nobody acknowledges it (net.ipv4.tcp_retries2, 924 s by default). Another protocol's packet may well be
	// a flow of its own; conntrack itself forgets a flow of UDP after 2 minutes.
	holdOffTCP   = 20 * time.Minute
	holdOffOther = 3 * time.Minute
)

// pending are the addresses whose flows are to be looked at.
type pending struct {
	addresses  map[netip.Addr]struct{}
	everything bool
	since      time.Time // of the first event that took something away; zero: it does not count
}

func (p *pending) add(n compiler.Narrowed, since time.Time) {
	if len(n.Addresses) == 0 && !n.Everything {
		return
	}
	if p.addresses == nil {
		p.addresses = map[netip.Addr]struct{}{}
	}
	for _, a := range n.Addresses {
		p.addresses[a] = struct{}{}
	}
	p.everything = p.everything || n.Everything
	if p.since.IsZero() {
		p.since = since
	}
}

func (p *pending) empty() bool { return len(p.addresses) == 0 && !p.everything }

func (p *pending) narrowed() compiler.Narrowed {
	return compiler.Narrowed{Addresses: slices.Collect(maps.Keys(p.addresses)), Everything: p.everything}
}

// keepSwept cuts flows until the context is done.
func (a *Agent) keepSwept(ctx context.Context) {
	var looks secondLooks
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		var work pending
		select {
		case <-ctx.Done():
			return
		case <-a.sweepKick:
			a.mu.Lock()
			work, a.pending = a.pending, pending{}
			a.mu.Unlock()
			if looks.add(work.narrowed()) {
				timer.Reset(secondLook)
			}
		case <-timer.C:
			var more bool
			if work, more = looks.take(); more {
				timer.Reset(secondLook)
			}
		}
		begin := time.Now()
		cut, err := a.sweep(work)
		took := time.Since(begin)
		a.metrics.sweep.Observe(took.Seconds())
		a.metrics.cut.Add(float64(cut))
		if err != nil {
			a.opts.Log.Error(err, "Cannot cut flows that are not allowed any more; it is tried again")
			looks.due.add(work.narrowed(), work.since)
			timer.Reset(5 * time.Second)
		} else if !work.since.IsZero() {
			a.metrics.revocation.Observe(time.Since(work.since).Seconds())
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
type secondLooks struct{ due, next pending }

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
func (l *secondLooks) take() (work pending, more bool) {
	work, l.due, l.next = l.due, l.next, pending{}
	return work, !l.due.empty()
}

// sweep looks at the flows of some addresses once, and returns how many it cut.
func (a *Agent) sweep(work pending) (int, error) {
	addresses := slices.Collect(maps.Keys(work.addresses))
	if work.everything {
		a.mu.Lock()
		addresses = slices.Collect(maps.Keys(a.state.compiler.Maps().Pods))
		a.mu.Unlock()
	}
	if len(addresses) == 0 {
		return 0, nil
	}
	own, err := nodeAddresses()
	if err != nil {
		return 0, err
	}
	cut := 0
	for flows, err := range dataplane.Flows(addresses...) {
		if err != nil {
			return cut, err
		}
		a.mu.Lock()
		flows = slices.DeleteFunc(flows, func(f dataplane.Flow) bool {
			return !isToCut(a.state.compiler.Maps(), &f, own)
		})
		a.mu.Unlock()
		tcp, other := byHoldOff(flows)
		if err := errors.Join(a.dp.Cut(tcp, holdOffTCP), a.dp.Cut(other, holdOffOther)); err != nil {
			return cut, err
		}
		cut += len(flows)
	}
	return cut, nil
}

func byHoldOff(flows []dataplane.Flow) (tcp, other []dataplane.Flow) {
	for _, f := range flows {
		if f.Protocol == policy.TCP {
			tcp = append(tcp, f)
		} else {
			other = append(other, f)
		}
	}
	return tcp, other
}

// isToCut reports whether neither a live flow nor a master of it, for whose sake it was accepted, would be allowed to begin now.
func isToCut(t *compiler.Maps, f *dataplane.Flow, node map[netip.Addr]bool) bool {
	return refused(t, f.Opened(), node) && !slices.ContainsFunc(f.Masters, func(m policy.Flow) bool { return !refused(t, m, node) })
}

// refused reports whether a flow would not be allowed to begin now. What a pod has with its own node is always allowed, and with itself.
func refused(t *compiler.Maps, f policy.Flow, node map[netip.Addr]bool) bool {
	if node[f.Source] || node[f.Destination] || f.Source == f.Destination {
		return false
	}
	for _, d := range policy.Directions {
		self := f.Source
		if d == policy.Ingress {
			self = f.Destination
		}
		if v, _ := t.Lookup(d, f); v.Action == policy.Deny && t.Pods[self].Flags&compiler.Audit == 0 {
			return true
		}
	}
	return false
}

func nodeAddresses() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this node's addresses: %w", err)
	}
	own := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return own, nil
}

// wakeSweep has keepSwept look at what is pending.
func (a *Agent) wakeSweep() {
	if a.pending.empty() {
		return
	}
	select {
	case a.sweepKick <- struct{}{}:
	default:
	}
}
