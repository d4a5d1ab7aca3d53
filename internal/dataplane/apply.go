package dataplane

import (
	"errors"
	"fmt"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Apply makes the changes, in the order that compiler.Changes asks for. Each write is idempotent: after an error, which
// leaves the rest unwritten, Apply with the same changes or Sync with the whole goes on where it stopped. A full map is a
// *MapFullError.
func (d *Dataplane) Apply(c compiler.Changes) error {
	d.mu.Lock()
	defer d.mu.Unlock()

	t := &d.tables
	steps := []func() error{
		func() error { return t.interfaces.deleteAll(c.GoneInterfaces) },
		func() error { return t.ports.write(c.Ports) },
		func() error { return t.rows.write(c.Rows) },
		func() error { return t.addresses.write(c.Addresses) },
		func() error { return t.networks.write(c.Networks) },
		func() error { return t.addresses.deleteAll(c.GoneAddresses) },
		func() error { return t.pods.write(c.Pods) },
		func() error { return t.interfaces.write(c.Interfaces) },
		func() error { return t.rows.deleteAll(c.StaleRows) },
		func() error { return t.ports.deleteAll(c.StalePorts) },
	}
	return d.whileWriting(func() error { return inOrder(steps) })
}

// whileWriting has the program know that f writes to the maps: meanwhile it makes sure of what it reads. The caller holds mu.
func (d *Dataplane) whileWriting(f func() error) error {
	next := func() error {
		if err := d.objs.Writes.Set(d.writes + 1); err != nil {
			return fmt.Errorf("set %s of the BPF program: %w", bpf.FilterVarWrites, err)
		}
		d.writes++
		return nil
	}
	if err := next(); err != nil {
		return err
	}
	return errors.Join(f(), next())
}
