package ingest

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/observer/directory"
	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Limits of what one record contains. An honest agent stays far below.
const (
	maxName    = 253 // of objects, as the API server has it
	maxWord    = 64
	maxIndexes = 1000
	// maxSpan is the longest time between the first and the last packet of a record.
	maxSpan = 10 * time.Minute
	// maxAge is the age of the oldest record that is taken.
	maxAge = 24 * time.Hour
	// maxDistinct bounds the decisions and the unknown pods of one node in an hour.
	maxDistinct = 20_000
)

// Reasons of losses that the observer finds itself.
const (
	reasonUnlisted = "unlisted" // the agent had no record for each of these packets
	reasonInvalid  = "invalid"  // the record makes no sense
	reasonLate     = "late"     // the record is too old
	reasonOther    = "other"    // a reason of the agent's that this version does not know
)

// reasonRestart is the reason of an agent's loss: there was no agent before it for some time.
const reasonRestart = "restart"

// agentReasons are those of agents' losses.
var agentReasons = []string{"map", "queue", reasonRestart, "ring", "rate"}

// translator makes reports of the records of one node. It is used by one goroutine.
type translator struct {
	node      string
	directory *directory.Directory
	decisions *decisions
	clock     *clock
	distinct  map[string]struct{}
	cleared   time.Time
	offset    time.Duration // of the observer's clock before the node's
	heard     time.Time     // when the node's agent before this one pushed last; zero: not known
}

func newTranslator(node string, d *directory.Directory, shared *decisions, c *clock) translator {
	return translator{node: node, directory: d, decisions: shared, clock: c, distinct: map[string]struct{}{}, cleared: time.Now()}
}

// read compares the clocks: the agent sent a push at a time of its own.
func (t *translator) read(sent int64, received time.Time) {
	t.offset = 0
	if sent != 0 {
		t.offset = t.clock.sent(time.UnixMilli(sent), received)
	}
}

// batch returns what is stored of a push, after read. Losses count the records that it leaves out.
func (t *translator) batch(push *flow.PushRequest, now time.Time) store.Batch {
	if now.Sub(t.cleared) > time.Hour {
		t.distinct, t.cleared = map[string]struct{}{}, now
	}
	b := store.Batch{Node: t.node, Generation: push.Generation, Sequence: push.Sequence, Received: now}
	lost := map[string]*observerapi.Loss{}
	lose := func(reason string, r *flow.Record) {
		first, last := t.times(r.First, r.Last, now)
		l := lost[reason]
		if l == nil {
			l = &observerapi.Loss{Node: t.node, Reason: reason, First: first, Last: last}
			lost[reason] = l
		}
		if first.Before(l.First) {
			l.First = first
		}
		if last.After(l.Last) {
			l.Last = last
		}
		l.Packets += r.Packets
		l.Records++
	}
	b.Reports = make([]store.Report, 0, len(push.Records))
	for _, r := range push.Records {
		switch {
		case r == nil || r.Packets == 0:
		case r.Unlisted:
			lose(reasonUnlisted, r)
		case now.Sub(time.UnixMilli(r.Last).Add(t.offset)) > maxAge:
			lose(reasonLate, &flow.Record{Packets: r.Packets, First: push.Sent, Last: push.Sent})
		default:
			report, ok := t.report(r, now)
			if !ok {
				lose(reasonInvalid, r)
				continue
			}
			b.Reports = append(b.Reports, report)
		}
	}
	for _, l := range push.Losses {
		if l == nil {
			continue
		}
		reason := l.Reason
		if !slices.Contains(agentReasons, reason) {
			reason = reasonOther
		}
		first, last := t.lossTimes(l, now)
		b.Losses = append(b.Losses, observerapi.Loss{Node: t.node, Reason: reason, First: first, Last: last, Packets: l.Packets, Records: l.Records})
	}
	for _, reason := range []string{reasonUnlisted, reasonInvalid, reasonLate} {
		if l := lost[reason]; l != nil {
			b.Losses = append(b.Losses, *l)
		}
	}
	return b
}

