package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// extension headers of IPv6 that tests put before the upper layer.
type extension struct {
	kind byte
	body []byte // from the length byte on; fills up to 8 bytes by itself
}

// packet is made into bytes as an honest sender would, unless edit says otherwise.
type packet struct {
	policy.Flow
	sport      uint16
	flags      byte        // of TCP; 0: SYN
	icmp       byte        // type
	hopLimit   byte        // 0: 64
	options    []byte      // of IPv4, a multiple of 4 bytes
	extensions []extension // of IPv6
	payload    []byte      // instead of the upper layer
	edit       func(ip []byte) []byte
}

func (p packet) upper() []byte {
	if p.payload != nil {
		return p.payload
	}
	var b []byte
	switch p.Protocol {
	case policy.TCP:
		b = make([]byte, 20)
		b[12] = 5 << 4
		b[13] = p.flags
		if p.flags == 0 {
			b[13] = 0x02
		}
	case policy.UDP:
		b = make([]byte, 12)
		binary.BigEndian.PutUint16(b[4:], 12)
	case policy.SCTP:
		b = make([]byte, 16)
	default:
		b = make([]byte, 8)
		b[0] = p.icmp
		return b
	}
	binary.BigEndian.PutUint16(b[0:], p.sport)
	binary.BigEndian.PutUint16(b[2:], p.Port)
	return b
}

// ip is the packet from its IP header on. Checksums are left out: nothing before the program looks at them
// here.
func (p packet) ip() []byte {
	upper := p.upper()
	hopLimit := p.hopLimit
	if hopLimit == 0 {
		hopLimit = 64
	}
	var b []byte
	if p.Source.Is4() {
		b = make([]byte, 20, 128)
		b[0] = 4<<4 | byte(5+len(p.options)/4)
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(p.options)+len(upper)))
		b[8], b[9] = hopLimit, byte(p.Protocol)
		copy(b[12:], p.Source.AsSlice())
		copy(b[16:], p.Destination.AsSlice())
		b = append(append(b, p.options...), upper...)
	} else {
		b = make([]byte, 40, 128)
		b[0] = 6 << 4
		next := 6 // where the next header's number goes
		for _, e := range p.extensions {
			b[next] = e.kind
			next = len(b)
			header := append([]byte{0}, e.body...)
			for len(header) < 8 {
				header = append(header, 0)
			}
			b = append(b, header...)
		}
		b[next] = byte(p.Protocol)
		b = append(b, upper...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		b[7] = hopLimit
		copy(b[8:], p.Source.AsSlice())
		copy(b[24:], p.Destination.AsSlice())
	}
	if p.edit != nil {
		b = p.edit(b)
	}
	return b
}

// runner runs the program on packets without a wire, as if conntrack had nothing to say about them.
type runner struct {
	t       testing.TB
	program *ebpf.Program
	frame   []byte
}

func newRunner(t testing.TB, d *dataplane.Dataplane) *runner {
	return &runner{t: t, program: d.Program()}
}

func (r *runner) options(p packet) *ebpf.RunOptions {
	ethertype, family := uint16(unix.ETH_P_IP), byte(unix.NFPROTO_IPV4)
	if p.Source.Is6() {
		ethertype, family = unix.ETH_P_IPV6, unix.NFPROTO_IPV6
	}
	r.frame = append(r.frame[:0], make([]byte, 14)...)
	binary.BigEndian.PutUint16(r.frame[12:], ethertype)
	r.frame = append(r.frame, p.ip()...)
	return &ebpf.RunOptions{Data: r.frame, Context: [2]byte{unix.NF_INET_FORWARD, family}} // the start of struct nf_hook_state
}

// passes runs the program once.
func (r *runner) passes(p packet) bool {
	r.t.Helper()
	verdict, err := r.program.Run(r.options(p))
	if err != nil {
		r.t.Fatalf("run the program on %v: %v", p.Flow, err)
	}
	return verdict == 1 // NF_ACCEPT
}

func flow(source, destination string, protocol policy.Protocol, port uint16) policy.Flow {
	return policy.Flow{Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination), Protocol: protocol, Port: port}
}

// mapped is the key of an address.
func mapped(a string) bpf.FilterAddress {
	b := netip.MustParseAddr(a).As16()
	var out bpf.FilterAddress
	for i := range out.Word {
		out.Word[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}
