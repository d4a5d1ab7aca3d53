package dataplane

import (
	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Program is the loaded program, to be run on packets that no wire carried.
func (d *Dataplane) Program() *ebpf.Program { return d.objs.Kidoban }

// Maps are the loaded maps, to be damaged.
func (d *Dataplane) Maps() *bpf.FilterMaps { return &d.objs.FilterMaps }
