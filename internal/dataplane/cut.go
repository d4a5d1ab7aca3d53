package dataplane

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/events"
)

// Cut ends flows that are not allowed any more. conntrack forgets them, so that the client's next packet is
// judged anew, as a packet that opens a flow. Until hold has passed, the servers' next packets do not open them
// from their side, unless the policies allow the clients' packets again. Of TCP and SCTP each such packet makes
// the hold begin anew. A flow of its own, such as a TCP SYN between the same ports, is judged as ever.
//
// That a flow is gone already is no error. Flows that stay allowed must not be cut: without conntrack's entry
// the replies of those that go through NAT would reset them.
//
// If a later generation has taken over, Cut deletes nothing and returns ErrSuperseded: what this one holds off
// is not held off by the one that judges.
//
// The network namespace is that of the calling thread.
func (d *Dataplane) Cut(flows []conntrack.Flow, hold time.Duration) error {
	if len(flows) == 0 {
		return nil
	}
	deleter, err := conntrack.NewDeleter()
	if err != nil {
		return err
	}
	defer func() { _ = deleter.Close() }()

	now, err := events.Now()
	if err != nil {
		return err
	}
	var errs []error
	for chunk := range slices.Chunk(flows, conntrack.DeletedAtOnce) {
		// In this order: the servers may send at any moment, and a later generation takes over what is held off
		// after it is pinned.
		err := d.revoke(chunk, now, hold)
		if err == nil {
			err = d.checkLatest()
		}
		if err == nil {
			err = deleter.Delete(chunk)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// revoke holds off what the servers send. A flow whose every packet may open it is held off once, and one that
// begins with a packet of its own for as long as the server goes on.
func (d *Dataplane) revoke(flows []conntrack.Flow, now uint64, hold time.Duration) error {
	var opening, others []conntrack.Flow
	for i := range flows {
		if hasOpening(flows[i].Protocol) {
			opening = append(opening, flows[i])
		} else {
			others = append(others, flows[i])
		}
	}
	return errors.Join(
		d.revoked.add(opening, bpf.FilterRevocation{Until: now + uint64(hold), Hold: uint64(hold)}),
		d.revoked.add(others, bpf.FilterRevocation{Until: now + uint64(hold)}),
	)
}

// inheritRevoked takes over what an older generation holds off.
func (d *Dataplane) inheritRevoked(generation string) error {
	path := filepath.Join(generation, bpf.FilterMapRevoked)
	old, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil // half made, or damaged
	}
	defer func() { _ = old.Close() }()
	if err := d.revoked.inherit(old); err != nil {
		return fmt.Errorf("take over %s: %w", path, err)
	}
	return nil
}

// isPod reports whether the program has a pod with this address.
func (d *Dataplane) isPod(a bpf.FilterAddress) bool {
	_, err := d.maps.pods.get(a)
	return err == nil
}
