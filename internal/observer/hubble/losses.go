package hubble

import (
	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// losses adds up what is missing since the last message about it.
type losses struct {
	number uint64
	source flowpb.LostEventSource
}

func (l *losses) add(loss *observerapi.Loss) {
	if isUncounted(loss) {
		return
	}
	number := max(loss.Packets, loss.Records)
	source := lossSource(loss.Reason)
	if l.number > 0 && l.source != source {
		source = flowpb.LostEventSource_UNKNOWN_LOST_EVENT_SOURCE
	}
	l.number, l.source = l.number+number, source
}

// isUncounted reports whether the number of what is missing is not known: the node did not report, or had no agent.
func isUncounted(l *observerapi.Loss) bool { return l.Packets == 0 && l.Records == 0 }

// take returns what was added since it was called last; nil: nothing.
func (l *losses) take() *flowpb.LostEvent {
	if l.number == 0 {
		return nil
	}
	out := &flowpb.LostEvent{Source: l.source, NumEventsLost: l.number}
	*l = losses{}
	return out
}

// lossSource is where records were lost, in the closest of Hubble's words: in the kernel, on the way to the observer, or on the way to
// the client.
func lossSource(reason string) flowpb.LostEventSource {
	switch reason {
	case "map", "ring", "rate":
		return flowpb.LostEventSource_PERF_EVENT_RING_BUFFER
	case "queue":
		return flowpb.LostEventSource_OBSERVER_EVENTS_QUEUE
	case LossReader:
		return flowpb.LostEventSource_HUBBLE_RING_BUFFER
	}
	return flowpb.LostEventSource_UNKNOWN_LOST_EVENT_SOURCE
}
