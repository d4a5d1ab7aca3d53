package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// judgedBy are the maps of the pod 10.0.0.1, to which so many peers from 11.0.0.0 on may connect. With tiers, an Admin policy passes them on and
// denies as many from 12.0.0.0 on, and a Baseline policy denies the rest.
func judgedBy(peers int, tiers bool) *compiler.Maps {
	c := compiler.New()
	group := func(name string, first byte) policy.Peer {
		key := policy.GroupKey{Namespace: "default", Name: name}
		var members []netip.Prefix
		for i := range peers {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], uint32(first)<<24|uint32(i))
			members = append(members, netip.PrefixFrom(netip.AddrFrom4(a), 32))
		}
		c.UpdateGroup(key, members, nil)
		return policy.Peer{Group: key}
	}
	allowed := group("allowed", 11)
	policies := []*policy.Policy{isolate(policy.Ingress, policy.Rule{Peers: policy.ListPeers(allowed), Ports: []policy.PortRange{port(policy.TCP, 80)}})}
	if tiers {
		admin := denies(policy.Ingress, policy.Rule{Peers: policy.ListPeers(group("denied", 12)), EveryPort: true})
		admin.Rules[policy.Ingress] = append(admin.Rules[policy.Ingress],
			policy.Rule{Action: policy.Pass, Peers: policy.ListPeers(allowed), Ports: []policy.PortRange{port(policy.TCP, 1, 1023)}})
		baseline := denies(policy.Ingress, everyone())
		baseline.Tier = policy.TierBaseline
		policies = []*policy.Policy{admin, policies[0], baseline}
	}
	c.SetPod("pod", compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Policies: policies})
	c.Commit()
	return c.Maps()
}

// BenchmarkTiers is of first packets that three tiers judge, beside the same ones that a NetworkPolicy alone judges.
func BenchmarkTiers(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		alone, tiers := newDataplane(b, dataplane.Options{}), newDataplane(b, dataplane.Options{})
		sync(b, alone, judgedBy(n, false))
		sync(b, tiers, judgedBy(n, true))
		for name, p := range map[string]packet{
			"accepted": {Flow: flow("11.0.0.0", "10.0.0.1", policy.TCP, 80)},
			"denied":   {Flow: flow("12.0.0.0", "10.0.0.1", policy.TCP, 80)},
		} {
			b.Run(fmt.Sprintf("%s/peers=%d", name, n), func(b *testing.B) {
				var one, three float64
				for b.Loop() {
					one += nsPerRun(b, alone.Program(), p.ip())
					three += nsPerRun(b, tiers.Program(), p.ip())
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(one/float64(b.N), "networkpolicy-ns/packet")
				b.ReportMetric(three/float64(b.N), "tiers-ns/packet")
				b.ReportMetric(three/one, "tiers/networkpolicy")
			})
		}
	}
}
