package dataplane

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/events"
)

// Hit is what packets are counted for: a rule or, where Rule is 0, the default of a set.
type Hit struct {
	Rule    compiler.RuleID
	Set     compiler.SetID
	Verdict events.Verdict
}

// RuleHits returns how many packets each rule and default decided since the generation was made: the first
// packet of each allowed flow, and all denied packets.
func (d *Dataplane) RuleHits() (map[Hit]uint64, error) {
	out := map[Hit]uint64{}
	keys, values := make([]bpf.FilterHitKey, dumpBatch), make([]uint64, dumpBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := d.objs.Hits.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			out[Hit{compiler.RuleID(keys[i].Rule), compiler.SetID(keys[i].Set), events.Verdict(keys[i].Verdict)}] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read BPF map %s: %w", bpf.FilterMapHits, err)
		}
	}
}

// ForgetHits removes the count of a rule or set that is no longer in use.
func (d *Dataplane) ForgetHits(h Hit) error {
	key := bpf.FilterHitKey{Rule: uint32(h.Rule), Set: uint32(h.Set), Verdict: uint32(h.Verdict)}
	if err := d.objs.Hits.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete from BPF map %s: %w", bpf.FilterMapHits, err)
	}
	return nil
}
