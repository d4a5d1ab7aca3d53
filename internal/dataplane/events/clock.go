package events

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the program's clock, bpf_ktime_get_ns.
func Now() (uint64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return uint64(now.Nano()), nil
}

// wallOffset is what the time of day is ahead of the program's clock, in nanoseconds.
var wallOffset atomic.Int64

// steady is the difference up to which wallOffset stays. Measuring it anew for each event would change the
// order of events that are microseconds apart. A larger difference means that the time of day was set.
const steady = time.Millisecond

// wallClock turns a time of bpf_ktime_get_ns (CLOCK_MONOTONIC) into one of this moment's clock.
func wallClock(ns uint64) time.Time {
	before, err := Now()
	wall := time.Now()
	after, err2 := Now()
	if err != nil || err2 != nil {
		return wall
	}
	// The two clocks cannot be read at once: the true offset is between these.
	most, least := wall.UnixNano()-int64(before), wall.UnixNano()-int64(after)
	offset := wallOffset.Load()
	if offset > most+int64(steady) || offset < least-int64(steady) {
		offset = least + (most-least)/2
		wallOffset.Store(offset)
	}
	return time.Unix(0, int64(ns)+offset)
}
