package dataplane_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// Conntrack knows ports of protocols of which the program reads none.
func TestRecordsOfACutFlow(t *testing.T) {
	server, client := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	f := conntrack.Flow{Reply: conntrack.Tuple{Source: netip.AddrPortFrom(server, 53), Destination: netip.AddrPortFrom(client, 4000)}}
	const (
		ofServer, ofClient = bpf.FilterRevokedKindREVOKED_SERVER, bpf.FilterRevokedKindREVOKED_CLIENT
		peer, pod          = bpf.FilterRevokedKindREVOKED_PEER, bpf.FilterRevokedKindREVOKED_POD
	)
	for _, tc := range []struct {
		name     string
		protocol policy.Protocol
		pods     []netip.Addr
		owner    netip.Addr
		port     uint16
		kinds    []bpf.FilterRevokedKind
	}{
		{"the client's if both are pods", policy.TCP, []netip.Addr{server, client}, client, 53, []bpf.FilterRevokedKind{ofClient, pod}},
		{"the server's if the client is none", policy.UDP, []netip.Addr{server}, server, 53, []bpf.FilterRevokedKind{ofServer, peer, pod}},
		{"SCTP", policy.SCTP, []netip.Addr{server}, server, 53, []bpf.FilterRevokedKind{ofServer, pod}},
		{"a protocol of whose ports the program reads none", 136, []netip.Addr{client}, client, 0, []bpf.FilterRevokedKind{ofClient, peer, pod}},
		{"a masqueraded flow to another host", policy.TCP, nil, netip.Addr{}, 0, nil},
		{"echo", policy.ICMP, []netip.Addr{server, client}, netip.Addr{}, 0, nil},
	} {
		f.Protocol = tc.protocol
		keys := dataplane.RevokedKeys(f, tc.pods...)
		var kinds []bpf.FilterRevokedKind
		for _, k := range keys {
			kinds = append(kinds, k.Kind)
			if k.Pod.Decode() != tc.owner {
				t.Errorf("%s: a record is of %v, want %v", tc.name, k.Pod.Decode(), tc.owner)
			}
		}
		if !slices.Equal(kinds, tc.kinds) || len(keys) > 0 && keys[0].Port != tc.port {
			t.Errorf("%s: records %+v", tc.name, keys)
		}
	}
}

// sendTo sends a datagram to each of a pod's ports first, first + 1, ...
func sendTo(from, to *netnstest.Pod, first, n int) {
	from.Do(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		for port := first; port < first+n; port++ {
			// A closed port's answer makes the next write fail.
			for {
				if _, err := c.WriteToUDP([]byte("x"), &net.UDPAddr{IP: to.V4.AsSlice(), Port: port}); err == nil {
					break
				}
			}
		}
		return nil
	})
}

// revoked are the map's records, with the number of each pod's.
func (n *node) revoked() (records map[bpf.FilterRevokedKey]bpf.FilterRevocation, counts map[netip.Addr]int) {
	n.t.Helper()
	records, counts = map[bpf.FilterRevokedKey]bpf.FilterRevocation{}, map[netip.Addr]int{}
	var key bpf.FilterRevokedKey
	var value bpf.FilterRevocation
	entries := n.d.Maps().Revoked.Iterate()
	for entries.Next(&key, &value) {
		records[key] = value
		counts[key.Pod.Decode()]++
	}
	check(n.t, entries.Err())
	return records, counts
}

// A tenant that has many flows of its own cut neither takes the records of others, nor makes them coarser.
func TestNoPodEvictsTheCutFlowsOfAnother(t *testing.T) {
	n := newNode(t, dataplane.Options{Sizes: dataplane.Sizes{Revoked: 256}})
	attacker, victim := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	own, other := n.AddPod("10.9.0.11", "fd09::11"), n.AddPod("10.9.0.12", "fd09::12")
	n.set(attacker)
	n.set(victim)
	n.set(own)
	client, server := live(t, attacker, victim, "tcp", netip.AddrPortFrom(victim.V4, 8080), 8080)
	n.set(victim, isolate(policy.Ingress))
	n.cut(n.flows(victim.V4)...)

	n.set(other)
	sendTo(own, other, 1000, 2000)
	n.set(other, isolate(policy.Ingress))
	n.cut(n.flows(other.V4)...)

	if push(t, server, client, netnstest.Silence) || push(t, client, server, netnstest.Silence) {
		t.Error("a cut flow came back")
	}
	_, counts := n.revoked()
	if counts[attacker.V4] != 1 || counts[own.V4] > 70 || counts[own.V4] == 0 || counts[other.V4] != 0 {
		t.Errorf("records by pod: %v", counts)
	}
	// What is coarser is the tenant's, and stays denied.
	other.Echo("udp", 2500)
	isKept(t, own, "udp", other.V4, 2500)
	isHeldOff(t, n, flow(other.V4.String(), own.V4.String(), policy.UDP, 4000), 2500)
	isHeldOff(t, n, flow(other.V4.String(), own.V4.String(), policy.UDP, 4000), 2999)
}

