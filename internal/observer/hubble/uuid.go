package hubble

import (
	"crypto/sha256"
	"fmt"

	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// uuid is the same for a flow each time it is read after both ends' nodes have reported it.
func uuid(f *observerapi.Flow) string {
	h := sha256.Sum256([]byte(pairing.Key(f) + " " + pairing.Decider(f.Egress) + " " + pairing.Decider(f.Ingress)))
	h[6] = h[6]&0x0f | 0x80 // version 8: derived in a way of our own
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
