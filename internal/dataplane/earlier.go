package dataplane

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// EarlierIsolation returns the addresses of pods that the generations before this one isolate, by direction; none if there is no
// earlier generation. It reads no more than what all versions have: a struct pod begins with its sets.
func (d *Dataplane) EarlierIsolation() (map[netip.Addr][2]bool, error) {
	dirs, err := generations(d.opts.BPFFS)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr][2]bool{}
	for _, dir := range dirs {
		pods, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.FilterMapPods), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			continue // half made, or damaged
		}
		addIsolated(pods, out)
		_ = pods.Close()
	}
	return out, nil
}

// addIsolated reads a map of pods. What changes meanwhile may be missing: no agent writes to the map any more.
func addIsolated(pods *ebpf.Map, out map[netip.Addr][2]bool) {
	if pods.ValueSize() < 8 {
		return
	}
	var addr bpf.FilterAddress
	var value []byte
	for entries := pods.Iterate(); entries.Next(&addr, &value); {
		isolated := out[addr.Decode()]
		for _, direction := range policy.Directions {
			set := binary.NativeEndian.Uint32(value[4*direction:])
			isolated[direction] = isolated[direction] || set != 0
		}
		out[addr.Decode()] = isolated
	}
}
