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
	"github.com/kidoban/kidoban/internal/policy"
)

// Cut ends flows that are not allowed any more. conntrack forgets them, so that the client's next packet is
// judged anew, as a packet that opens a flow. Until hold has passed, the server's next packets do not open
// them from its side; a flow of its own, such as a TCP SYN between the same ports, is judged as ever. Should
// the client's packets be allowed again meanwhile, the first of them opens the flow and the server's pass as
// replies.
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

	until, err := events.Now()
	if err != nil {
		return err
	}
	until += uint64(hold)
	var errs []error
	for chunk := range slices.Chunk(flows, conntrack.DeletedAtOnce) {
		// In this order: the servers may send at any moment, and a later generation takes over what is held off
		// after it is pinned.
		err := d.revoke(chunk, until)
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

// revoke holds off what the servers send. Echo replies need no holding: they open nothing.
func (d *Dataplane) revoke(flows []conntrack.Flow, until uint64) error {
	var keys []bpf.FilterRevokedKey
	var values []uint64
	for i := range flows {
		f := &flows[i]
		if f.Protocol == policy.ICMP || f.Protocol == policy.ICMPv6 {
			continue
		}
		keys = append(keys, replyKey(f))
		values = append(values, until)
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := d.objs.Revoked.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("write %d flows to BPF map %s: %w", len(keys), bpf.FilterMapRevoked, err)
	}
	return nil
}

// replyKey is the program's key for packets of a flow's server. The program reads no ports of some protocols
// of which conntrack does.
func replyKey(f *conntrack.Flow) bpf.FilterRevokedKey {
	k := bpf.FilterRevokedKey{
		Src: encodeAddr(f.Reply.Source.Addr()), Dst: encodeAddr(f.Reply.Destination.Addr()), Protocol: uint8(f.Protocol),
	}
	if f.Protocol.HasPorts() {
		k.Sport, k.Dport = f.Reply.Source.Port(), f.Reply.Destination.Port()
	}
	return k
}

// inheritRevoked takes over what older generations hold off. Those of a form that this program does not know
// are left.
func (d *Dataplane) inheritRevoked(generation string) error {
	path := filepath.Join(generation, bpf.FilterMapRevoked)
	old, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil // half made, or damaged
	}
	defer func() { _ = old.Close() }()
	mine := d.objs.Revoked
	if old.Type() != mine.Type() || old.KeySize() != mine.KeySize() || old.ValueSize() != mine.ValueSize() {
		return nil
	}
	// Not one by one: that begins again, and ends too early, where the agent of the other generation still cuts.
	err = readBatches(old, func(keys []bpf.FilterRevokedKey, until []uint64) error {
		if len(keys) == 0 {
			return nil
		}
		_, err := mine.BatchUpdate(keys, until, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("take over %s: %w", path, err)
	}
	return nil
}
