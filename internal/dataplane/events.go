package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// Event is a verdict about one direction of a packet that opens a flow, or of several such packets (Repeats).
type Event struct {
	// Time of the packet, or of the last of several.
	Time time.Time
	// First is the time of the first of several packets; that of the packet otherwise.
	First time.Time
	// Packets is their number, Bytes their length with IP headers.
	Packets, Bytes uint64
	// Unlisted: the packets are of several kinds, which have in common the pod that was judged, Direction, Verdict and Reason. The other end is a zero
	// address, or both where the verdict is about no pod.
	Unlisted bool
	// Direction says which end was judged: the source for Egress, the destination for Ingress.
	Direction policy.Direction
	// Source and Destination as judged: after DNAT, before SNAT. Ports are 0 where the protocol has none. Both are zero
	// addresses (:: or 0.0.0.0) where not even they could be read.
	Source, Destination netip.AddrPort
	// OriginalDestination is where the sender sent it, such as a Service's address. It is invalid where conntrack has no entry.
	OriginalDestination netip.AddrPort
	Protocol            policy.Protocol
	Verdict             Verdict
	Reason              Reason
	// Tier, Rule and Set of the verdict, for ReasonRule and ReasonDefault.
	Tier policy.Tier
	Rule compiler.RuleID
	Set  compiler.SetID
	// Flags of the pod that was judged.
	Flags compiler.PodFlags
	// IfIndex of the interface that the packet, or the first of several, came in by.
	IfIndex uint32
}

// Events calls handle for every event until the context is done, which is no error. There is one reader at a time; what
// handle does not take fast enough is lost and counted. Which verdicts become events is Options.Events.
func (d *Dataplane) Events(ctx context.Context, handle func(Event)) error {
	r, err := ringbuf.NewReader(d.objs.Events)
	if err != nil {
		return fmt.Errorf("open the ring of events: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = r.Close() })()
	defer func() { _ = r.Close() }()

	var record ringbuf.Record
	for {
		switch err := r.ReadInto(&record); {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read the ring of events: %w", err)
		}
		e, err := decodeEvent(record.RawSample)
		if err != nil {
			return err
		}
		handle(e)
	}
}

func decodeEvent(sample []byte) (Event, error) {
	const size = int(unsafe.Sizeof(bpf.FilterEvent{}))
	if len(sample) < size {
		return Event{}, fmt.Errorf("an event of %d bytes where %d are due", len(sample), size)
	}
	raw := *(*bpf.FilterEvent)(unsafe.Pointer(unsafe.SliceData(sample))) // the kernel aligns samples to 8 bytes, and Go copies of them
	at := wallClock(raw.Time)
	e := Event{
		Time: at, First: at, Packets: 1, Bytes: uint64(raw.Bytes),
		Direction:   policy.Direction(raw.Direction),
		Source:      netip.AddrPortFrom(decodeAddr(raw.Src), raw.Sport),
		Destination: netip.AddrPortFrom(decodeAddr(raw.Dst), raw.Dport),
		Protocol:    policy.Protocol(raw.Protocol),
		Verdict:     Verdict(raw.Verdict),
		Reason:      Reason(raw.Reason),
		Tier:        policy.Tier(raw.Tier),
		Rule:        compiler.RuleID(raw.Rule),
		Set:         compiler.SetID(raw.Set),
		Flags:       compiler.PodFlags(raw.PodFlags),
		IfIndex:     raw.Ifindex,
	}
	if raw.OriginalDst != (bpf.FilterAddress{}) {
		e.OriginalDestination = netip.AddrPortFrom(decodeAddr(raw.OriginalDst), raw.OriginalDport)
	}
	return e, nil
}

// wallClock turns a time of bpf_ktime_get_ns (CLOCK_MONOTONIC) into one of this moment's clock.
func wallClock(ns uint64) time.Time {
	now, err := monotonic()
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(ns - now)) // negative, in two's complement
}
