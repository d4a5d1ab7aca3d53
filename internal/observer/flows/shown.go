package flows

import (
	"time"

	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Overlap is the age up to which a flow that arrives may have been stored before a follower asked.
const Overlap = 15 * time.Minute

// Shown remembers flows that a follower has got from the store, to show none of their connections again when they arrive. Nil
// remembers nothing.
type Shown map[shownKey][]*observerapi.Flow

type shownKey struct {
	source, destination, protocol string
	port                          uint16
	reply                         bool
	span                          int64
}

// NewShown returns a Shown that is empty.
func NewShown() Shown { return Shown{} }

func keyOf(f *observerapi.Flow) shownKey {
	end := func(e *observerapi.End) string {
		return e.Namespace + "/" + e.Pod + "/" + e.UID + "/" + e.Address.String()
	}
	return shownKey{end(&f.Source), end(&f.Destination), f.Protocol, f.Port, f.Reply, f.First.Truncate(store.Exact).Unix()}
}

// Add notes a flow.
func (s Shown) Add(f *observerapi.Flow) {
	if time.Since(f.Last) < Overlap {
		k := keyOf(f)
		s[k] = append(s[k], f)
	}
}

// Contains reports whether all connections of a flow that arrived are in one that was noted.
func (s Shown) Contains(f *observerapi.Flow) bool {
	for _, before := range s[keyOf(f)] {
		if !f.Last.After(before.Last) && agree(before.Egress, f.Egress) && agree(before.Ingress, f.Ingress) {
			return true
		}
	}
	return false
}

// agree reports whether two decisions of one end can belong to the same flow: one may not have been reported yet.
func agree(a, b *observerapi.Decision) bool {
	return a == nil || b == nil || pairing.Decider(a) == pairing.Decider(b)
}
