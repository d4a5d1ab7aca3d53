package dataplane

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Patiently is how writes to maps are tried.
var Patiently = patiently

// ReplyKey is how the program knows what a flow's server sends.
func ReplyKey(f Flow) (sport, dport uint16) {
	k := replyKey(&f)
	return k.Sport, k.Dport
}

// Program is the loaded program, to be run on packets that no wire carried.
func (d *Dataplane) Program() *ebpf.Program { return d.objs.Kidoban }

// Maps are the loaded maps, to be damaged.
func (d *Dataplane) Maps() *bpf.FilterMaps { return &d.objs.FilterMaps }

// Change has the generations that New makes from now on until the test ends be of another build.
func Change(t testing.TB, change func(*ebpf.CollectionSpec)) {
	t.Helper()
	loadSpec = func() (*ebpf.CollectionSpec, error) {
		spec, err := bpf.LoadFilter()
		if err == nil {
			change(spec)
		}
		return spec, err
	}
	t.Cleanup(func() { loadSpec = bpf.LoadFilter })
}
