package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// repeats are the two maps that take turns at counting, so that what is read is not written meanwhile.
type repeats struct {
	mu       sync.Mutex
	slot     *ebpf.Map // holds the one that counts
	counting *ebpf.Map
	resting  *ebpf.Map
}

func (r *repeats) init(slot *ebpf.Map, entries uint32) error {
	spec := &ebpf.MapSpec{
		Name: "repeats", Type: ebpf.Hash, MaxEntries: entries, Flags: bpfNoPrealloc,
		KeySize: uint32(unsafe.Sizeof(bpf.FilterRepeatKey{})), ValueSize: uint32(unsafe.Sizeof(bpf.FilterRepeat{})),
	}
	r.slot = slot
	for _, m := range []**ebpf.Map{&r.counting, &r.resting} {
		var err error
		if *m, err = ebpf.NewMap(spec); err != nil {
			return fmt.Errorf("make BPF map %s: %w", spec.Name, err)
		}
	}
	return r.put(r.counting)
}

func (r *repeats) close() error {
	return errors.Join(r.counting.Close(), r.resting.Close()) // nil is closed already
}

// bpfNoPrealloc is BPF_F_NO_PREALLOC of include/uapi/linux/bpf.h.
const bpfNoPrealloc = 1

// put has the program count in m. When it returns no packet is being counted elsewhere: the kernel waits for those under way
// (maybe_wait_bpf_programs in kernel/bpf/syscall.c).
func (r *repeats) put(m *ebpf.Map) error {
	if err := r.slot.Put(uint32(0), m); err != nil {
		return fmt.Errorf("write BPF map %s: %w", bpf.FilterMapCounting, err)
	}
	return nil
}

// Repeats gives what was counted in place of further events since the last call, an Event for each kind with its Packets, and begins
// anew. A kind that goes on is counted at once then, without another event of its own. Each packet is in one event of Events or of
// Repeats, unless Counters.UnlistedPackets says otherwise.
func (d *Dataplane) Repeats() ([]Event, error) {
	r := &d.repeats
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.put(r.resting); err != nil {
		return nil, err
	}
	r.counting, r.resting = r.resting, r.counting

	var out []Event
	keys, values := make([]bpf.FilterRepeatKey, dumpBatch), make([]bpf.FilterRepeat, dumpBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := r.resting.BatchLookupAndDelete(&cursor, keys, values, nil)
		for i := range n {
			if values[i].Packets == 0 {
				continue // the event was all
			}
			out = append(out, decodeRepeat(&keys[i], &values[i]))
			r.carryOn(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("read BPF map repeats: %w", err) // what is left is read when the map's turn comes again
		}
	}
}

// carryOn has a kind counted that was counted before. Where that fails it begins with an event.
func (r *repeats) carryOn(k *bpf.FilterRepeatKey, v *bpf.FilterRepeat) {
	fresh := *v
	fresh.Packets, fresh.Bytes, fresh.First, fresh.Last = 0, 0, 0, 0
	_ = r.counting.Update(k, &fresh, ebpf.UpdateNoExist)
}

func decodeRepeat(k *bpf.FilterRepeatKey, v *bpf.FilterRepeat) Event {
	e := Event{
		Time: wallClock(v.Last), First: wallClock(v.First), Packets: v.Packets, Bytes: v.Bytes, Unlisted: k.Unlisted != 0,
		Direction:   policy.Direction(k.Direction),
		Source:      netip.AddrPortFrom(decodeAddr(k.Src), 0),
		Destination: netip.AddrPortFrom(decodeAddr(k.Dst), k.Dport),
		Protocol:    policy.Protocol(k.Protocol),
		Verdict:     Verdict(k.Verdict),
		Reason:      Reason(k.Reason),
		Tier:        policy.Tier(k.Tier),
		Rule:        compiler.RuleID(k.Rule),
		Set:         compiler.SetID(k.Set),
		Flags:       compiler.PodFlags(v.PodFlags),
		IfIndex:     v.Ifindex,
	}
	if v.OriginalDst != (bpf.FilterAddress{}) {
		e.OriginalDestination = netip.AddrPortFrom(decodeAddr(v.OriginalDst), v.OriginalDport)
	}
	return e
}

// eventPace is the program's event_pace and event_ahead, in nanoseconds.
func eventPace(opts Options) (pace, ahead uint64) {
	if opts.EventRate == Unlimited {
		return 0, 0
	}
	pace = max(1, uint64(time.Second)/uint64(opts.EventRate))
	return pace, pace * uint64(opts.EventBurst)
}
