package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
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
	for chunk := range slices.Chunk(flows, cutAtOnce) {
		// In this order: the servers may send at any moment.
		err := d.revoke(chunk, until)
		if err == nil {
			err = forget(c, chunk)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cutAtOnce is how many flows one system call cuts. As many answers must fit in a socket's buffer.
const cutAtOnce = 100

// revoke holds off what the servers send. Echo replies need no holding: they open nothing.
func (d *Dataplane) revoke(flows []Flow, until uint64) error {
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

// replyKey is how the program knows what a flow's server sends: of some protocols it reads no ports, though conntrack does.
func replyKey(f *Flow) bpf.FilterRevokedKey {
	k := bpf.FilterRevokedKey{
		Src: encodeAddr(f.Reply.Source.Addr()), Dst: encodeAddr(f.Reply.Destination.Addr()), Protocol: uint8(f.Protocol),
	}
	if f.Protocol.HasPorts() {
		k.Sport, k.Dport = f.Reply.Source.Port(), f.Reply.Destination.Port()
	}
	return k
}

// forget has conntrack delete flows.
func forget(c *netlink.Conn, flows []Flow) error {
	var b []byte
	for i := range flows {
		b = appendDelete(b, &flows[i])
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	b = appendLast(b)
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		_, failed = unix.Write(int(fd), b)
		return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("ask conntrack to delete flows: %w", err)
	}
	var errs []error
	for range len(flows) + 1 {
		answers, err := c.Receive()
		switch {
		case err == nil && len(answers) > 0:
			return errors.Join(errs...)
		case errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("delete flows from conntrack: %w", err)
		case err != nil && !errors.Is(err, fs.ErrNotExist): // it is gone already
			errs = append(errs, fmt.Errorf("delete flows from conntrack: %w", err))
		}
	}
	return errors.Join(errs...)
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
