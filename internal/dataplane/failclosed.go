package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// FailClosed is for when Sync could not write everything. A pod that is under its set in the kernel stays so if the set refuses
// too much at worst; one that is to come under a set does if the kernel has all of it; and any other is closed in that direction (ClosedSet).
// Where there is no room for pods themselves, every address that nobody knows behind a workload's interface is refused, as by GuardOn.
// It returns how many addresses are closed now. The next Sync that succeeds puts the real sets in place.
func (d *Dataplane) FailClosed(want *compiler.Maps) (closed int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	err = d.whileWriting(func() error {
		var err error
		closed, err = d.failClosed(want)
		return err
	})
	return closed, err
}

func (d *Dataplane) failClosed(want *compiler.Maps) (int, error) {
	have, err := d.read()
	if err != nil {
		// What cannot be read is not known to be there.
		have = &compiler.Maps{}
	}
	compared := want.Compare(have)
	closed, noRoom := 0, false
	errs := []error{err}
	for addr, pod := range want.Pods {
		now := pod
		for direction, set := range pod.Sets {
			switch {
			case set == 0:
			case have.Pods[addr].Sets[direction] == set && !compared.Open[set]:
			case err == nil && !compared.Differ[set]:
			default:
				now.Sets[direction] = ClosedSet
			}
		}
		isClosed := now.Sets[policy.Ingress] == ClosedSet || now.Sets[policy.Egress] == ClosedSet
		if got, ok := have.Pods[addr]; !ok || got != now {
			var full *MapFullError
			err := d.pods.put(addr, now)
			if errors.As(err, &full) {
				noRoom, isClosed = true, true
			} else {
				errs = append(errs, err)
			}
		}
		if isClosed {
			closed++
		}
	}
	errs = append(errs, d.refuseUnknown(noRoom))
	for index, i := range want.Interfaces {
		errs = append(errs, d.interfaces.put(index, i))
	}
	return closed, errors.Join(errs...)
}

// refuseUnknown has the program refuse who is not in the map of pods, or leave that to the guard again.
func (d *Dataplane) refuseUnknown(on bool) error {
	if err := d.objs.PodsFull.Set(on); err != nil {
		return fmt.Errorf("set %s of the BPF program: %w", bpf.FilterVarPodsFull, err)
	}
	return nil
}

// read reads the maps back, without the interfaces.
func (d *Dataplane) read() (*compiler.Maps, error) {
	t := &compiler.Maps{
		Pods:      map[netip.Addr]compiler.Pod{},
		Addresses: map[netip.Addr]compiler.ClassID{},
		Networks:  map[netip.Prefix]compiler.ClassID{},
		Rows:      map[compiler.RowKey]compiler.Row{},
		Ports:     map[compiler.PortKey]compiler.Decision{},
	}
	return t, errors.Join(
		d.pods.dump(func(k bpf.FilterAddress, v bpf.FilterPod) { t.Pods[decodeAddr(k)] = decodePod(v) }),
		d.addresses.dump(func(k bpf.FilterAddress, v uint32) { t.Addresses[decodeAddr(k)] = compiler.ClassID(v) }),
		d.networks.dump(func(k bpf.FilterNetworkKey, v uint32) { t.Networks[decodeNetwork(k)] = compiler.ClassID(v) }),
		d.rows.dump(func(k bpf.FilterRowKey, v bpf.FilterRow) { t.Rows[decodeRowKey(k)] = decodeRow(v) }),
		d.ports.dump(func(k bpf.FilterPortKey, v bpf.FilterRule) { t.Ports[decodePort(k)] = decodeVerdict(v) }),
	)
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
