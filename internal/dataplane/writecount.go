package dataplane

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// writeCount is a variable of the program. It goes up when a write to a map begins and when that write ends,
// so it is odd in between. The kernel gives the memory that one write frees to the next one, also while a
// program still reads it: the program trusts a copy of an entry if at most one write took place meanwhile.
type writeCount struct {
	variable *ebpf.Variable
	n        uint32
	fence    atomic.Uint32
}

// during makes one write, which is a put or a delete of one entry.
func (c *writeCount) during(write func() error) error {
	if err := c.step(); err != nil {
		return err
	}
	return errors.Join(write(), c.step())
}

// step sets the variable, which is memory that the program shares. No CPU sees this before what was written
// earlier, nor after what is written later.
func (c *writeCount) step() error {
	c.orderStores()
	if err := c.variable.Set(c.n + 1); err != nil {
		return fmt.Errorf("set %s of the BPF program: %w", bpf.FilterVarWrites, err)
	}
	c.orderStores()
	c.n++
	return nil
}

// orderStores keeps the stores before it ahead of those after it. The memory model of Go has no such barrier,
// but a store is one for all that comes before it, and a load for all that comes after it, and Go keeps these
// two in order.
func (c *writeCount) orderStores() {
	c.fence.Store(0)
	c.fence.Load()
}
