package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// MapDrift is how far a map was from what it should have been, in entries.
type MapDrift struct {
	Map                   string
	Missing, Wrong, Extra int
}

// Drift is what Sync found and repaired, a MapDrift for each map of Usage.
type Drift []MapDrift

// Total is the number of entries that were not as they should have been.
func (d Drift) Total() int {
	n := 0
	for _, m := range d {
		n += m.Missing + m.Wrong + m.Extra
	}
	return n
}

// Sync makes the maps hold exactly want: it fills a new generation, heals after a failed Apply, and is the audit of one
// that should need none. What is missing or wrong is written first, what others refer to before them; then what is too much
// is deleted, in the opposite order; where a map is full, before that. The drift is returned also with an error, which may have left some of it in place.
func (d *Dataplane) Sync(want *compiler.Maps) (Drift, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	t := &d.tables
	ports, errPorts := t.ports.compare(want.Ports)
	rows, errRows := t.rows.compare(want.Rows)
	networks, errNetworks := t.networks.compare(want.Networks)
	addresses, errAddresses := t.addresses.compare(want.Addresses)
	pods, errPods := t.pods.compare(want.Pods)
	interfaces, errInterfaces := t.interfaces.compare(want.Interfaces)
	drift := Drift{pods.MapDrift, addresses.MapDrift, networks.MapDrift, rows.MapDrift, ports.MapDrift, interfaces.MapDrift}
	if err := errors.Join(errPods, errAddresses, errNetworks, errRows, errPorts, errInterfaces); err != nil {
		return drift, err
	}
	// No pod is to be refused its own address because its interface is known before it is.
	for _, w := range pods.puts {
		if v, ok := want.Interfaces[w.Value.IfIndex]; ok {
			interfaces.extra = append(interfaces.extra, w.Value.IfIndex)
			interfaces.puts = append(interfaces.puts, compiler.Write[uint32, compiler.Interface]{Key: w.Value.IfIndex, Value: v})
		}
	}

	// No address is to meet, for a moment, a prefix that is not its longest one.
	slices.SortFunc(networks.puts, func(a, b compiler.Write[netip.Prefix, compiler.ClassID]) int {
		return cmp.Compare(b.Key.Bits(), a.Key.Bits())
	})
	slices.SortFunc(networks.extra, func(a, b bpf.FilterNetworkKey) int { return cmp.Compare(a.Prefixlen, b.Prefixlen) })

	steps := []func() error{
		func() error { return t.interfaces.deleteRaw(interfaces.extra) },
		func() error { return t.ports.write(ports.puts) },
		func() error { return t.rows.write(rows.puts) },
		func() error { return t.addresses.write(addresses.puts) },
		func() error { return t.networks.write(networks.puts) },
		func() error { return t.pods.write(pods.puts) },
		func() error { return t.interfaces.write(interfaces.puts) },
		func() error { return t.pods.deleteRaw(pods.extra) },
		func() error { return t.addresses.deleteRaw(addresses.extra) },
		func() error { return t.networks.deleteRaw(networks.extra) },
		func() error { return t.rows.deleteRaw(rows.extra) },
		func() error { return t.ports.deleteRaw(ports.extra) },
	}
	err := d.whileWriting(func() error {
		err := inOrder(steps)
		var full *MapFullError
		if !errors.As(err, &full) {
			return err
		}
		if err := t.makeRoom(pods.extra, addresses.extra, networks.extra, rows.extra, ports.extra); err != nil {
			return err
		}
		return inOrder(steps)
	})
	if err == nil {
		err = d.refuseUnknown(false)
	}
	return drift, err
}

func inOrder(steps []func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom deletes what is too much before the rest is written, less what the pods that stay are judged by in the kernel.
func (t *tables) makeRoom(pods, addresses []bpf.FilterAddress, networks []bpf.FilterNetworkKey, rows []bpf.FilterRowKey, ports []bpf.FilterPortKey) error {
	sets, used := map[uint32]bool{}, map[uint32]bool{}
	err := errors.Join(
		t.pods.deleteRaw(pods),
		t.pods.dump(func(_ bpf.FilterAddress, p bpf.FilterPod) { sets[p.Sets[0]], sets[p.Sets[1]] = true, true }),
		t.rows.dump(func(k bpf.FilterRowKey, r bpf.FilterRow) { used[r.Table] = used[r.Table] || sets[k.Set] }),
	)
	if err != nil {
		return err
	}
	return errors.Join(
		t.addresses.deleteRaw(addresses),
		t.networks.deleteRaw(networks),
		t.rows.deleteRaw(slices.DeleteFunc(slices.Clone(rows), func(k bpf.FilterRowKey) bool { return sets[k.Set] })),
		t.ports.deleteRaw(slices.DeleteFunc(slices.Clone(ports), func(k bpf.FilterPortKey) bool { return used[k.Table] })),
	)
}

// difference is what takes a map to what it should be.
type difference[K, RK comparable, V any] struct {
	MapDrift
	puts  []compiler.Write[K, V]
	extra []RK // as found: they may be nothing that the tables could say
}

// compare reads the whole map.
func (t *table[K, V, RK, RV]) compare(want map[K]V) (difference[K, RK, V], error) {
	diff := difference[K, RK, V]{MapDrift: MapDrift{Map: t.name}}
	wanted := func(k K) (V, bool) {
		if v, ok := want[k]; ok {
			return v, t.valid == nil || t.valid(k)
		}
		v, ok := t.standing[k]
		return v, ok
	}

	found := uint32(0)
	right := make(map[K]struct{}, len(want))
	err := t.dump(func(rk RK, rv RV) {
		found++
		k := t.decodeKey(rk)
		v, ok := wanted(k)
		switch {
		case !ok || t.encodeKey(k) != rk:
			diff.Extra++
			diff.extra = append(diff.extra, rk)
			return
		case t.encodeValue(v) != rv:
			diff.Wrong++
			diff.puts = append(diff.puts, compiler.Write[K, V]{Key: k, Value: v})
		}
		right[k] = struct{}{}
	})
	if err != nil {
		return diff, err
	}
	t.entries.Store(found)

	missing := func(k K) {
		if _, ok := right[k]; ok {
			return
		}
		if v, ok := wanted(k); ok {
			diff.Missing++
			diff.puts = append(diff.puts, compiler.Write[K, V]{Key: k, Value: v})
			right[k] = struct{}{}
		}
	}
	for k := range want {
		missing(k)
	}
	for k := range t.standing {
		missing(k)
	}
	return diff, nil
}

// dumpBatch is how many entries one system call reads. A hash map needs room for its fullest bucket.
const dumpBatch = 1024

// dump calls f for every entry. Entries that come or go meanwhile may be seen or not; only this package makes any.
func (t *table[K, V, RK, RV]) dump(f func(RK, RV)) error {
	keys, values := make([]RK, dumpBatch), make([]RV, dumpBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := t.m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(keys[i], values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read BPF map %s: %w", t.name, err)
		}
	}
}
