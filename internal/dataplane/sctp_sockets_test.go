//go:build sctp

package dataplane_test

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// These tests need a kernel with SCTP's own sockets, as `make test-kernels` has them. TestSCTP sends packets
// and runs everywhere.

// sctpSocket is a one-to-one socket (RFC 6458, 4), bound to one address: an association is of one path.
func sctpSocket(t testing.TB, p *netnstest.Pod, v6 bool, port int) *os.File {
	t.Helper()
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	var f *os.File
	p.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "sctp")
		return unix.Bind(fd, sockaddr(p.Addr(v6), port))
	})
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// await repeats a call on a socket, which does not block, until it does not ask to be repeated.
func await(socket *os.File, within time.Duration, write bool, call func(fd int) error) error {
	if err := socket.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	wait := raw.Read
	if write {
		wait = raw.Write
	}
	var result error
	err = wait(func(fd uintptr) bool {
		result = call(int(fd))
		return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINPROGRESS) && !errors.Is(result, unix.EALREADY)
	})
	return errors.Join(err, result)
}

// sctpListen hands over each association's end.
func sctpListen(t testing.TB, p *netnstest.Pod, v6 bool, port int) <-chan *os.File {
	t.Helper()
	listener := sctpSocket(t, p, v6, port)
	accepted := make(chan *os.File)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	check(t, await(listener, netnstest.Patience, false, func(fd int) error { return unix.Listen(fd, 8) }))
	go func() {
		for {
			var f *os.File
			err := await(listener, time.Hour, false, func(fd int) error {
				end, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				if err == nil {
					f = os.NewFile(uintptr(end), "sctp")
				}
				return err
			})
			if err != nil {
				return
			}
			select {
			case accepted <- f:
			case <-done:
				_ = f.Close()
				return
			}
		}
	}()
	return accepted
}

func sctpDial(t testing.TB, from *netnstest.Pod, to netip.AddrPort, within time.Duration) (*os.File, error) {
	t.Helper()
	socket := sctpSocket(t, from, to.Addr().Is6(), 0)
	return socket, await(socket, within, true, func(fd int) error {
		err := unix.Connect(fd, sockaddr(to.Addr(), int(to.Port())))
		if errors.Is(err, unix.EISCONN) {
			return nil
		}
		return err
	})
}

// sctpPush is push for associations.
func sctpPush(t testing.TB, from, to *os.File, within time.Duration) bool {
	t.Helper()
	_, err := from.Write([]byte("push"))
	check(t, err)
	check(t, to.SetReadDeadline(time.Now().Add(within)))
	_, err = to.Read(make([]byte, 64))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func TestSCTPAssociations(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		n := newNode(t, dataplane.Options{})
		a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
		n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.SCTP, 3868), port(policy.TCP, 3869))))
		accepted := sctpListen(t, b, v6, 3868)
		sctpListen(t, b, v6, 3869)

		if _, err := sctpDial(t, a, netip.AddrPortFrom(b.Addr(v6), 3869), netnstest.Silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an association with a port that is open for TCP only: %v", err)
		}
		client, err := sctpDial(t, a, netip.AddrPortFrom(b.Addr(v6), 3868), netnstest.Patience)
		check(t, err)
		var server *os.File
		select {
		case server = <-accepted:
		case <-time.After(netnstest.Patience):
			t.Fatal("no association opened")
		}
		t.Cleanup(func() { _ = server.Close() })
		if !sctpPush(t, client, server, netnstest.Patience) || !sctpPush(t, server, client, netnstest.Patience) {
			t.Fatal("an allowed association does not work")
		}

		n.set(b, isolate(policy.Ingress))
		found := n.flows(b.Addr(v6))
		want := policy.Flow{Source: a.Addr(v6), Destination: b.Addr(v6), Protocol: policy.SCTP, Port: 3868}
		if len(found) != 1 || found[0].Opened() != want {
			t.Fatalf("flows %+v", found)
		}
		n.cut(found...)
		if sctpPush(t, client, server, netnstest.Silence) {
			t.Error("the client still gets through")
		}
		if sctpPush(t, server, client, netnstest.Silence) {
			t.Error("the server opened the flow again")
		}
		if _, err := sctpDial(t, a, netip.AddrPortFrom(b.Addr(v6), 3868), netnstest.Silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a new association: %v", err)
		}
	})
}
