package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"

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
	// Reply is as the server answers: from its own address, to the client's or, where the client was
	// masqueraded, to the node's.
	Reply Tuple
	// Masters are the flow because of which a helper of conntrack expected this one, such as FTP's control
	// connection for its data, and that flow's own masters, each as its first packet was judged. This flow's
	// first packet was not judged but accepted for their sake. Ended flows are left out.
	Masters []policy.Flow

	// The kernel's name of the entry: the attributes of a message that deletes it.
	family byte
	name   []byte
	master []byte // the attributes of a message that asks for the master; nil without
}

// Opened is the flow as its first packet was judged: after DNAT, before SNAT.
func (f *Flow) Opened() policy.Flow {
	return policy.Flow{
		Source: f.Original.Source.Addr(), Destination: f.Reply.Source.Addr(),
		Protocol: f.Protocol, Port: f.Reply.Source.Port(),
	}
}

const (
	// filteredDumps is the largest number of addresses for which the kernel filters, with two passes through
	// its table for each; for more addresses all entries are read once.
	filteredDumps = 2
	// someFlows are returned at a time.
	someFlows = 500
	// mostMasters are more than any helper makes: H.323's media have two masters.
	mostMasters = 4
)

// Flows returns the flows that one of these addresses opened or serves, some hundreds at a time: reading
// continues while the caller handles what was found. A flow that is being set up may be missing, and a flow
// may be there twice if the kernel's table changes meanwhile. An error is the last item.
//
// The network namespace is that of the calling thread.
func Flows(addrs ...netip.Addr) iter.Seq2[[]Flow, error] {
	return func(yield func([]Flow, error) bool) {
		c, err := dial()
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = c.Close() }()

		var failed error
		found, stop := make(chan []Flow, 8), make(chan struct{})
		go func() {
			defer close(found)
			failed = readFlows(c, addrs, func(flows []Flow) {
				select {
				case found <- flows:
				case <-stop:
				}
			})
		}()
		defer func() {
			close(stop)
			for range found { // until the reader is done with the socket
			}
		}()
		for flows := range found {
			if !yield(flows, nil) {
				return
			}
		}
		if failed != nil {
			yield(nil, fmt.Errorf("read conntrack's entries: %w", failed))
		}
	}
}

func readFlows(c *netlink.Conn, addrs []netip.Addr, emit func([]Flow)) error {
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a] = true
	}
	var flows, expected []Flow
	flush := func() {
		if len(flows) > 0 {
			emit(flows)
		}
		flows = make([]Flow, 0, someFlows)
	}
	add := func(f Flow) {
		if flows = append(flows, f); len(flows) >= someFlows {
			flush()
		}
	}
	for _, request := range dumps(addrs) {
		err := dump(c, request, func(f Flow) {
			switch {
			case !wanted[f.Original.Source.Addr()] && !wanted[f.Reply.Source.Addr()]:
			case f.master != nil:
				expected = append(expected, f)
			default:
				add(f)
			}
		})
		if err != nil {
			return err
		}
	}
	for i := range expected {
		if err := findMasters(c, &expected[i]); err != nil {
			return err
		}
		add(expected[i])
	}
	flush()
	return nil
}

func findMasters(c *netlink.Conn, f *Flow) error {
	for from := *f; from.master != nil && len(f.Masters) < mostMasters; {
		master, err := masterOf(c, &from)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask for the master of %v: %w", from.Original, err)
		}
		f.Masters = append(f.Masters, master.Opened())
		from = master
	}
	return nil
}

// dumps are the requests that find the flows of some addresses. The kernel's filter works for IPv4 only: for
// IPv6 it drops those that it should keep (ctnetlink_filter_match_tuple takes ipv6_addr_cmp's 0 for
// "unequal").
func dumps(addrs []netip.Addr) []netlink.Message {
	var v4 []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			v4 = append(v4, a)
		}
	}
	var requests []netlink.Message
	switch {
	case len(v4) > filteredDumps && len(v4) < len(addrs):
		return []netlink.Message{dumpAll(unix.AF_UNSPEC)}
	case len(v4) > filteredDumps:
		return []netlink.Message{dumpAll(unix.AF_INET)}
	case len(v4) < len(addrs):
		requests = append(requests, dumpAll(unix.AF_INET6))
	}
	for _, a := range v4 {
		requests = append(requests, dumpFrom(a, attrOriginal), dumpFrom(a, attrReply))
	}
	return requests
}
