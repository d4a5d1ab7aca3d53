package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/policy"
)

// Tuple is one direction of a flow. Ports are 0 where the protocol has none.
type Tuple struct {
	Source, Destination netip.AddrPort
}

// Flow is an entry of conntrack.
type Flow struct {
	Protocol policy.Protocol
	// Original is as the client sent the first packet, to a Service's address perhaps.
	Original Tuple
	// Reply is as the server answers: from its own address, to the client's or, where the client was masqueraded, to the node's.
	Reply Tuple

	// How the kernel names the entry; the same bytes delete it.
	family          byte
	tuple, id, zone []byte
}

// Opened is the flow as its first packet was judged: after DNAT, before SNAT.
func (f *Flow) Opened() policy.Flow {
	return policy.Flow{
		Source: f.Original.Source.Addr(), Destination: f.Reply.Source.Addr(),
		Protocol: f.Protocol, Port: f.Reply.Source.Port(),
	}
}

// Numbers of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = 1
	msgDelete = 2

	attrOriginal = 1 // CTA_TUPLE_ORIG
	attrReply    = 2 // CTA_TUPLE_REPLY
	attrID       = 12
	attrZone     = 18
	attrFilter   = 25

	tupleIP    = 1
	tupleProto = 2

	ipV4Source, ipV4Destination = 1, 2
	ipV6Source, ipV6Destination = 3, 4

	protoNumber, protoSourcePort, protoDestinationPort = 1, 2, 3

	filterSourceAddress = 1 // CTA_FILTER_F_CTA_IP_SRC of net/netfilter/nf_conntrack_netlink.c
)

// filteredDumps is up to how many addresses the kernel is asked about each; for more, all its entries are read once.
const filteredDumps = 4

// Flows are the flows that one of these addresses opened or serves, in the calling thread's network namespace. What is
// only being set up may be missing.
func Flows(addrs ...netip.Addr) ([]Flow, error) {
	c, err := dialConntrack()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()

	var requests []netlink.Message
	if len(addrs) <= filteredDumps {
		for _, a := range addrs {
			requests = append(requests, dumpFrom(a, attrOriginal), dumpFrom(a, attrReply))
		}
	} else {
		requests = []netlink.Message{dumpAll(unix.AF_INET), dumpAll(unix.AF_INET6)}
	}
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a] = true
	}
	var flows []Flow
	seen := map[string]bool{}
	for _, request := range requests {
		messages, err := c.Execute(request)
		if err != nil {
			return nil, fmt.Errorf("read conntrack's entries: %w", err)
		}
		for _, m := range messages {
			f, err := parseFlow(m.Data)
			if err != nil {
				return nil, fmt.Errorf("read conntrack's entries: %w", err)
			}
			if !wanted[f.Original.Source.Addr()] && !wanted[f.Reply.Source.Addr()] || seen[string(f.id)] {
				continue
			}
			seen[string(f.id)] = true
			flows = append(flows, f)
		}
	}
	return flows, nil
}

func dialConntrack() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open conntrack's netlink socket: %w", err)
	}
	return c, nil
}

func conntrackMessage(operation uint16, flags netlink.HeaderFlags, family byte, attributes []byte) netlink.Message {
	header := []byte{family, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | operation), Flags: netlink.Request | flags},
		Data:   append(header, attributes...),
	}
}

func dumpAll(family byte) netlink.Message { return conntrackMessage(msgGet, netlink.Dump, family, nil) }

// dumpFrom asks for the entries whose tuple (attrOriginal or attrReply) has the source address.
func dumpFrom(a netip.Addr, tuple uint16) netlink.Message {
	family, source, filter := byte(unix.AF_INET), uint16(ipV4Source), tuple
	if a.Is6() {
		family, source = unix.AF_INET6, ipV6Source
	}
	ae := netlink.NewAttributeEncoder()
	ae.Nested(tuple, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(tupleIP, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(source, a.AsSlice())
			return nil
		})
		return nil
	})
	ae.Nested(attrFilter, func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(filter, filterSourceAddress) // CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS have the tuples' numbers
		return nil
	})
	attributes, err := ae.Encode()
	if err != nil {
		panic(err) // only of attributes that are too long
	}
	return conntrackMessage(msgGet, netlink.Dump, family, attributes)
}

func parseFlow(data []byte) (Flow, error) {
	if len(data) < 4 {
		return Flow{}, errors.New("an entry without a header")
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return Flow{}, err
	}
	f := Flow{family: data[0]}
	for ad.Next() {
		switch ad.Type() {
		case attrOriginal:
			f.tuple = slices.Clone(ad.Bytes())
			ad.Nested(func(ad *netlink.AttributeDecoder) error { return f.parseTuple(ad, &f.Original) })
		case attrReply:
			ad.Nested(func(ad *netlink.AttributeDecoder) error { return f.parseTuple(ad, &f.Reply) })
		case attrID:
			f.id = ad.Bytes()
		case attrZone:
			f.zone = ad.Bytes()
		}
	}
	return f, ad.Err()
}

func (f *Flow) parseTuple(ad *netlink.AttributeDecoder, t *Tuple) error {
	var source, destination netip.Addr
	var sport, dport uint16
	for ad.Next() {
		switch ad.Type() {
		case tupleIP:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					a, ok := netip.AddrFromSlice(ad.Bytes())
					switch {
					case !ok:
						return fmt.Errorf("an address of %d bytes", ad.Len())
					case ad.Type() == ipV4Source || ad.Type() == ipV6Source:
						source = a
					case ad.Type() == ipV4Destination || ad.Type() == ipV6Destination:
						destination = a
					}
				}
				return nil
			})
		case tupleProto:
			ad.ByteOrder = binary.BigEndian
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case protoNumber:
						f.Protocol = policy.Protocol(ad.Uint8())
					case protoSourcePort:
						sport = ad.Uint16()
					case protoDestinationPort:
						dport = ad.Uint16()
					}
				}
				return nil
			})
		}
	}
	t.Source, t.Destination = netip.AddrPortFrom(source, sport), netip.AddrPortFrom(destination, dport)
	return nil
}
