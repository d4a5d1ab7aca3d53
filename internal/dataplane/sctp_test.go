package dataplane_test

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

const protocolSCTP = 132

// rawSocket sends and receives whole SCTP packets; a kernel without SCTP leaves them to it.
func rawSocket(t testing.TB, n *netnstest.Namespace, v6 bool) *os.File {
	t.Helper()
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	var f *os.File
	n.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocolSCTP)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "raw")
		return nil
	})
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sctpInit is a packet that opens an association.
func sctpInit(sport, dport uint16) []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b[0:], sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	b[12] = 1                                // INIT
	binary.BigEndian.PutUint16(b[14:], 20)   // chunk length
	binary.BigEndian.PutUint32(b[16:], 4711) // initiate tag
	binary.BigEndian.PutUint32(b[20:], 1<<16)
	binary.BigEndian.PutUint16(b[24:], 1)
	binary.BigEndian.PutUint16(b[26:], 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestSCTP(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.SCTP, 3868), port(policy.TCP, 1))))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		in, out := rawSocket(t, b.Namespace, v6), rawSocket(t, a.Namespace, v6)
		send := func(port uint16) {
			if err := unix.Sendto(int(out.Fd()), sctpInit(5000, port), 0, sockaddr(b.Addr(v6), 0)); err != nil {
				t.Fatal(err)
			}
		}
		// In this order: what arrives first shows that the one before it was kept.
		send(1)
		send(3868)
		buf := make([]byte, 128)
		got, err := receive(int(in.Fd()), buf, netnstest.Patience)
		if err != nil {
			t.Fatalf("nothing arrived: %v", err)
		}
		if !v6 {
			buf = buf[20:] // raw sockets of IPv4 show the IP header
		}
		if port := binary.BigEndian.Uint16(buf[2:]); port != 3868 {
			t.Errorf("a packet of %d bytes to port %d arrived", got, port)
		}
	})
}