// times returns times of the node's clock by the observer's. None is in the future, and they are not far apart. A first time of 0 is not
// known.
func (t *translator) times(first, last int64, now time.Time) (time.Time, time.Time) {
	until := time.UnixMilli(last).Add(t.offset)
	if until.After(now) {
		until = now
	}
	if oldest := now.Add(-maxAge); until.Before(oldest) {
		until = oldest
	}
	since := time.UnixMilli(first).Add(t.offset)
	if first == 0 || since.After(until) {
		since = until
	}
	if until.Sub(since) > maxSpan {
		since = until.Add(-maxSpan)
	}
	return since, until
}

// lossTimes returns times of a loss by the observer's clock. It can be as long as the oldest record that is taken is old: while an observer was
// away for hours, agents drop what they have recorded in hours. An agent that has started does not know since when there was none, but the
// observer knows when the node pushed last.
func (t *translator) lossTimes(l *flow.Loss, now time.Time) (time.Time, time.Time) {
	_, last := t.times(l.Last, l.Last, now)
	first := last
	switch {
	case l.First != 0:
		_, first = t.times(l.First, l.First, now)
	case l.Reason == reasonRestart && !t.heard.IsZero():
		first = t.heard
	}
	if oldest := now.Add(-maxAge); first.Before(oldest) {
		first = oldest
	}
	if first.After(last) {
		first = last
	}
	return first, last
}

func (t *translator) report(r *flow.Record, now time.Time) (store.Report, bool) {
	if r.Source == nil || r.Destination == nil || !isWord(r.Protocol) || r.Source.Port > 1<<16-1 || r.Destination.Port > 1<<16-1 {
		return store.Report{}, false
	}
	out := store.Report{
		Protocol: r.Protocol, Port: uint16(r.Destination.Port), Connections: r.Packets, Bytes: r.Bytes,
		Continues: r.Continues || r.Reply, Reply: r.Reply, Beside: r.WouldBe || r.Verdict == flow.Record_AUDIT_ALLOW,
	}
	out.First, out.Last = t.times(r.First, r.Last, now)
	own, other := r.Source, r.Destination
	switch r.Direction {
	case flow.Record_EGRESS:
		out.Direction = store.Egress
	case flow.Record_INGRESS:
		out.Direction = store.Ingress
		own, other = other, own
	default:
		return store.Report{}, false
	}
	ownEnd, ok := t.ownEnd(own, out.First)
	if !ok {
		return store.Report{}, false
	}
	otherEnd, ok := t.otherEnd(other, out.First)
	if !ok {
		return store.Report{}, false
	}
	out.Source, out.Destination = ownEnd, otherEnd
	if out.Direction == store.Ingress {
		out.Source, out.Destination = otherEnd, ownEnd
	}
	if o := r.OriginalDestination; o != nil {
		if addr, ok := netip.AddrFromSlice(o.Address); ok {
			out.Service = t.directory.Service(addr.Unmap(), out.First)
		}
	}
	if out.Decision, ok = t.decision(r); !ok {
		return store.Report{}, false
	}
	return out, true
}

// ownEnd names the end whose policies decided. It can be no pod of another node.
func (t *translator) ownEnd(e *flow.End, at time.Time) (*observerapi.End, bool) {
	addr, _ := netip.AddrFromSlice(e.Address)
	addr = addr.Unmap()
	if e.Uid == "" {
		end, isKnown := t.directory.Find(addr, at)
		return end, !isKnown || end.Node == t.node
	}
	uid := types.UID(e.Uid)
	if end := t.directory.Pod(uid, t.node, addr, at); end != nil {
		if addr.IsValid() {
			t.directory.Learn(addr, uid, t.node, at)
		}
		return end, true
	}
	if t.directory.NodeOf(uid) != "" || len(e.Uid) > maxWord || len(e.Namespace) > maxName || len(e.Name) > maxName || e.Namespace == "" || e.Name == "" {
		return nil, false
	}
	// It ended before the observer started, or is very new.
	if !t.isDistinct("pod " + e.Uid + " " + e.Namespace + "/" + e.Name) {
		return nil, false
	}
	return t.decisions.end(observerapi.End{Namespace: e.Namespace, Pod: e.Name, UID: e.Uid, Node: t.node, Address: addr}), true
}

