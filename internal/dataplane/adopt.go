package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// adoptNames lets the patterns among the changes that are new have what was learned of their names under other patterns: so an edit of a policy
// from a name to a wildcard above it forgets no address. It comes before the rows of the new patterns. The caller holds mu.
func (d *Dataplane) adoptNames(c *Changes) error {
	fresh := map[compiler.PatternID]string{}
	for _, e := range c.domains.puts {
		if id := compiler.PatternID(e.value.Own); id != 0 && !d.adopted[id] {
			fresh[id] = decodeDomainKey(e.key)
		}
	}
	if len(fresh) == 0 || !d.opts.Names.On {
		return nil
	}
	now, err := bootSeconds()
	if err != nil {
		return err
	}
	byOwner := map[uint64][]compiler.PatternID{}
	err = readBatches(d.objs.Names, func(_ []bpf.FilterPlaceKey, values []bpf.FilterName) error {
		for i := range values {
			name := decodeNameText(values[i].Text[:], values[i].TextAt)
			for id, pattern := range fresh {
				if values[i].Until > now && policy.CoversName(pattern, name) {
					byOwner[values[i].Name] = append(byOwner[values[i].Name], id)
				}
			}
		}
		return nil
	})
	until := map[bpf.FilterAddress]map[compiler.PatternID]uint32{}
	if err == nil && len(byOwner) > 0 {
		err = readBatches(d.objs.Places, func(keys []bpf.FilterPlaceKey, values []bpf.FilterPlace) error {
			for i, v := range values {
				for _, id := range byOwner[keys[i].Owner] {
					if v.Until <= now {
						continue
					}
					if until[v.Address] == nil {
						until[v.Address] = map[compiler.PatternID]uint32{}
					}
					until[v.Address][id] = max(until[v.Address][id], v.Until)
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the learned names: %w", err)
	}
	for addr, ids := range until {
		if err := d.addSlots(addr, ids, now); err != nil {
			return err
		}
	}
	for id := range fresh {
		d.adopted[id] = true
	}
	return nil
}

// addSlots adds patterns to a learned address, as far as it has room. If the program writes the entry at the same time, one of both is lost until
// the next answer.
func (d *Dataplane) addSlots(addr bpf.FilterAddress, ids map[compiler.PatternID]uint32, now uint32) error {
	var v bpf.FilterLearnedAddress
	if err := d.objs.Learned.Lookup(addr, &v); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read %v from BPF map %s: %w", decodeAddr(addr), bpf.FilterMapLearned, err)
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		free := slices.IndexFunc(v.Slots[:], func(slot uint64) bool { return compiler.PatternID(slot) == id })
		if free < 0 {
			free = slices.IndexFunc(v.Slots[:], func(slot uint64) bool { return uint32(slot>>32) <= now })
		}
		if free >= 0 {
			v.Slots[free] = uint64(ids[id])<<32 | uint64(id)
		}
	}
	if err := d.objs.Learned.Update(addr, &v, ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("write %v to BPF map %s: %w", decodeAddr(addr), bpf.FilterMapLearned, err)
	}
	return nil
}
