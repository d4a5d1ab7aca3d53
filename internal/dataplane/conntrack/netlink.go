package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/policy"
)

// Numbers of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = 1
	msgDelete = 2

	attrOriginal = 1 // CTA_TUPLE_ORIG
	attrReply    = 2 // CTA_TUPLE_REPLY
	attrID       = 12
	attrMaster   = 14 // CTA_TUPLE_MASTER, the original tuple
	attrZone     = 18
	attrFilter   = 25

	tupleIP    = 1
	tupleProto = 2

	ipV4Source, ipV4Destination = 1, 2
	ipV6Source, ipV6Destination = 3, 4

	protoNumber, protoSourcePort, protoDestinationPort = 1, 2, 3

	attrTypeMask = 0x3fff // NLA_TYPE_MASK of include/uapi/linux/netlink.h

	filterSourceAddress = 1 // CTA_FILTER_F_CTA_IP_SRC of net/netfilter/nf_conntrack_netlink.c
)

func dial() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open conntrack's netlink socket: %w", err)
	}
	return c, nil
}

func message(operation uint16, flags netlink.HeaderFlags, family byte, attributes []byte) netlink.Message {
	data := make([]byte, 0, 4+len(attributes))
	data = append(data, family, unix.NFNETLINK_V0, 0, 0) // struct nfgenmsg
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | operation), Flags: netlink.Request | flags},
		Data:   append(data, attributes...),
	}
}

// dumpAll requests all entries of a family, or of both (AF_UNSPEC).
func dumpAll(family byte) netlink.Message { return message(msgGet, netlink.Dump, family, nil) }

// dumpFrom requests the entries whose tuple (attrOriginal or attrReply) has an IPv4 source address.
func dumpFrom(a netip.Addr, tuple uint16) netlink.Message {
	ae := netlink.NewAttributeEncoder()
	ae.Nested(tuple, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(tupleIP, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(ipV4Source, a.AsSlice())
			return nil
		})
		return nil
	})
	ae.Nested(attrFilter, func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(tuple, filterSourceAddress) // CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS have the tuples' numbers
		return nil
	})
	attributes, err := ae.Encode()
	if err != nil {
		panic(err) // only of attributes that are too long
	}
	return message(msgGet, netlink.Dump, unix.AF_INET, attributes)
}

// dumpBuffer is what one system call reads. The kernel fills at most 32 KiB at a time, and as much only for
// those whose buffer is not smaller.
const dumpBuffer = 32 << 10

// dump sends a request and calls entry for each entry of the answer. Conn.Receive would read each message
// twice and keep all of them.
func dump(c *netlink.Conn, request netlink.Message, entry func(Flow)) error {
	request, err := c.Send(request)
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, dumpBuffer)
	for {
		var n int
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.Read(int(fd), buf)
			return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
		}); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		done, err := eachEntry(buf[:n], request.Header.Sequence, entry)
		if done || err != nil {
			return err
		}
	}
}

// eachEntry reads what one system call has read of a dump, and reports whether it was the last.
func eachEntry(b []byte, sequence uint32, entry func(Flow)) (done bool, _ error) {
	const header = unix.SizeofNlMsghdr
	names := make([]byte, 0, len(b)/2)
	for len(b) >= header {
		size := binary.NativeEndian.Uint32(b)
		if size < header || int(size) > len(b) {
			return true, fmt.Errorf("a message of %d bytes in %d", size, len(b))
		}
		kind, answers, data := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[header:size]
		b = b[min(align(int(size)), len(b)):]
		switch {
		case answers != sequence:
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR && len(data) >= 4:
			if code := int32(binary.NativeEndian.Uint32(data)); code != 0 {
				return true, unix.Errno(-code)
			}
			return true, nil // acknowledged
		case kind == unix.NFNL_SUBSYS_CTNETLINK<<8: // IPCTNL_MSG_CT_NEW
			var f Flow
			var err error
			if f, names, err = parseFlow(data, names); err != nil {
				return true, err
			}
			entry(f)
		}
	}
	return false, nil
}

func align(n int) int { return (n + 3) &^ 3 }

// attributes are those in b, by type; what is cut off at the end is left out.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// parseFlow reads an entry. The kernel's name of it is appended to names, which is returned.
func parseFlow(data, names []byte) (Flow, []byte, error) {
	if len(data) < 4 {
		return Flow{}, names, errors.New("an entry without a header")
	}
	f := Flow{family: data[0]}
	begin := len(names)
	var zone []byte
	for kind, value := range attributes(data[4:]) {
		switch kind {
		case attrOriginal:
			f.Protocol, f.Original = parseTuple(value)
			names = appendAttribute(names, attrOriginal|unix.NLA_F_NESTED, value)
		case attrReply:
			_, f.Reply = parseTuple(value)
		case attrID, attrZone:
			names = appendAttribute(names, kind, value)
			if kind == attrZone {
				zone = appendAttribute(nil, kind, value)
			}
		case attrMaster:
			f.master = appendAttribute(nil, attrOriginal|unix.NLA_F_NESTED, value)
		}
	}
	if !f.Original.Source.IsValid() || !f.Reply.Source.IsValid() {
		return Flow{}, names, errors.New("an entry without addresses")
	}
	f.name = slices.Clip(names[begin:])
	if f.master != nil {
		f.master = append(f.master, zone...)
	}
	return f, names, nil
}

// masterOf reads the flow because of which a helper expected this one; fs.ErrNotExist if it has ended.
func masterOf(c *netlink.Conn, f *Flow) (master Flow, err error) {
	err = dump(c, message(msgGet, netlink.Acknowledge, f.family, f.master), func(f Flow) { master = f })
	return master, err
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, "\x00\x00\x00"[:align(len(value))-len(value)]...)
}

// appendDelete appends a message that deletes an entry. The kernel answers only where it cannot.
func appendDelete(b []byte, f *Flow) []byte {
	header := [4]byte{f.family, unix.NFNETLINK_V0} // struct nfgenmsg
	b = appendHeader(b, len(header)+len(f.name), unix.NFNL_SUBSYS_CTNETLINK<<8|msgDelete, unix.NLM_F_REQUEST)
	b = append(b, header[:]...)
	return append(b, f.name...)
}

// appendLast appends a message that does nothing and is acknowledged: after the answer to it there are no
// more.
func appendLast(b []byte) []byte {
	return appendHeader(b, 0, unix.NLMSG_NOOP, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
}

func appendHeader(b []byte, size int, kind, flags uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+size))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence and port: not needed
}

func parseTuple(b []byte) (p policy.Protocol, t Tuple) {
	var source, destination netip.Addr
	var sport, dport uint16
	for kind, nested := range attributes(b) {
		for inner, value := range attributes(nested) {
			switch {
			case kind == tupleIP && (inner == ipV4Source || inner == ipV6Source):
				source, _ = netip.AddrFromSlice(value)
			case kind == tupleIP && (inner == ipV4Destination || inner == ipV6Destination):
				destination, _ = netip.AddrFromSlice(value)
			case kind == tupleProto && inner == protoNumber && len(value) == 1:
				p = policy.Protocol(value[0])
			case kind == tupleProto && inner == protoSourcePort && len(value) == 2:
				sport = binary.BigEndian.Uint16(value)
			case kind == tupleProto && inner == protoDestinationPort && len(value) == 2:
				dport = binary.BigEndian.Uint16(value)
			}
		}
	}
	return p, Tuple{netip.AddrPortFrom(source, sport), netip.AddrPortFrom(destination, dport)}
}