// isHeldOff checks that a packet that opens no flow is not allowed though policies would allow it.
func isHeldOff(t *testing.T, n *node, f policy.Flow, sport uint16) {
	t.Helper()
	if newRunner(t, n.d).passes(packet{Flow: f, sport: sport, flags: 0x10}) {
		t.Errorf("%v from port %d passes", f, sport)
	}
}

// A pod that has more flows cut than its share is recorded as a whole: what belongs to no flow of conntrack passes
// only if it is allowed in both directions.
func TestAFullShareIsCoarserAndNotOpen(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b, peer := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	n.set(b, isolate(policy.Ingress, with(pods(peer))), isolate(policy.Egress, with(pods(a, peer))))
	run := newRunner(t, n.d)
	toA, toPeer := flow(b.V4.String(), a.V4.String(), policy.TCP, 40000), flow(b.V4.String(), peer.V4.String(), policy.TCP, 40000)
	var flows []conntrack.Flow
	for port := range 100 {
		flows = append(flows, conntrack.Flow{Protocol: policy.TCP, Reply: conntrack.Tuple{
			Source: netip.AddrPortFrom(b.V4, uint16(1000+port)), Destination: netip.AddrPortFrom(a.V4, 40000),
		}})
	}
	if !run.passes(packet{Flow: toA, sport: 1000, flags: 0x10}) {
		t.Fatal("a packet of a flow that conntrack has lost does not pass")
	}
	for range 2 {
		check(t, n.d.Revoke(flows, hold))
		for _, f := range flows {
			isHeldOff(t, n, toA, f.Reply.Source.Port())
		}
		if !run.passes(packet{Flow: toPeer, sport: 1000, flags: 0x10}) {
			t.Error("a packet of a flow that is allowed does not pass")
		}
		if !run.passes(packet{Flow: toA, sport: 1000, flags: 0x02}) {
			t.Error("a SYN does not pass")
		}
		if !run.passes(packet{Flow: flow(b.V4.String(), a.V4.String(), policy.UDP, 53), sport: 1000}) {
			t.Error("another protocol does not pass")
		}
		if records, _ := n.revoked(); len(records) != 1 {
			t.Errorf("%d records, want one of the pod", len(records))
		}
		n.restart()
		run = newRunner(t, n.d)
	}
}

// Expired records give their place to new ones, and so do those of pods that are gone when the map is full.
func TestPlacesOfRecordsAreFreed(t *testing.T) {
	n := newNode(t, dataplane.Options{Sizes: dataplane.Sizes{Revoked: 8}})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a)
	n.set(b)
	revoke := func(server *netnstest.Pod, first int, hold time.Duration) {
		t.Helper()
		for port := first; port < first+8; port++ {
			check(t, n.d.Revoke([]conntrack.Flow{{Protocol: policy.TCP, Reply: conntrack.Tuple{
				Source: netip.AddrPortFrom(server.V4, uint16(port)), Destination: netip.MustParseAddrPort("192.0.2.1:40000"),
			}}}, hold))
		}
	}
	precise := func(want *netnstest.Pod, first int) {
		t.Helper()
		records, counts := n.revoked()
		if len(records) != 8 || counts[want.V4] != 8 {
			t.Fatalf("records by pod: %v", counts)
		}
		for k := range records {
			if k.Kind != bpf.FilterRevokedKindREVOKED_SERVER || int(k.Port) < first {
				t.Errorf("record %+v", k)
			}
		}
	}
	revoke(a, 1000, 0)
	precise(a, 1000)
	revoke(a, 2000, hold)
	precise(a, 2000)
	revoke(b, 1000, hold) // no room: the pod as a whole
	if _, counts := n.revoked(); counts[a.V4] != 8 || counts[b.V4] != 1 {
		t.Fatalf("records by pod: %v", counts)
	}
	n.compiler.DeletePod(a.V4.String())
	check(t, n.d.Apply(n.compiler.Commit()))
	c := n.AddPod("10.9.0.3", "fd09::3")
	n.set(c)
	revoke(c, 3000, hold)
	if _, counts := n.revoked(); counts[a.V4] != 0 || counts[b.V4] != 1 || counts[c.V4] != 8 {
		t.Errorf("records by pod: %v", counts)
	}
}

// A server that goes on sending keeps its flow cut.
func TestEachHitHoldsAgain(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	client, server := live(t, a, b, "tcp", netip.AddrPortFrom(b.V4, 8080), 8080)
	_ = client
	n.set(b, isolate(policy.Ingress))
	found := n.flows(b.V4)
	n.Do(func() error { return n.d.Cut(found, 4*time.Second) })
	until := func() uint64 {
		records, _ := n.revoked()
		if len(records) != 1 {
			t.Fatalf("records %v", records)
		}
		for _, r := range records {
			return r.Until
		}
		return 0
	}
	first := until()
	_, err := server.Write([]byte("x")) // sent again and again
	check(t, err)
	deadline := time.Now().Add(netnstest.Patience)
	for until() == first {
		if time.Now().After(deadline) {
			t.Fatal("hits do not renew the record")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if push(t, server, client, netnstest.Silence) {
		t.Error("the flow came back")
	}
}
