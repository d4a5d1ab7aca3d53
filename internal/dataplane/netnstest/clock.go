//go:build ownclock

package netnstest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// JumpClock moves the machine's clock, and moves it back when the test ends. It is for machines that are the
// test's own: a clock has no namespace.
func JumpClock(t testing.TB, by time.Duration) {
	t.Helper()
	jump := func(by time.Duration) {
		now := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatalf("set the clock: %v", err)
		}
	}
	jump(by)
	t.Cleanup(func() { jump(-by) })
}
