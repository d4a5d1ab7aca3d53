package hubble

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// uuid is the same for a flow each time it is read after both ends' nodes have reported it.
func uuid(f *observerapi.Flow) string {
	h := sha256.Sum256([]byte(key(f) + " " + pairing.Decider(f.Egress) + " " + pairing.Decider(f.Ingress)))
	h[6] = h[6]&0x0f | 0x80 // version 8: derived in a way of our own
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// key identifies flows of one kind in one span of time. It does not change when a flow grows or when its second end's node reports.
func key(f *observerapi.Flow) string {
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

// shown remembers flows that were sent, to send none twice where what is stored and what arrives overlap.
type shown map[string][]*observerapi.Flow

func (s shown) add(f *observerapi.Flow) {
	k := key(f)
	s[k] = append(s[k], f)
}

// contains reports whether all connections of a flow that arrived are in a flow that was sent.
func (s shown) contains(f *observerapi.Flow) bool {
	for _, sent := range s[key(f)] {
		if !f.Last.After(sent.Last) && agree(sent.Egress, f.Egress) && agree(sent.Ingress, f.Ingress) {
			return true
		}
	}
	return false
}

// agree reports whether two decisions of one end can belong to the same flow: one may not be reported yet.
func agree(a, b *observerapi.Decision) bool {
	return a == nil || b == nil || pairing.Decider(a) == pairing.Decider(b)
}
