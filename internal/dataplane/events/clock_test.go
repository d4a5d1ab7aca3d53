package events

import (
	"testing"
	"time"
)

// Events of one packet are a microsecond apart, and are sorted by time. An interruption while the clocks are
// read must not change their order.
func TestTheWallClockKeepsDistances(t *testing.T) {
	now, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	first := wallClock(now)
	if away := time.Since(first).Abs(); away > time.Minute {
		t.Errorf("%s away from the time of day", away)
	}
	for range 200_000 {
		first := wallClock(now)
		if got := wallClock(now + 1000).Sub(first); got != time.Microsecond {
			t.Fatalf("a microsecond is %s", got)
		}
	}
}

// A time of day that is set is taken over.
func TestTheWallClockFollowsATimeThatIsSet(t *testing.T) {
	now, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	right := wallClock(now)
	wallOffset.Add(int64(time.Hour))
	if got := wallClock(now).Sub(right).Abs(); got > time.Second {
		t.Errorf("%s away", got)
	}
}
