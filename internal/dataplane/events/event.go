package events

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

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
	// Unlisted: the packets are of several kinds that have only the judged pod, Direction, Verdict and Reason
	// in common. The other end is a zero address; both ends are if no pod was judged.
	Unlisted bool
	// Continues: the packets belong to a connection that conntrack has forgotten, and open none. Reply: and they
	// come from its server. WouldBe: the verdict is what it would be if audited policies were enforced, and
	// another record counts the same packets. Only records have these three.
	Continues, Reply, WouldBe bool
	// Direction is that of the end that was judged: the source for Egress, the destination for Ingress.
	Direction policy.Direction
	// Source and Destination as judged: after DNAT, before SNAT. Ports are 0 where the protocol has none.
	// Both are zero addresses (:: or 0.0.0.0) if they could not be read.
	Source, Destination netip.AddrPort
	// OriginalDestination is where the sender sent it, such as a Service's address. It is invalid where
	// conntrack has no entry.
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
	// IfIndex is the interface that the packet, or the first of several, came in by.
	IfIndex uint32
}

func decode(sample []byte) (Event, error) {
	const size = int(unsafe.Sizeof(bpf.FilterEvent{}))
	if len(sample) < size {
		return Event{}, fmt.Errorf("an event of %d bytes where %d are due", len(sample), size)
	}
	raw := *(*bpf.FilterEvent)(unsafe.Pointer(unsafe.SliceData(sample))) // the kernel aligns samples to 8 bytes, and Go copies of them
	at := wallClock(raw.Time)
	e := Event{
		Time: at, First: at, Packets: 1, Bytes: uint64(raw.Bytes),
		Direction:   policy.Direction(raw.Direction),
		Source:      netip.AddrPortFrom(raw.Src.Decode(), raw.Sport),
		Destination: netip.AddrPortFrom(raw.Dst.Decode(), raw.Dport),
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
		e.OriginalDestination = netip.AddrPortFrom(raw.OriginalDst.Decode(), raw.OriginalDport)
	}
	return e, nil
}
