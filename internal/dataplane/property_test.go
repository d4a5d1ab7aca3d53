package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// evaluatedNode decides about packets with the reference evaluator.
type evaluatedNode struct {
	pods   map[netip.Addr][]*policy.Policy
	groups *compiler.Compiler
}

func (r *evaluatedNode) allows(f policy.Flow) bool {
	if f.Source == f.Destination {
		return true
	}
	return reference.Evaluate(policy.Egress, r.pods[f.Source], f, r.groups).Action == policy.Allow &&
		reference.Evaluate(policy.Ingress, r.pods[f.Destination], f, r.groups).Action == policy.Allow
}

var groupKeys = []policy.GroupKey{{Namespace: "a", Name: "g"}, {Namespace: "b", Name: "g"}, {Namespace: "a", Name: "h"}}

func randomRule(r *rand.Rand, tier policy.Tier) policy.Rule {
	rule := policy.Rule{Everyone: r.IntN(8) == 0, EveryPort: r.IntN(3) == 0}
	switch tier {
	case policy.TierAdmin:
		rule.Action = pick(r, []policy.Action{policy.Allow, policy.Deny, policy.Pass})
	case policy.TierBaseline:
		rule.Action = pick(r, []policy.Action{policy.Allow, policy.Deny})
	case policy.TierNetworkPolicy: // which only allows
	}
	var peers []policy.Peer
	for range r.IntN(4) {
		switch {
		case rule.Everyone:
		case r.IntN(2) == 0:
			peers = append(peers, policy.Peer{Group: pick(r, groupKeys)})
		default:
			cidr, err := pick(r, someAddrs).Prefix(pick(r, []int{0, 8, 15, 24, 31, 32}))
			if err != nil {
				continue
			}
			peer := policy.Peer{CIDR: cidr}
			for _, a := range someAddrs {
				if except, err := a.Prefix(pick(r, someBits)); err == nil && cidr.Contains(a) && except.Bits() > cidr.Bits() && r.IntN(2) == 0 {
					peer.Except = append(peer.Except, except)
				}
			}
			peers = append(peers, peer)
		}
	}
	rule.Peers = policy.ListPeers(peers...)
	for range r.IntN(4) {
		if first, last := pick(r, somePorts), pick(r, somePorts); !rule.EveryPort {
			rule.Ports = append(rule.Ports, policy.PortRange{Protocol: pick(r, someProtocol), First: min(first, last), Last: max(first, last)})
		}
	}
	return rule
}

func randomPolicy(r *rand.Rand, version int64) *policy.Policy {
	p := &policy.Policy{ID: policy.ID{Kind: "NetworkPolicy", Namespace: "a", Name: fmt.Sprint(version)}, Tier: policy.TierNetworkPolicy}
	if r.IntN(3) == 0 {
		p.Tier, p.Priority = pick(r, []policy.Tier{policy.TierAdmin, policy.TierBaseline}), r.Int32N(3)
	}
	for _, d := range policy.Directions {
		if p.Isolates[d] = r.IntN(3) > 0; p.Isolates[d] {
			for range r.IntN(4) {
				p.Rules[d] = append(p.Rules[d], randomRule(r, p.Tier))
			}
		}
	}
	return p
}

// Random policies, compiled, loaded change by change, and met by packets: the program says what the reference
// evaluator says.
func TestEveryPacketIsJudgedAsThePoliciesSay(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := newDataplane(t, dataplane.Options{})
	run := newRunner(t, d)
	c := compiler.New()
	ref := &evaluatedNode{pods: map[netip.Addr][]*policy.Policy{}, groups: c}
	for round := range 300 {
		for range 1 + r.IntN(3) {
			addr := pick(r, someAddrs)
			var policies []*policy.Policy
			for range r.IntN(4) {
				policies = append(policies, randomPolicy(r, int64(round*10+len(policies))))
			}
			slices.SortFunc(policies, policy.Compare)
			c.SetPod(addr.String(), compiler.PodSpec{Addresses: []netip.Addr{addr}, Policies: policies})
			ref.pods[addr] = policies
			members := []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}
			if r.IntN(2) == 0 {
				c.UpdateGroup(pick(r, groupKeys), members, nil)
			} else {
				c.UpdateGroup(pick(r, groupKeys), nil, members)
			}
		}
		check(t, d.Apply(c.Commit()))
		if round%7 == 0 {
			check(t, d.Apply(c.Collect()))
		}
		for range 100 {
			p := randomPacket(r)
			if got, want := run.passes(p), ref.allows(p.Flow); got != want {
				t.Fatalf("round %d, %+v: passes %v, want %v\nsource's policies %+v\ndestination's %+v", round, p.Flow, got, want, ref.pods[p.Source], ref.pods[p.Destination])
			}
		}
	}
	if drift := sync(t, d, c.Maps()); drift.Total() != 0 {
		t.Errorf("after all changes: drift %v", drift)
	}
}

// No cap that is not memory: 100,000 peers of one group, and thousands of ports and ranges for one CIDR.
func TestLargePolicies(t *testing.T) {
	const members, ranges = 100_000, 4_000
	d := newDataplane(t, dataplane.Options{})
	run := newRunner(t, d)
	c := compiler.New()
	group := policy.GroupKey{Namespace: "a", Name: "g"}
	member := func(i int) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 11<<24+uint32(i)*7) // each seventh address
		return netip.AddrFrom4(b)
	}
	var all []netip.Prefix
	for i := range members {
		all = append(all, netip.PrefixFrom(member(i), 32))
	}
	c.UpdateGroup(group, all, nil)
	var ports []policy.PortRange
	for i := range uint16(ranges) {
		ports = append(ports, port(policy.TCP, i*16+3), port(policy.UDP, i*16+5, i*16+9))
	}
	pod := netip.MustParseAddr("10.0.0.1")
	policies := []*policy.Policy{
		isolate(policy.Ingress, policy.Rule{EveryPort: true, Peers: policy.ListPeers(policy.Peer{Group: group})}),
		isolate(policy.Egress, policy.Rule{Ports: ports, Peers: policy.ListPeers(policy.Peer{CIDR: netip.MustParsePrefix("172.16.0.0/12")})}),
	}
	policies[1].ID.Name = "other"
	c.SetPod("pod", compiler.PodSpec{Addresses: []netip.Addr{pod}, Policies: policies})
	check(t, d.Apply(c.Commit()))
	ref := &evaluatedNode{pods: map[netip.Addr][]*policy.Policy{pod: policies}, groups: c}

	r := rand.New(rand.NewPCG(1, 2))
	outside := netip.MustParseAddr("172.16.9.9")
	for i := range 20_000 {
		p := packet{Flow: policy.Flow{Source: member(r.IntN(members + 1000)), Destination: pod, Protocol: policy.TCP, Port: 80}}
		if i%2 == 0 {
			p.Source = netip.AddrFrom4([4]byte{11, byte(r.IntN(12)), byte(r.IntN(256)), byte(r.IntN(256))})
		}
		if i%3 == 0 {
			p.Flow = policy.Flow{Source: pod, Destination: outside, Protocol: pick(r, someProtocol), Port: uint16(r.IntN(1 << 16))}
		}
		if got, want := run.passes(p), ref.allows(p.Flow); got != want {
			t.Fatalf("%+v: passes %v, want %v", p.Flow, got, want)
		}
	}
}
