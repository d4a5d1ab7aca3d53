package events

import (
	"fmt"
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

// wallClock turns a time of bpf_ktime_get_ns (CLOCK_MONOTONIC) into one of this moment's clock.
func wallClock(ns uint64) time.Time {
	now, err := Now()
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(ns - now)) // negative, in two's complement
}
