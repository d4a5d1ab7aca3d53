package pairing

import (
	"fmt"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Overlap is the age up to which a flow that arrives may have been stored before a follower asked: agents push what they have with a delay.
const Overlap = 15 * time.Minute

// Key identifies flows of one kind in one span of time. It does not change when a flow grows or when its second end's node reports.
func Key(f *observerapi.Flow) string {
	var b strings.Builder
	for _, e := range []*observerapi.End{&f.Source, &f.Destination} {
		fmt.Fprintf(&b, "%q %q %q %v ", e.Namespace, e.Pod, e.UID, e.Address)
		if e.Workload != nil {
			fmt.Fprintf(&b, "%q %q ", e.Workload.Kind, e.Workload.Name)
		}
	}
	fmt.Fprintf(&b, "%s %d %t %t %d", f.Protocol, f.Port, f.Continues, f.Reply, f.First.Truncate(store.Exact).Unix())
	return b.String()
}

// Shown remembers flows that a follower has got from the store, to show none of their connections again when they arrive. Nil remembers
// nothing: a follower needs it for as long as Overlap.
type Shown map[string][]*observerapi.Flow

// Add notes a flow for a follower that asked at a time.
func (s Shown) Add(f *observerapi.Flow, asked time.Time) {
	if s != nil && asked.Sub(f.Last) < Overlap {
		k := Key(f)
		s[k] = append(s[k], f)
	}
}

// Contains reports whether all connections of a flow that arrived are in one that was noted.
func (s Shown) Contains(f *observerapi.Flow) bool {
	for _, before := range s[Key(f)] {
		if !f.Last.After(before.Last) && agree(before.Egress, f.Egress) && agree(before.Ingress, f.Ingress) {
			return true
		}
	}
	return false
}

// agree reports whether two decisions of one end can belong to the same flow: one may not have been reported yet.
func agree(a, b *observerapi.Decision) bool { return a == nil || b == nil || Decider(a) == Decider(b) }