// otherEnd names the other end by its address.
func (t *translator) otherEnd(e *flow.End, at time.Time) (*observerapi.End, bool) {
	addr, _ := netip.AddrFromSlice(e.Address)
	end, _ := t.directory.Find(addr.Unmap(), at)
	if len(e.DomainNames) == 0 {
		return end, true
	}
	if len(e.DomainNames) > agentapi.MaxDomainNames || slices.ContainsFunc(e.DomainNames, func(name string) bool { return len(name) > maxName }) {
		return nil, false
	}
	named := *end
	named.DomainNames = e.DomainNames
	return t.decisions.end(named), true
}

// isUnnamed reports whether a record has an end that the directory may soon have a name for: a pod that is so new that its address is not
// known yet.
func (t *translator) isUnnamed(r *flow.Record, now time.Time) bool {
	if r == nil || r.Unlisted || now.Sub(time.UnixMilli(r.Last).Add(t.offset)) > recent {
		return false
	}
	for _, e := range []*flow.End{r.Source, r.Destination} {
		if e == nil {
			continue
		}
		if e.Uid != "" {
			if t.directory.NodeOf(types.UID(e.Uid)) == "" {
				return true
			}
			continue
		}
		addr, ok := netip.AddrFromSlice(e.Address)
		if !ok || !addr.Unmap().IsPrivate() {
			continue
		}
		if _, isKnown := t.directory.Find(addr.Unmap(), now); !isKnown {
			return true
		}
	}
	return false
}

// recent is the age up to which a record may be of a pod that the directory does not know yet.
const recent = 30 * time.Second

func (t *translator) decision(r *flow.Record) (*observerapi.Decision, bool) {
	d := observerapi.Decision{Reason: r.Reason, Tier: r.Tier}
	switch r.Verdict {
	case flow.Record_ALLOW:
		d.Verdict = observerapi.Allowed
	case flow.Record_DENY:
		d.Verdict = observerapi.Denied
	case flow.Record_AUDIT_DENY:
		d.Verdict, d.Audited = observerapi.Allowed, observerapi.Denied
	case flow.Record_AUDIT_ALLOW:
		d.Verdict, d.Audited = observerapi.Denied, observerapi.Allowed
	default:
		return nil, false
	}
	if !isWord(r.Reason) || r.Tier != "" && !isWord(r.Tier) {
		return nil, false
	}
	var ok bool
	if d.IsolatedBy, ok = policies(r.IsolatedBy); !ok {
		return nil, false
	}
	if d.AuditedBy, ok = policies(r.Audited); !ok {
		return nil, false
	}
	if p := r.Policy; p != nil {
		ref, ok := policy(p.Policy)
		if !ok || len(p.Indexes) > maxIndexes || len(p.Name) > maxName {
			return nil, false
		}
		d.Policy = &agentapi.RuleRef{PolicyRef: ref, RuleName: p.Name, Rules: p.Indexes}
	}
	text := pairing.Decider(&d)
	if !t.isDistinct(text) {
		return nil, false
	}
	return t.decisions.decision(text, d), true
}

// isDistinct notes a text, and returns false if the node has had too many.
func (t *translator) isDistinct(text string) bool {
	if _, ok := t.distinct[text]; ok {
		return true
	}
	if len(t.distinct) >= maxDistinct {
		return false
	}
	t.distinct[text] = struct{}{}
	return true
}

func policies(in []*flow.Policy) (out []agentapi.PolicyRef, ok bool) {
	if len(in) > agentapi.MaxIsolatedBy {
		return nil, false
	}
	for _, p := range in {
		ref, ok := policy(p)
		if !ok {
			return nil, false
		}
		out = append(out, ref)
	}
	return out, true
}

func policy(p *flow.Policy) (agentapi.PolicyRef, bool) {
	if p == nil || !isWord(p.Kind) || p.Name == "" || len(p.Name) > maxName || len(p.Namespace) > maxName {
		return agentapi.PolicyRef{}, false
	}
	return agentapi.PolicyRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}, true
}

// isWord reports whether a text is one word, such as a reason, a tier or a protocol.
func isWord(text string) bool {
	if text == "" || len(text) > maxWord {
		return false
	}
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
