package events

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// Repeats are the two maps that take turns at counting, so that what is read is not written meanwhile.
type Repeats struct {
	mu       sync.Mutex
	slot     *ebpf.Map // holds the one that counts
	counting *ebpf.Map
	resting  *ebpf.Map
}

// NewRepeats makes the maps, of so many entries each, and puts the first into the program's slot.
func NewRepeats(slot *ebpf.Map, entries uint32) (*Repeats, error) {
	spec := &ebpf.MapSpec{
		Name: "repeats", Type: ebpf.Hash, MaxEntries: entries, Flags: bpfNoPrealloc,
		KeySize: uint32(unsafe.Sizeof(bpf.FilterRepeatKey{})), ValueSize: uint32(unsafe.Sizeof(bpf.FilterRepeat{})),
	}
	r := &Repeats{slot: slot}
	for _, m := range []**ebpf.Map{&r.counting, &r.resting} {
		var err error
		if *m, err = ebpf.NewMap(spec); err != nil {
			return nil, errors.Join(fmt.Errorf("make BPF map %s: %w", spec.Name, err), r.Close())
		}
	}
	if err := r.put(r.counting); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close closes the maps in this process.
func (r *Repeats) Close() error {
	return errors.Join(r.counting.Close(), r.resting.Close()) // Close of nil does nothing
}

// bpfNoPrealloc is BPF_F_NO_PREALLOC of include/uapi/linux/bpf.h.
const bpfNoPrealloc = 1

// put makes the program count in m. When it returns no packet is being counted elsewhere: the kernel waits
// for those under way (maybe_wait_bpf_programs in kernel/bpf/syscall.c).
func (r *Repeats) put(m *ebpf.Map) error {
	if err := r.slot.Put(uint32(0), m); err != nil {
		return fmt.Errorf("write the BPF map that has the map that counts: %w", err)
	}
	return nil
}

// Read returns what was counted in place of further events since the last call, an Event for each kind with
// its Packets, and begins anew. A kind that goes on is counted at once then, without another event of its
// own.
func (r *Repeats) Read() ([]Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.put(r.resting); err != nil {
		return nil, err
	}
	r.counting, r.resting = r.resting, r.counting

	var out []Event
	keys, values := make([]bpf.FilterRepeatKey, batch), make([]bpf.FilterRepeat, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := r.resting.BatchLookupAndDelete(&cursor, keys, values, nil)
		for i := range n {
			if values[i].Packets == 0 {
				continue // nothing followed the event
			}
			out = append(out, decodeRepeat(&keys[i], &values[i]))
			r.carryOn(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("read BPF map repeats: %w", err) // the rest is read when the map rests again
		}
	}
}

// batch is how many counts one system call reads.
const batch = 1024

// carryOn begins a count for a kind that was counted before. If that fails the kind begins with an event.
func (r *Repeats) carryOn(k *bpf.FilterRepeatKey, v *bpf.FilterRepeat) {
	fresh := *v
	fresh.Packets, fresh.Bytes, fresh.First, fresh.Last = 0, 0, 0, 0
	_ = r.counting.Update(k, &fresh, ebpf.UpdateNoExist)
}

func decodeRepeat(k *bpf.FilterRepeatKey, v *bpf.FilterRepeat) Event {
	e := Event{
		Time: wallClock(v.Last), First: wallClock(v.First), Packets: v.Packets, Bytes: v.Bytes,
		Unlisted:    k.Flags&uint8(bpf.FilterRepeatFlagsREPEAT_UNLISTED) != 0,
		Continues:   k.Flags&uint8(bpf.FilterRepeatFlagsREPEAT_CONTINUES) != 0,
		Reply:       k.Flags&uint8(bpf.FilterRepeatFlagsREPEAT_REPLY) != 0,
		WouldBe:     k.Flags&uint8(bpf.FilterRepeatFlagsREPEAT_WOULD_BE) != 0,
		Direction:   policy.Direction(k.Direction),
		Source:      netip.AddrPortFrom(k.Src.Decode(), v.Sport),
		Destination: netip.AddrPortFrom(k.Dst.Decode(), k.Dport),
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
		e.OriginalDestination = netip.AddrPortFrom(v.OriginalDst.Decode(), v.OriginalDport)
	}
	return e
}
