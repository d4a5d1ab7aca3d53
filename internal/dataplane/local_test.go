package dataplane_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// own gives a pod the entry for its traffic to the node and to itself.
func (n *node) own(p *netnstest.Pod, flags compiler.PodFlags, policies ...*policy.Policy) {
	n.t.Helper()
	n.compiler.SetPod(p.V4.String()+" own", compiler.PodSpec{
		Addresses: []netip.Addr{compiler.OwnAddress(p.V4), compiler.OwnAddress(p.V6)}, Policies: policies, Flags: flags,
	})
	check(n.t, n.d.Apply(n.compiler.Commit()))
	n.Do(func() error { return n.d.SetJudgesLocal(true) })
}

// denies is a policy of the Admin tier.
func denies(d policy.Direction, r policy.Rule) *policy.Policy {
	p := &policy.Policy{Tier: policy.TierAdmin, ID: policy.ID{Kind: "ClusterNetworkPolicy", Name: "test"}}
	p.Isolates[d] = true
	r.Action = policy.Deny
	p.Rules[d] = []policy.Rule{r}
	return p
}

// everyone is a rule for all peers.
func everyone(ports ...policy.PortRange) policy.Rule {
	return policy.Rule{Everyone: true, Ports: ports, EveryPort: ports == nil}
}

// ownAddresses are the node's.
var ownAddresses = map[bool]netip.Addr{false: netip.MustParseAddr("10.9.255.1"), true: netip.MustParseAddr("fd09:ffff::1")}

func TestAPodsTrafficToItsOwnNodeIsJudgedByClusterPoliciesOnly(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsAll, CountHits: true})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	for _, addr := range ownAddresses {
		n.ownAddress(netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	for _, network := range []string{"tcp", "udp"} {
		n.Echo(network, 80)
		n.Echo(network, 81)
	}
	a.Echo("tcp", 90)
	n.set(a, isolate(policy.Ingress), isolate(policy.Egress))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, a, "tcp", ownAddresses[v6], 80) // NetworkPolicies do not apply
	})
	deny := denies(policy.Egress, everyone(port(policy.TCP, 80), port(policy.UDP, 80)))
	n.set(a, deny, isolate(policy.Ingress), isolate(policy.Egress))
	n.own(a, 0, deny)
	bothFamilies(t, func(t *testing.T, v6 bool) {
		for _, network := range []string{"tcp", "udp"} {
			isKept(t, a, network, ownAddresses[v6], 80)
			reaches(t, a, network, ownAddresses[v6], 81)
			reaches(t, b, network, ownAddresses[v6], 80)
		}
		check(t, n.Ask("tcp", netip.AddrPortFrom(a.Addr(v6), 90), netnstest.Patience)) // as the kubelet's probes do
	})
	n.own(a, compiler.Audit, deny)
	bothFamilies(t, func(t *testing.T, v6 bool) { reaches(t, a, "tcp", ownAddresses[v6], 80) })
	n.own(a, 0, deny)
	n.Do(func() error { return n.d.SetJudgesLocal(false) })
	bothFamilies(t, func(t *testing.T, v6 bool) { reaches(t, a, "tcp", ownAddresses[v6], 80) })
}

// A pod cannot escape the policies by the address of another, or of no pod.
func TestSpoofedSourcesDoNotReachTheOwnNode(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.Sysctl("ipv4/conf/"+a.Host.Attrs().Name+"/rp_filter", "0")
	var in *net.UDPConn
	n.Do(func() (err error) {
		in, err = net.ListenUDP("udp", &net.UDPAddr{Port: 53})
		return err
	})
	defer func() { check(t, in.Close()) }()
	for _, addr := range ownAddresses {
		n.ownAddress(netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	n.set(a)
	n.set(b)
	n.own(a, 0, denies(policy.Egress, everyone(port(policy.UDP, 80))))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		to := netip.AddrPortFrom(ownAddresses[v6], 53)
		before := denied(t, n.d)[events.ReasonSpoofed]
		for _, source := range []netip.Addr{b.Addr(v6), netip.MustParseAddr(map[bool]string{false: "172.31.0.1", true: "fd99::1"}[v6])} {
			sendAs(t, a, source, to)
			if arrives(t, in, source, netnstest.Silence) {
				t.Errorf("a packet with the source %v reached the node", source)
			}
		}
		if got := denied(t, n.d)[events.ReasonSpoofed] - before; got != 2 {
			t.Errorf("%d spoofed packets were counted, want 2", got)
		}
		for _, honest := range pods(a, b) {
			sendAs(t, honest, honest.Addr(v6), to)
			if !arrives(t, in, honest.Addr(v6), netnstest.Patience) {
				t.Errorf("an honest packet from %v was denied", honest.Addr(v6))
			}
		}
	})
}

func TestALiveConnectionToTheOwnNodeGoesOn(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a := n.AddPod("10.9.0.1", "fd09::1")
	n.ownAddress("10.9.255.1/32")
	n.Echo("tcp", 80)
	c, err := a.Dial("tcp", netip.MustParseAddrPort("10.9.255.1:80"), netnstest.Patience)
	check(t, err)
	n.own(a, 0, denies(policy.Egress, everyone()))
	_, err = c.Write([]byte("ping"))
	check(t, err)
	buf := make([]byte, 4)
	_, err = c.Read(buf)
	check(t, err)
	check(t, c.Close())
	isKept(t, a, "tcp", netip.MustParseAddr("10.9.255.1"), 80)
}

func TestAPodsConnectionToItselfThroughAServiceIsJudgedByClusterPoliciesOnly(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a := n.AddPod("10.9.0.1", "fd09::1")
	n.AddAddress(a.Host, "10.9.255.1/32")
	n.AddAddress(a.Host, "fd09:ffff::1/128")
	n.nft(services)
	a.Echo("tcp", 8080)
	n.set(a, isolate(policy.Ingress), isolate(policy.Egress))
	for _, d := range policy.Directions {
		n.own(a, 0, denies(d, everyone(port(policy.TCP, 8080))))
		bothFamilies(t, func(t *testing.T, v6 bool) {
			isKept(t, a, "tcp", virtual(v6, 3), 80)
			reaches(t, a, "tcp", a.Addr(v6), 8080)
		})
		n.own(a, 0, denies(d, everyone(port(policy.TCP, 8081))))
		bothFamilies(t, func(t *testing.T, v6 bool) { reaches(t, a, "tcp", virtual(v6, 3), 80) })
	}
}
