package pairing

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// part is what is not yet matched of a report.
type part struct {
	*store.Report
	decision           *observerapi.Decision // with what is audited
	connections, bytes uint64
}

// take takes connections out of a part, with their share of the bytes.
func (p *part) take(connections uint64) (bytes uint64) {
	if connections >= p.connections {
		bytes = p.bytes
		p.connections, p.bytes = 0, 0
		return bytes
	}
	high, low := bits.Mul64(p.bytes, connections)
	bytes, _ = bits.Div64(high, low, p.connections)
	p.connections -= connections
	p.bytes -= bytes
	return bytes
}

// order puts reports into an order that does not depend on that of pushes.
func order(a, b *store.Report) int {
	return cmp.Or(
		a.First.Compare(b.First), a.Last.Compare(b.Last), cmp.Compare(a.Direction, b.Direction),
		cmp.Compare(a.Connections, b.Connections), cmp.Compare(a.Bytes, b.Bytes),
		cmp.Compare(a.Service, b.Service), compareDecisions(a.Decision, b.Decision))
}

func compareDecisions(a, b *observerapi.Decision) int {
	if a == b {
		return 0
	}
	return cmp.Compare(Decider(a), Decider(b))
}

// near reports whether two reports can be about the same connections.
func near(a, b *store.Report, tolerance time.Duration) bool {
	return !a.First.Add(-tolerance).After(b.Last) && !b.First.Add(-tolerance).After(a.Last)
}

// audit puts what is audited beside the decisions of the reports that count the same packets. All reports are of one kind.
func audit(reports []*store.Report, variants *variants) []part {
	slices.SortFunc(reports, order)
	parts := make([]part, 0, len(reports))
	var beside []part
	for _, r := range reports {
		p := part{r, r.Decision, r.Connections, r.Bytes}
		if r.Beside {
			beside = append(beside, p)
		} else {
			parts = append(parts, p)
		}
	}
	for _, b := range beside {
		for i := 0; i < len(parts) && b.connections > 0; i++ {
			p := &parts[i]
			if p.Direction != b.Direction || p.decision.Verdict != b.decision.Verdict || p.decision.Audited != "" || !near(p.Report, b.Report, 0) {
				continue
			}
			n := min(p.connections, b.connections)
			b.take(n)
			if n < p.connections {
				rest := *p
				p.bytes = rest.take(n)
				p.connections = n
				parts = slices.Insert(parts, i+1, rest)
				p = &parts[i]
			}
			p.decision = variants.of(p.decision, b.decision)
		}
	}
	return parts
}

// variants are decisions with what is audited beside them, which flows share.
type variants map[[2]*observerapi.Decision]*observerapi.Decision

func (v *variants) of(decision, audited *observerapi.Decision) *observerapi.Decision {
	key := [2]*observerapi.Decision{decision, audited}
	if d, ok := (*v)[key]; ok {
		return d
	}
	if *v == nil || len(*v) >= maxEnds {
		*v = variants{}
	}
	d := *decision
	d.Audited, d.AuditedBy = audited.Audited, audited.AuditedBy
	(*v)[key] = &d
	return &d
}
