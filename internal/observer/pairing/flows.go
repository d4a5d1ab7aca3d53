package pairing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Decider returns a text that is the same for equal decisions.
func Decider(d *observerapi.Decision) string {
	if d == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprint(&b, d.Verdict, " ", d.Reason, " ", d.Tier, " ", d.Audited)
	if d.Policy != nil {
		fmt.Fprint(&b, " ", d.Policy.PolicyRef, " ", d.Policy.RuleName, " ", d.Policy.Rules)
	}
	list := func(what string, refs []agentapi.PolicyRef) {
		for _, r := range refs {
			fmt.Fprint(&b, " ", what, " ", r)
		}
	}
	list("isolated", d.IsolatedBy)
	list("audited", d.AuditedBy)
	return b.String()
}

// about is what the parts of one flow have in common.
type about struct {
	kind
	egress, ingress *observerapi.Decision
	service         string
	span            int64
	resolution      time.Duration
}

// collector sums up matched parts to flows.
type collector map[about]*observerapi.Flow

// add adds connections of one or two parts; nil: the end has not decided, or its node has not reported. The source's node
// counts the bytes, if it has reported.
func (c collector) add(k kind, egress, ingress *part, connections, bytes uint64, span time.Time, resolution time.Duration) {
	either := egress
	if either == nil {
		either = ingress
	}
	a := about{kind: k, span: span.UnixNano(), resolution: resolution}
	first, last := either.First, either.Last
	if egress != nil {
		a.egress, a.service = egress.decision, egress.Service
	}
	if ingress != nil {
		a.ingress = ingress.decision
		if ingress.First.Before(first) {
			first = ingress.First
		}
		if ingress.Last.After(last) {
			last = ingress.Last
		}
	}
	f, ok := c[a]
	if !ok {
		f = &observerapi.Flow{
			First: first, Last: last, Source: *either.Source, Destination: *either.Destination, Service: a.service, Protocol: k.protocol, Port: k.port,
			Verdict: Verdict(a.egress, a.ingress), Egress: a.egress, Ingress: a.ingress, Sides: sides(either.Report, egress, ingress),
			Continues: k.continues, Reply: k.reply,
		}
		if ingress != nil {
			f.Destination = *ingress.Destination
			if egress != nil {
				f.Destination.DomainNames = egress.Destination.DomainNames
			}
		}
		c[a] = f
	}
	if first.Before(f.First) {
		f.First = first
	}
	if last.After(f.Last) {
		f.Last = last
	}
	f.Packets += connections
	f.Bytes += bytes
	if !k.continues {
		f.Connections += connections
	}
}

// sides says whether the node of the other end should have reported, too.
func sides(r *store.Report, egress, ingress *part) observerapi.Sides {
	if egress != nil && ingress == nil && isPod(r.Destination) && egress.decision.Verdict != observerapi.Denied ||
		egress == nil && isPod(r.Source) {
		return observerapi.OneSide
	}
	return observerapi.Complete
}

// flows returns the flows, ordered by the last connection.
func (c collector) flows() []*observerapi.Flow {
	out := make([]*observerapi.Flow, 0, len(c))
	for _, f := range c {
		out = append(out, f)
	}
	slices.SortFunc(out, compareFlows)
	return out
}

// compareFlows orders flows by their last connection, and then by all that can differ, the cheapest first.
func compareFlows(a, b *observerapi.Flow) int {
	if c := a.Last.Compare(b.Last); c != 0 {
		return c
	}
	if c := cmp.Or(
		a.First.Compare(b.First), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Source.UID, b.Source.UID), cmp.Compare(a.Destination.UID, b.Destination.UID),
		cmp.Compare(a.Packets, b.Packets), cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Protocol, b.Protocol),
	); c != 0 {
		return c
	}
	return strings.Compare(flowText(a), flowText(b))
}

func flowText(f *observerapi.Flow) string {
	return fmt.Sprint(nameOf(&f.Source), " ", nameOf(&f.Destination), " ", f.Protocol, f.Port, f.Continues, f.Reply, f.Service, Decider(f.Egress), "/", Decider(f.Ingress), f.Connections)
}
