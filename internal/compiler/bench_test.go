package compiler

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

func host(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

// nodeWith has pods under policies that all use the same group.
func nodeWith(pods, policies, addresses int) *Compiler {
	c := New()
	var members []netip.Prefix
	for i := range addresses {
		members = append(members, host(i))
	}
	c.UpdateGroup(g1, members, nil)
	var all []*policy.Policy
	for i := range policies {
		all = append(all, ingress(fmt.Sprint("p", i), onPort(from(g1), tcp(uint16(i+1), uint16(i+1)))))
	}
	for i := range pods {
		addr := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		c.SetPod(addr.String(), PodSpec{Addresses: []netip.Addr{addr}, Policies: all})
	}
	return c
}

// One address joins and leaves a group of 10,000 that 50 policies on 110 pods use.
func BenchmarkAddressJoinsAndLeaves(b *testing.B) {
	c := nodeWith(110, 50, 10_000)
	c.Commit()
	writes := 0
	b.ReportAllocs()
	for b.Loop() {
		c.UpdateGroup(g1, []netip.Prefix{host(1 << 20)}, nil)
		changes := c.Commit()
		writes += changes.Len()
		c.UpdateGroup(g1, nil, []netip.Prefix{host(1 << 20)})
		changes = c.Commit()
		writes += changes.Len()
	}
	b.ReportMetric(float64(writes)/float64(b.N), "writes/op")
}

// 110 pods under 50 policies of 10,000 addresses, from nothing.
func BenchmarkFromNothing(b *testing.B) {
	for b.Loop() {
		c := nodeWith(110, 50, 10_000)
		c.Commit()
	}
}

// What an address of a group costs in the agent's own memory.
func BenchmarkMemoryOfAnAddress(b *testing.B) {
	const n = 100_000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := nodeWith(1, 1, n)
		c.Commit()
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(c)
	}
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/n, "B/address")
}

// 110 pods under 5 of 300 policies each, which have groups, blocks with excepts and ports, from nothing.
func BenchmarkOrdinaryPolicies(b *testing.B) {
	const groups, perGroup = 50, 100
	key := func(i int) policy.GroupKey {
		return policy.GroupKey{Namespace: "shop", Name: fmt.Sprint("g", i%groups)}
	}
	var all []*policy.Policy
	for i := range 300 {
		private := policy.Peer{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}
		all = append(all, ingress(fmt.Sprint("p", i),
			onPort(policy.Rule{Peers: policy.ListPeers(policy.Peer{Group: key(i)}, policy.Peer{Group: key(i * 7)})}, tcp(80, 80), tcp(443, 443)),
			onPort(policy.Rule{Peers: policy.ListPeers(policy.Peer{Group: key(i * 13)}, private)}, tcp(uint16(1000+i), uint16(1010+i))),
			from(key(i*3))))
	}
	b.ReportAllocs()
	for b.Loop() {
		c := New()
		for i := range groups {
			var members []netip.Prefix
			for k := range perGroup {
				members = append(members, host(i*60+k))
			}
			c.UpdateGroup(key(i), members, nil)
		}
		for i := range 110 {
			addr := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
			var policies []*policy.Policy
			for k := range 5 {
				policies = append(policies, all[(i*5+k*37)%len(all)])
			}
			c.SetPod(addr.String(), PodSpec{Addresses: []netip.Addr{addr}, Policies: policies})
		}
		c.Commit()
	}
}
