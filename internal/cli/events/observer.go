package events

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/observer"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// mostFlows is how many flows are asked for: the newest.
const mostFlows = 20_000

// observed shows the events of an observer's flows.
func observed(ctx context.Context, o *observer.Observer, since time.Duration, follow bool, f filter, print func(*agentapi.StreamedEvent) error, errOut io.Writer) error {
	query := url.Values{}
	if since > 0 {
		query.Set("since", since.String())
	}
	show := func(flow *observerapi.Flow) error {
		for _, e := range eventsOf(flow) {
			if f.wants(&e.Event) && (f.verdict != "" || f.policy != "" || byPolicy(&e.Event)) {
				if err := print(&e); err != nil {
					return err
				}
			}
		}
		return nil
	}
	missing := func(m observerapi.Missing) {
		for i := range m.Losses {
			l := &m.Losses[i]
			fmt.Fprintf(errOut, "incomplete: %s, %s to %s: %s (%d packets)\n", l.Where(), l.First.Local().Format(time.TimeOnly), l.Last.Local().Format(time.TimeOnly), l.Reason, l.Packets)
		}
		if m.Missed > 0 {
			fmt.Fprintf(errOut, "incomplete: the observer left out %d flows, as this command read too slowly\n", m.Missed)
		}
	}
	if follow {
		query.Set("follow", "true")
		body, err := o.Open(ctx, observerapi.PathFlows, query)
		if err != nil {
			return err
		}
		return followFlows(ctx, body, show, missing)
	}
	query.Set("newest", "true")
	query.Set("limit", strconv.Itoa(mostFlows))
	var list observerapi.FlowList
	if err := o.Get(ctx, observerapi.PathFlows, query, &list); err != nil {
		return err
	}
	if c := list.Coverage.CompleteSince; !c.IsZero() {
		fmt.Fprintf(errOut, "incomplete: the observer has all flows since %s\n", c.Local().Format(time.DateTime))
	}
	if list.Coverage.LeftOut(len(list.Flows), mostFlows) {
		fmt.Fprintf(errOut, "incomplete: these are the newest %d flows; ask for less time by --since\n", mostFlows)
	}
	missing(observerapi.Missing{Losses: list.Coverage.Losses})
	for i := len(list.Flows) - 1; i >= 0; i-- {
		if err := show(&list.Flows[i]); err != nil {
			return err
		}
	}
	return nil
}

// followFlows reads lines until the context is done.
func followFlows(ctx context.Context, body io.ReadCloser, show func(*observerapi.Flow) error, missing func(observerapi.Missing)) error {
	defer func() { _ = body.Close() }()
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	lines := bufio.NewReaderSize(body, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if ctx.Err() != nil {
			return nil // ctrl-c is how following ends
		}
		if len(line) > 1 { // not an empty one, which keeps the connection
			var l observerapi.FollowedLine
			if err := json.Unmarshal(line, &l); err != nil {
				return fmt.Errorf("observer: %w", err)
			}
			if !l.IsFlow() {
				missing(l.Missing)
			} else if err := show(&l.Flow); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return errors.New("observer: the stream ended, as when it restarts; run this again")
		}
		if err != nil {
			return fmt.Errorf("observer: %w", err)
		}
	}
}

// byPolicy reports whether a policy has to do with an event: without a filter, others are not shown, as by agents.
func byPolicy(e *agentapi.Event) bool {
	return e.Verdict != agentapi.VerdictAccept || e.Policy != nil || len(e.IsolatedBy) > 0
}

// eventsOf returns the decisions of a flow as events.
func eventsOf(f *observerapi.Flow) (out []agentapi.StreamedEvent) {
	for _, d := range []struct {
		*observerapi.Decision
		direction, node string
	}{{f.Egress, "Egress", f.Source.Node}, {f.Ingress, "Ingress", f.Destination.Node}} {
		if d.Decision == nil {
			continue
		}
		e := agentapi.Event{
			Time: f.Last, Node: d.node, Direction: d.direction, Reason: d.Reason, Tier: d.Tier, Policy: d.Policy, IsolatedBy: d.IsolatedBy, Audited: d.AuditedBy,
			Source: endpoint(&f.Source), Destination: endpoint(&f.Destination), Protocol: f.Protocol, Count: f.Packets, Bytes: f.Bytes,
		}
		e.Destination.Port = f.Port
		if f.Packets > 1 {
			e.First = &f.First
		}
		switch {
		case d.Audited != "" && d.Audited != d.Verdict && d.Verdict == observerapi.Allowed:
			e.Verdict = agentapi.VerdictAuditDeny
		case d.Audited != "" && d.Audited != d.Verdict:
			e.Verdict = agentapi.VerdictAuditAllow
		case d.Verdict == observerapi.Denied:
			e.Verdict = agentapi.VerdictDeny
		default:
			e.Verdict = agentapi.VerdictAccept
		}
		out = append(out, agentapi.StreamedEvent{Event: e})
	}
	return out
}

func endpoint(e *observerapi.End) agentapi.Endpoint {
	return agentapi.Endpoint{IP: e.Address, Namespace: e.Namespace, Pod: e.Pod, Workload: e.Workload, DomainNames: e.DomainNames}
}
