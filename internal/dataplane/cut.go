package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// Cut ends flows that are not allowed any more. conntrack forgets them, so that the client's next packet is judged anew, as
// a packet that opens a flow. For as long as hold, the server's next packets do not open them from its side; what is a flow of
// its own, such as a TCP SYN between the same ports, is judged as ever. Should the client's packets be allowed again meanwhile, the
// first of them opens the flow and the server's pass as replies.
//
// That a flow is gone already is no error. Flows that stay allowed must not be cut: without conntrack's entry the replies of
// those that go through NAT would reset them.
//
// The network namespace is that of the calling thread.
func (d *Dataplane) Cut(flows []Flow, hold time.Duration) error {
	if len(flows) == 0 {
		return nil
	}
	c, err := dialConntrack()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()

	until, err := monotonic()
	if err != nil {
		return err
	}
	until += uint64(hold)
	var errs []error
	for i := range flows {
		// In this order: the server may send at any moment.
		err := d.revoke(&flows[i], until)
		if err == nil {
			err = flows[i].delete(c)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// revoke holds off what the server sends. Echo replies need no holding: they open nothing.
func (d *Dataplane) revoke(f *Flow, until uint64) error {
	if f.Protocol == policy.ICMP || f.Protocol == policy.ICMPv6 {
		return nil
	}
	key := bpf.FilterRevokedKey{
		Src: encodeAddr(f.Reply.Source.Addr()), Dst: encodeAddr(f.Reply.Destination.Addr()),
		Sport: f.Reply.Source.Port(), Dport: f.Reply.Destination.Port(),
		Protocol: uint8(f.Protocol),
	}
	if err := d.objs.Revoked.Put(&key, &until); err != nil {
		return fmt.Errorf("write %v to BPF map %s: %w", f.Reply, bpf.FilterMapRevoked, err)
	}
	return nil
}

func (f *Flow) delete(c *netlink.Conn) error {
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(attrOriginal|unix.NLA_F_NESTED, f.tuple)
	ae.Bytes(attrID, f.id)
	if f.zone != nil {
		ae.Bytes(attrZone, f.zone)
	}
	attributes, err := ae.Encode()
	if err == nil {
		_, err = c.Execute(conntrackMessage(msgDelete, netlink.Acknowledge, f.family, attributes))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete the flow %v from conntrack: %w", f.Original, err)
	}
	return nil
}

// inheritRevoked takes over what older generations hold off. Those of a form that this program does not know are left.
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
	var key bpf.FilterRevokedKey
	var until uint64
	for entries := old.Iterate(); entries.Next(&key, &until); {
		if err := mine.Put(&key, &until); err != nil {
			return fmt.Errorf("take over %s: %w", path, err)
		}
	}
	return nil
}

// monotonic is bpf_ktime_get_ns.
func monotonic() (uint64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return uint64(now.Nano()), nil
}
