package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
)

// expiredFor is how long something has been over before ForgetNames removes it.
const expiredFor = 60

// ForgetNames removes what has expired, so that there is room. Addresses with live flows stay: see PatternsOf.
func (d *Dataplane) ForgetNames() error {
	if !d.opts.Names.On {
		return nil
	}
	now, err := bootSeconds()
	if err != nil {
		return err
	}
	isOver := func(until uint32) bool { return until+expiredFor < now }
	gone, err := forget(d.objs.Places, bpf.FilterMapPlaces, func(_ bpf.FilterPlaceKey, v *bpf.FilterPlace) bool { return isOver(v.Until) })
	err = errors.Join(err, d.noteExpired(gone, now))
	_, failed := forget(d.objs.Names, bpf.FilterMapNames, func(_ bpf.FilterPlaceKey, v *bpf.FilterName) bool { return isOver(v.Until) })
	err = errors.Join(err, failed)
	isAllOver := func(v *bpf.FilterLearnedAddress) bool {
		return !slices.ContainsFunc(v.Slots[:], func(slot uint64) bool { return slot != 0 && !isOver(uint32(slot>>32)) })
	}
	over := map[netip.Addr]bool{}
	read := readBatches(d.objs.Learned, func(keys []bpf.FilterAddress, values []bpf.FilterLearnedAddress) error {
		for i := range values {
			if isAllOver(&values[i]) {
				over[decodeAddr(keys[i])] = true
			}
		}
		return nil
	})
	if read != nil || len(over) == 0 {
		return errors.Join(err, read)
	}
	for flows, failed := range conntrack.Flows(slices.Collect(maps.Keys(over))...) {
		if failed != nil {
			return errors.Join(err, failed)
		}
		for i := range flows {
			delete(over, flows[i].Opened().Destination)
		}
	}
	_, failed = forget(d.objs.Learned, bpf.FilterMapLearned, func(k bpf.FilterAddress, v *bpf.FilterLearnedAddress) bool {
		return over[decodeAddr(k)] && isAllOver(v)
	})
	return errors.Join(err, failed)
}

// forget removes entries of a map that the program writes, and returns them. What the program has renewed meanwhile is put back.
func forget[K comparable, V any](m *ebpf.Map, name string, isOver func(K, *V) bool) (map[K]V, error) {
	var keys []K
	err := readBatches(m, func(ks []K, values []V) error {
		for i := range ks {
			if isOver(ks[i], &values[i]) {
				keys = append(keys, ks[i])
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read BPF map %s: %w", name, err)
	}
	gone := map[K]V{}
	for _, k := range keys {
		var v V
		switch err := m.LookupAndDelete(k, &v); {
		case errors.Is(err, ebpf.ErrKeyNotExist):
		case err != nil:
			return gone, fmt.Errorf("delete %v from BPF map %s: %w", k, name, err)
		case !isOver(k, &v):
			if err := m.Update(k, &v, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
				return gone, fmt.Errorf("write %v to BPF map %s: %w", k, name, err)
			}
		default:
			gone[k] = v
		}
	}
	return gone, nil
}
