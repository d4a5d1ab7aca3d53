package replay

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Report is what replaying a recording shows. It does not depend on the order of the flows in it.
type Report struct {
	Coverage observerapi.Coverage `json:"coverage"`
	// Complete is set if nothing is missing in the recording.
	Complete bool `json:"complete"`
	// Hidden are namespaces of which the recording has nothing but names.
	Hidden []string `json:"hidden,omitempty"`
	// Judged are all flows whose verdicts were compared. Unchanged, Changes and Unknown add up to them.
	Judged    Count `json:"judged"`
	Unchanged Count `json:"unchanged"`
	// Replies are late replies, which are no connections. They are not judged.
	Replies Count `json:"replies"`
	// Changes are the flows with another verdict: those that become denied first.
	Changes []Change `json:"changes"`
	// Audited are the flows that would have another verdict if the audited policies were enforced, beside Changes.
	Audited []Change `json:"audited,omitempty"`
	// AuditedUnknown are the flows of which only that cannot be decided.
	AuditedUnknown Count `json:"auditedUnknown"`
	// Unknown are the flows that cannot be decided, by reason.
	Unknown []Undecided `json:"unknown,omitempty"`
	// Notes are remarks about the input.
	Notes []string `json:"notes,omitempty"`
}

// Count is a number of flows.
type Count struct {
	// Records of the recording, each of which sums up connections.
	Records uint64 `json:"records"`
	// Connections that were opened or tried.
	Connections uint64    `json:"connections"`
	First       time.Time `json:"first,omitzero"`
	Last        time.Time `json:"last,omitzero"`
}

// Add another count.
func (c *Count) Add(d *Count) {
	c.Records += d.Records
	c.Connections += d.Connections
	if !d.First.IsZero() && (c.First.IsZero() || d.First.Before(c.First)) {
		c.First = d.First.UTC()
	}
	if d.Last.After(c.Last) {
		c.Last = d.Last.UTC()
	}
}

// Change is flows of a pair of workloads with another verdict.
type Change struct {
	From     Party   `json:"from"`
	To       Party   `json:"to"`
	Protocol string  `json:"protocol"`
	Port     uint16  `json:"port,omitempty"`
	Before   Verdict `json:"before"`
	After    Verdict `json:"after"`
	// Why is the decision that denies.
	Why string `json:"why"`
	Count
	// Addresses of the end that is outside: some of them, and how many there are; MaxAddresses stands for more.
	Addresses     []netip.Addr `json:"addresses,omitempty"`
	AddressNumber int          `json:"addressNumber,omitempty"`
}

// Undecided is flows that cannot be decided.
type Undecided struct {
	Reason Reason `json:"reason"`
	Count
	// Example is a pair of ends and a port.
	Example string `json:"example"`
}

const (
	shownAddresses = 3
	// MaxAddresses is how many addresses of a change are counted.
	MaxAddresses = 1000
)

// changeKey tells changes apart.
type changeKey struct {
	from, to      Party
	protocol      string
	port          uint16
	before, after Verdict
	why           string
	audited       bool
}

// changed is a Change that is being counted.
type changed struct {
	Count
	addresses map[netip.Addr]struct{}
}

func (c *changed) addAddress(a netip.Addr) {
	if !a.IsValid() || len(c.addresses) > MaxAddresses {
		return
	}
	if c.addresses == nil {
		c.addresses = map[netip.Addr]struct{}{}
	}
	c.addresses[a] = struct{}{}
}

// tally is what is counted of a report.
type tally struct {
	judged, unchanged, replies, auditedUnknown Count

	changes map[changeKey]*changed
	unknown map[Reason]*Undecided
}

func newTally() *tally {
	return &tally{changes: map[changeKey]*changed{}, unknown: map[Reason]*Undecided{}}
}

func (t *tally) change(r *record, before, after Answer, audited bool) {
	k := changeKey{from: r.source.party, to: r.destination.party, protocol: r.protocol, port: r.port, before: before.Verdict, after: after.Verdict, audited: audited}
	if k.why = after.Why; after.Verdict == Allowed {
		k.why = before.Why
	}
	c := t.changes[k]
	if c == nil {
		c = &changed{}
		t.changes[k] = c
	}
	c.Count.Add(&r.Count)
	for _, e := range [...]*end{r.source, r.destination} {
		if e.party.Kind == KindOutside {
			c.addAddress(e.Address)
		}
	}
}

func (t *tally) undecided(r *record, reason Reason) {
	u := t.unknown[reason]
	if u == nil {
		u = &Undecided{Reason: reason}
		t.unknown[reason] = u
	}
	u.Count.Add(&r.Count)
	if example := exampleOf(r); u.Example == "" || example < u.Example {
		u.Example = example
	}
}

func exampleOf(r *record) string {
	name := func(e *end) string {
		return cmp.Or(e.party.String(), e.Namespace, addressText(e.Address))
	}
	return name(r.source) + " to " + name(r.destination) + " " + portText(r.protocol, r.port)
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return "an address that was not kept"
	}
	return a.String()
}

// fill the report.
func (t *tally) fill(out *Report) {
	out.Judged, out.Unchanged, out.Replies, out.AuditedUnknown = t.judged, t.unchanged, t.replies, t.auditedUnknown
	out.Changes = []Change{}
	for k, c := range t.changes {
		is := Change{From: k.from, To: k.to, Protocol: k.protocol, Port: k.port, Before: k.before, After: k.after, Why: k.why, Count: c.Count,
			AddressNumber: min(len(c.addresses), MaxAddresses)}
		is.Addresses = slices.SortedFunc(maps.Keys(c.addresses), netip.Addr.Compare)
		if len(c.addresses) > MaxAddresses { // which ones are kept depends on the order of the flows
			is.Addresses = nil
		}
		is.Addresses = is.Addresses[:min(len(is.Addresses), shownAddresses)]
		if k.audited {
			out.Audited = append(out.Audited, is)
		} else {
			out.Changes = append(out.Changes, is)
		}
	}
	slices.SortFunc(out.Changes, compareChanges)
	slices.SortFunc(out.Audited, compareChanges)
	for _, reason := range slices.Sorted(maps.Keys(t.unknown)) {
		out.Unknown = append(out.Unknown, *t.unknown[reason])
	}
}

func compareChanges(a, b Change) int {
	return cmp.Or(strings.Compare(string(b.After), string(a.After)) /* Denied before Allowed */, a.From.Compare(b.From), a.To.Compare(b.To),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Before, b.Before), cmp.Compare(a.Why, b.Why))
}

// WouldDeny reports whether a connection that is allowed becomes denied.
func (r *Report) WouldDeny() bool {
	return slices.ContainsFunc(r.Changes, func(c Change) bool { return c.After == Denied })
}
