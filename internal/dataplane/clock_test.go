//go:build ownclock

package dataplane_test

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// The generation that takes over is younger than the one before by its name, whatever the clock says.
func TestTheClockJumpsUnderTraffic(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	tr := threePods(n)
	for _, by := range []time.Duration{24 * time.Hour, -72 * time.Hour, time.Second, 10 * 365 * 24 * time.Hour} {
		netnstest.JumpClock(t, by)
		tr.goesOn()
		n.restart()
		n.wellPinned()
		tr.goesOn()
	}
	tr.stop()
}
