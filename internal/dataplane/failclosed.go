package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// FailClosed is for when Apply or Sync could not write everything: where want isolates a pod in a direction and nothing is in force
// that does, the pod is closed in it (ClosedSet). What is in force for others stays, but not for addresses that are fresh: what there is under
// those is another pod's. It returns how many addresses are closed now. The next Sync that succeeds puts the real sets in place.
func (d *Dataplane) FailClosed(want map[netip.Addr]compiler.Pod, fresh func(netip.Addr) bool) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	closed := 0
	var errs []error
	for addr, pod := range want {
		now := pod
		inForce, err := d.podInForce(addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for direction, set := range pod.Sets {
			old := inForce.Sets[direction]
			switch {
			case old != 0 && old != ClosedSet && !fresh(addr):
				now.Sets[direction] = old
			case set != 0:
				now.Sets[direction] = ClosedSet
			}
		}
		if now.Sets[0] == ClosedSet || now.Sets[1] == ClosedSet {
			closed++
		}
		errs = append(errs, d.pods.put(addr, now))
	}
	return closed, errors.Join(errs...)
}

func (d *Dataplane) podInForce(addr netip.Addr) (compiler.Pod, error) {
	key, raw := encodeAddr(addr), bpf.FilterPod{}
	err := d.objs.Pods.Lookup(&key, &raw)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return compiler.Pod{}, nil
	}
	if err != nil {
		return compiler.Pod{}, fmt.Errorf("read %v from BPF map %s: %w", addr, bpf.FilterMapPods, err)
	}
	return compiler.Pod{Sets: [2]compiler.SetID{compiler.SetID(raw.Sets[0]), compiler.SetID(raw.Sets[1])}}, nil
}

// Alone reports whether no other generation is pinned on this node.
func (d *Dataplane) Alone() (bool, error) {
	dirs, err := generations(d.opts.BPFFS)
	for _, dir := range dirs {
		if dir != d.dir {
			return false, err
		}
	}
	return true, err
}
