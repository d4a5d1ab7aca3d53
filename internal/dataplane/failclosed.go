package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// FailClosed is for when Sync could not write everything. A pod that is under its set in the kernel stays so
// if the set denies too much at worst; one that is to come under a set does if the kernel has all of it; and
// any other is put under DenyAll in that direction. Where there is no room for pods themselves, every unknown
// address behind a workload's interface is denied, as by GuardOn. It returns how many addresses are denied
// everything in some direction now. The next Sync that succeeds puts the real sets in place.
//
// An Apply meanwhile waits while pods are written, not while the maps are read.
func (d *Dataplane) FailClosed(want *compiler.Maps) (denied int, err error) {
	return d.failClosed(want, func() error { return nil })
}

// failClosed is FailClosed. It calls between after each batch that it has read.
func (d *Dataplane) failClosed(want *compiler.Maps, between func() error) (denied int, err error) {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()

	d.setJournal(newJournal())
	defer d.setJournal(nil)
	read, err := d.maps.read(between)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = d.journal.reread(&d.maps, read)
	}
	have := read.Decode()
	if err != nil {
		have = &compiler.Maps{} // nothing is known to be there
	}
	noRoom := false
	errs := []error{err}
	for addr, pod := range denyIncomplete(have, want, err == nil) {
		isDenied := pod.Sets[policy.Ingress] == DenyAll || pod.Sets[policy.Egress] == DenyAll
		if got, ok := have.Pods[addr]; !ok || got != pod {
			err := d.write(compiler.Changes{Pods: []compiler.Write[netip.Addr, compiler.Pod]{{Key: addr, Value: pod}}})
			var full *MapFullError
			if errors.As(err, &full) {
				noRoom, isDenied = true, true
			} else {
				errs = append(errs, err)
			}
		}
		if isDenied {
			denied++
		}
	}
	errs = append(errs, d.denyUnknown(noRoom))
	for index, i := range want.Interfaces {
		errs = append(errs, d.write(compiler.Changes{Interfaces: []compiler.Write[uint32, compiler.Interface]{{Key: index, Value: i}}}))
	}
	return denied, errors.Join(errs...)
}

// denyIncomplete returns the pods' entries that are safe with what the maps have. Where not all of it is
// known, no pod comes under another set.
func denyIncomplete(have, want *compiler.Maps, allKnown bool) map[netip.Addr]compiler.Pod {
	compared := want.Compare(have)
	out := make(map[netip.Addr]compiler.Pod, len(want.Pods))
	for addr, pod := range want.Pods {
		for direction, set := range pod.Sets {
			switch {
			case set == 0:
			case have.Pods[addr].Sets[direction] == set && !compared.Open[set]:
			case allKnown && !compared.Differ[set]:
			default:
				pod.Sets[direction] = DenyAll
			}
		}
		for direction, set := range pod.AuditSets {
			if !allKnown || compared.Differ[set] {
				pod.AuditSets[direction] = 0 // rather no audit than a wrong one
			}
		}
		out[addr] = pod
	}
	return out
}

// denyUnknown makes the program deny every address that is not in the map of pods, or leaves that to the
// guard again.
func (d *Dataplane) denyUnknown(on bool) error {
	if err := d.objs.PodsFull.Set(on); err != nil {
		return fmt.Errorf("set %s of the BPF program: %w", bpf.FilterVarPodsFull, err)
	}
	return nil
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
