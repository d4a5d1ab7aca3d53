package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// reading is what a packet says, read a second time in another way than the program's.
type reading struct {
	source, destination netip.Addr
	protocol            byte
	port                uint16
	whole               bool // all of it can be read
}

func read(b []byte) reading {
	if b[0]>>4 == 4 || len(b) < 40 {
		return readIPv4(b)
	}
	return readIPv6(b)
}

func readIPv4(b []byte) reading {
	r := reading{source: netip.AddrFrom4([4]byte(b[12:16])), destination: netip.AddrFrom4([4]byte(b[16:20])), protocol: b[9]}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 || total < header || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return r
	}
	return r.upper(b[header:total])
}

func readIPv6(b []byte) reading {
	r := reading{source: netip.AddrFrom16([16]byte(b[8:24])), destination: netip.AddrFrom16([16]byte(b[24:40])), protocol: b[6]}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if b[0]>>4 != 6 || total > len(b) {
		return r
	}
	rest := b[40:total]
	for range 9 {
		size := 0
		switch r.protocol {
		case 0, 43, 60:
			if len(b)-(total-len(rest)) >= 8 {
				size = 8 + 8*int(b[total-len(rest)+1])
			}
		case 51:
			if len(b)-(total-len(rest)) >= 8 {
				size = 8 + 4*int(b[total-len(rest)+1])
			}
		case 44:
			if at := total - len(rest); len(b)-at >= 8 && binary.BigEndian.Uint16(b[at+2:])&0xfff9 == 0 {
				size = 8
			}
		default:
			return r.upper(rest)
		}
		if size == 0 || size > len(rest) {
			return r
		}
		r.protocol, rest = b[total-len(rest)], rest[size:]
	}
	return r
}

func (r reading) upper(b []byte) reading {
	least := map[byte]int{unix.IPPROTO_TCP: 20, unix.IPPROTO_UDP: 8, unix.IPPROTO_SCTP: 12}[r.protocol]
	if r.whole = len(b) >= least; r.whole && least > 0 {
		r.port = binary.BigEndian.Uint16(b[2:])
	}
	return r
}

// FuzzPacket has a packet of any bytes judged, to or from a pod that may be reached on port 80 and may reach
// nothing but it.
func FuzzPacket(f *testing.F) {
	const pod4, pod6, peer4, peer6 = "10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"
	for _, p := range []packet{
		{Flow: flow(peer4, pod4, policy.TCP, 80)},
		{Flow: flow(peer4, pod4, policy.UDP, 81), options: make([]byte, 8)},
		{Flow: flow(pod4, peer4, policy.SCTP, 80)},
		{Flow: flow(peer4, pod4, policy.ICMP, 0)},
		{Flow: flow(peer6, pod6, policy.TCP, 80), extensions: []extension{{kind: 0}, {kind: 60}, {kind: 43}}},
		{Flow: flow(peer6, pod6, policy.UDP, 80), extensions: []extension{{kind: 44}}},
		{Flow: flow(peer6, pod6, policy.TCP, 80), extensions: []extension{{kind: 51, body: []byte{4}}}},
		{Flow: flow("::ffff:10.0.0.2", pod6, policy.TCP, 80)},
		{Flow: flow("fe80::2", pod6, policy.UDP, 80)},
		{Flow: flow("fe80::2", "ff02::fb", policy.UDP, 5353)},
		{Flow: flow(peer6, pod6, policy.ICMPv6, 0), icmp: 135, hopLimit: 255},
	} {
		f.Add(p.ip())
	}
	d := newDataplane(f, dataplane.Options{})
	pods := []netip.Addr{netip.MustParseAddr(pod4), netip.MustParseAddr(pod6)}
	tables := isolated(0, pods...)
	for _, p := range pods {
		entry := tables.Pods[p]
		entry.Sets[policy.Egress] = 1
		tables.Pods[p] = entry
	}
	sync(f, d, tables)
	f.Fuzz(func(t *testing.T, ip []byte) {
		if len(ip) < 20 || len(ip) > 1500 {
			return
		}
		ethertype, family := uint16(unix.ETH_P_IP), byte(unix.NFPROTO_IPV4)
		if ip[0]>>4 != 4 && len(ip) >= 40 {
			ethertype, family = unix.ETH_P_IPV6, unix.NFPROTO_IPV6
		}
		frame := binary.BigEndian.AppendUint16(make([]byte, 12), ethertype)
		verdict, err := d.Program().Run(&ebpf.RunOptions{Data: append(frame, ip...), Context: [2]byte{unix.NF_INET_FORWARD, family}})
		if err != nil {
			t.Fatal(err)
		}
		r := read(ip)
		want := true
		for _, pod := range pods {
			if r.source == pod || r.destination == pod {
				port80 := r.port == 80 && policy.Protocol(r.protocol).HasPorts()
				want = r.whole && (port80 || r.source == r.destination)
			}
		}
		linkLocal := r.source.Is6() && (r.destination.IsLinkLocalUnicast() || r.source.IsLinkLocalUnicast() && !r.destination.IsMulticast())
		if r.source.Is4In6() || r.destination.Is4In6() || linkLocal {
			want = false
		}
		if got := verdict == 1; got != want {
			t.Errorf("% x\npasses %v, want %v: %+v", ip, got, want, r)
		}
	})
}
