package dataplane

import (
	"errors"
	"slices"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Apply makes the changes. Each write is idempotent. An error leaves the rest unwritten; Apply with the same
// changes, or Sync, then continues. A full map is a *MapFullError.
func (d *Dataplane) Apply(c compiler.Changes) error {
	d.mu.Lock()
	defer d.mu.Unlock()

	return d.write(c)
}

// write makes the changes, and notes them if a Sync is under way. The caller holds mu.
func (d *Dataplane) write(c compiler.Changes) error {
	t := d.maps.target()
	if d.journal != nil {
		t = d.journal.noting(t)
	}
	changes := encodeChanges(&c)
	if err := d.adoptNames(&changes); err != nil {
		return err
	}
	if err := changes.write(t); err != nil {
		return err
	}
	return d.followNames()
}

// Sync makes the maps equal to want: it reads them, compares them (Diff) and writes the changes. It fills a
// new generation, repairs the maps after a failed Apply, and audits a generation that should need no repair.
// Where a map is full it deletes before it writes; in a new generation it goes on with what fits. The drift is returned also with an error, which may have
// left some of it in place.
//
// An Apply meanwhile need not wait for all of this: Sync holds no lock while it reads and compares, and
// writes some entries at a time. After each part it calls between, which may be nil. Between may change want,
// if it then applies what it has changed before it returns; an error of its ends the Sync. Sync leaves alone
// every key that Apply has written since the Sync began, and does not count it as drift: what Sync read there
// is outdated, and Apply has written what want contains. (See journal.)
//
// Between calls neither Sync nor FailClosed. A second Sync waits for the first.
func (d *Dataplane) Sync(want *compiler.Maps, between func() error) (Drift, error) {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if between == nil {
		between = func() error { return nil }
	}

	d.setJournal(newJournal())
	defer d.setJournal(nil)
	have, err := d.maps.read(between)
	if err != nil {
		return Drift{}, err
	}
	changes, err := diff(have, want, between)
	if err != nil {
		return Drift{}, err
	}
	return d.repair(have, changes, between)
}

func (d *Dataplane) setJournal(j *journal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal = j
}

// repairBatch is how many entries repair writes before it lets another writer in. A variable for tests.
var repairBatch = 256

// repair makes changes that Diff found, less those that are outdated.
func (d *Dataplane) repair(have *Contents, c Changes, between func() error) (Drift, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal.correct(&d.maps, have)
	d.journal.prune(&c)
	drift := c.drift(have)

	n := 0
	t := d.journal.respecting(d.maps.target(), func() error {
		if n++; n%repairBatch != 0 {
			return nil
		}
		d.mu.Unlock()
		defer d.mu.Lock()
		return between()
	})
	if err := d.adoptNames(&c); err != nil {
		return drift, err
	}
	err := c.write(t)
	var full *MapFullError
	if errors.As(err, &full) {
		if err = d.makeRoom(&c, t); err == nil {
			err = c.write(t)
		}
	}
	if errors.As(err, &full) && len(have.Pods) == 0 {
		err = errors.Join(err, c.fill(t)) // FailClosed puts pods under what is there
	}
	if err == nil {
		err = d.denyUnknown(false)
	}
	return drift, errors.Join(err, d.followNames())
}

// makeRoom makes the deletions before the rest is written, except of entries that decide about remaining
// pods.
func (d *Dataplane) makeRoom(c *Changes, t target) error {
	if err := c.pods.deleteFrom(t.pods); err != nil {
		return err
	}
	none := func() error { return nil }
	pods, errPods := d.maps.pods.read(none)
	rows, errRows := d.maps.rows.read(none)
	if err := errors.Join(errPods, errRows); err != nil {
		return err
	}
	sets, lists := map[uint32]bool{}, map[uint32]bool{}
	for _, p := range pods {
		for _, set := range p.Sets {
			sets[set] = true
		}
	}
	for k, r := range rows {
		lists[r.PortList] = lists[r.PortList] || sets[k.Set]
	}
	var unused Changes
	unused.addresses.deletes = c.addresses.deletes
	unused.networks.deletes = c.networks.deletes
	unused.rows.deletes = slices.DeleteFunc(slices.Clone(c.rows.deletes), func(k bpf.FilterRowKey) bool { return sets[k.Set] })
	unused.ports.deletes = slices.DeleteFunc(slices.Clone(c.ports.deletes), func(k bpf.FilterPortKey) bool { return lists[k.PortList] })
	return unused.write(t)
}
