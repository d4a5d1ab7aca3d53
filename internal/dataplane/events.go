package dataplane

import (
	"context"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane/events"
)

// Events calls handle for every event until the context is done, which is no error. There is one reader at a
// time; what handle does not take fast enough is lost and counted. Which verdicts become events is
// Options.Events.
func (d *Dataplane) Events(ctx context.Context, handle func(events.Event)) error {
	return events.Read(ctx, d.objs.Events, handle)
}

// Repeats returns what was counted in place of further events since the last call. Each packet is in one
// event of Events or of Repeats, except those that Counters.UnlistedPackets counts.
func (d *Dataplane) Repeats() ([]events.Event, error) { return d.repeats.Read() }

// Records returns what was judged since the last call, also where no policy isolates the pod: an Event for each
// kind of packets, with its Packets. Each packet is in one of them, except those that Counters.UnrecordedPackets
// counts. Options.Records must be set.
func (d *Dataplane) Records() ([]events.Event, error) { return d.records.Read() }

// eventPace is the program's event_pace and event_ahead, in nanoseconds.
func eventPace(opts Options) (pace, ahead uint64) {
	if opts.EventRate == Unlimited {
		return 0, 0
	}
	pace = max(1, uint64(time.Second)/uint64(opts.EventRate))
	return pace, pace * uint64(opts.EventBurst)
}
