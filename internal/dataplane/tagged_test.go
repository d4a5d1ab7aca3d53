package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// tagged is a UDP datagram in a frame with priority tags (IEEE 802.1Q, VLAN 0), which every receiver takes
// for one without.
func tagged(tags int, to, from net.HardwareAddr, source, destination netip.AddrPort) []byte {
	return udpFrame(tags, to, from, source, destination, make([]byte, 4))
}

// udpFrame is a UDP datagram of up to 200 bytes in a frame.
func udpFrame(tags int, to, from net.HardwareAddr, source, destination netip.AddrPort, message []byte) []byte {
	udp := append(make([]byte, 8), message...)
	binary.BigEndian.PutUint16(udp[0:], source.Port())
	binary.BigEndian.PutUint16(udp[2:], destination.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	addresses := append(source.Addr().AsSlice(), destination.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(udp[6:], checksum(unix.IPPROTO_UDP+uint32(len(udp)), addresses, append(udp, make([]byte, len(udp)%2)...)))
	frame := append(append([]byte{}, to...), from...)
	for range tags {
		frame = append(frame, 0x81, 0, 0, 0)
	}
	if source.Addr().Is6() {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64)
		return append(append(frame, addresses...), udp...)
	}
	ip := append([]byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, addresses...)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	return append(append(append(frame, 8, 0), ip...), udp...)
}

func sendFrame(p *netnstest.Pod, frame []byte) {
	p.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index, Halen: 6})
	})
}

func hardwareAddr(t testing.TB, p *netnstest.Pod) net.HardwareAddr {
	t.Helper()
	eth0, err := p.Link.LinkByName("eth0")
	check(t, err)
	return eth0.Attrs().HardwareAddr
}

// A frame with tags is no way around policies behind a routed veth, and on a bridge with the rule that
// docs/security.md has: br_netfilter does not show it to netfilter.
func TestTaggedFrames(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("bridge/bridge-nf-call-iptables", "1")
	n.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
	n.nft("table bridge pods { chain forward { type filter hook forward priority -200; vlan id 0 drop; }; }")
	bridge := n.AddBridge("cni0")
	for name, p := range map[string][2]*netnstest.Pod{
		"routed":  {n.AddPod("10.9.1.1", "fd09:1::1"), n.AddPod("10.9.1.2", "fd09:1::2")},
		"bridged": {n.AddBridgedPod(bridge, "10.9.0.1", "fd09::1"), n.AddBridgedPod(bridge, "10.9.0.2", "fd09::2")},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := p[0], p[1]
			next := a.Host.Attrs().HardwareAddr
			if name == "bridged" {
				next = hardwareAddr(t, b)
			}
			n.set(a)
			bothFamilies(t, func(t *testing.T, v6 bool) {
				in := inbox(t, b, 53)
				defer func() { _ = in.Close() }()
				for tags := range 3 {
					frame := tagged(tags, next, hardwareAddr(t, a), netip.AddrPortFrom(a.Addr(v6), 5353), netip.AddrPortFrom(b.Addr(v6), 53))
					n.set(b)
					n.flush()
					sendFrame(a, frame)
					if open := tags == 0 || name == "routed"; open && !arrives(t, in, a.Addr(v6), netnstest.Patience) {
						t.Fatalf("%d tags: it does not arrive where no pod is isolated", tags)
					}
					n.set(b, isolate(policy.Ingress))
					n.flush()
					sendFrame(a, frame)
					if arrives(t, in, a.Addr(v6), netnstest.Silence) {
						t.Errorf("%d tags: it passed", tags)
					}
				}
			})
		})
	}
}
