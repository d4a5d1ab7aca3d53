package compiler

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

var (
	podAddr = netip.MustParseAddr("10.9.0.1")
	g1      = policy.GroupKey{Namespace: "shop", Name: "g1"}
	g2      = policy.GroupKey{Namespace: "shop", Name: "g2"}
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func ingress(name string, rules ...policy.Rule) *policy.Policy {
	return &policy.Policy{
		ID:       policy.ID{Kind: "NetworkPolicy", Namespace: "shop", Name: name},
		Tier:     policy.TierNetworkPolicy,
		Isolates: [2]bool{policy.Ingress: true},
		Rules:    [2][]policy.Rule{policy.Ingress: rules},
	}
}

func from(group policy.GroupKey) policy.Rule {
	return policy.Rule{Peers: policy.ListPeers(policy.Peer{Group: group}), EveryPort: true}
}

func onPort(r policy.Rule, ports ...policy.PortRange) policy.Rule {
	r.EveryPort, r.Ports = false, ports
	return r
}

func tcp(first, last uint16) policy.PortRange {
	return policy.PortRange{Protocol: policy.TCP, First: first, Last: last}
}

func TestAnAddressThatJoinsAGroupIsOneWrite(t *testing.T) {
	c := New()
	var policies []*policy.Policy
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		policies = append(policies, ingress(name, onPort(from(g1), tcp(80, 80))))
	}
	c.UpdateGroup(g1, prefixes("10.0.0.1/32", "10.0.0.2/32"), nil)
	for i, p := range policies {
		addr := netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})
		c.SetPod(addr.String(), PodSpec{Addresses: []netip.Addr{addr}, Policies: []*policy.Policy{p}})
	}
	c.Commit()
	c.UpdateGroup(g1, prefixes("10.0.0.3/32"), nil)
	changes := c.Commit()
	if changes.Len() != 1 || len(changes.Addresses) != 1 {
		t.Errorf("an address that joins the group of 5 policies makes %d writes: %+v", changes.Len(), changes)
	}
	if n := changes.Narrowed; n.Everything || len(n.Addresses) > 0 {
		t.Errorf("an address that joins a group takes nothing from any flow: %+v", n)
	}
	c.UpdateGroup(g1, nil, prefixes("10.0.0.3/32"))
	changes = c.Commit()
	if changes.Len() != 1 || len(changes.GoneAddresses) != 1 {
		t.Errorf("an address that leaves it makes %d writes: %+v", changes.Len(), changes)
	}
	if n := changes.Narrowed; n.Everything || len(n.Addresses) != 1 {
		t.Errorf("one address lost something: %+v", n)
	}
}

func TestNoChangeIsNoWrite(t *testing.T) {
	c := New()
	spec := PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{ingress("a", from(g1))}}
	c.UpdateGroup(g1, prefixes("10.0.0.1/32", "10.1.0.0/16"), nil)
	c.SetPod("p", spec)
	c.Commit()
	spec.Policies = []*policy.Policy{ingress("a", from(g1))} // another object with the same content
	c.SetPod("p", spec)
	c.UpdateGroup(g1, prefixes("10.0.0.1/32"), nil)
	c.UpdateGroup(g1, nil, prefixes("10.0.0.1/32"))
	if changes := c.Commit(); changes.Len() != 0 {
		t.Errorf("%d writes: %+v", changes.Len(), changes)
	}
}

// An address between two prefixes that change together must not be seen with one change and without the other.
func TestNestedPrefixesChangeFromTheInside(t *testing.T) {
	c := New()
	rules := []policy.Rule{onPort(from(g1), tcp(80, 80)), onPort(from(g2), tcp(81, 81))}
	c.SetPod("p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{ingress("a", rules...)}})
	c.Commit()
	c.UpdateGroup(g1, prefixes("10.0.0.0/8"), nil)
	c.UpdateGroup(g2, prefixes("10.0.0.0/16", "10.0.0.1/32"), nil)
	changes := c.Commit()
	mirror := cloneMaps(New().Maps())
	for k, v := range c.Maps().Pods {
		mirror.Pods[k] = v
	}
	open := func(port uint16) bool {
		f := policy.Flow{Source: netip.MustParseAddr("10.0.0.7"), Destination: podAddr, Protocol: policy.TCP, Port: port}
		v, _ := mirror.Lookup(policy.Ingress, f)
		return v.Action == policy.Allow
	}
	changes.steps(mirror, func() {
		if open(80) != open(81) {
			t.Errorf("80 open: %v, 81 open: %v in the middle of a change that opens both", open(80), open(81))
		}
	})
	if !open(80) || !open(81) {
		t.Error("the change does not open both ports")
	}
}

func TestAnAddressThatMovesToAnotherPodIsNeverWithoutAPod(t *testing.T) {
	c := New()
	spec := PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{ingress("a", from(g1))}}
	c.SetPod("old", spec)
	c.Commit()
	c.DeletePod("old")
	spec.Policies = []*policy.Policy{ingress("b", from(g2))}
	c.SetPod("new", spec)
	for _, w := range c.Commit().Pods {
		if w.Delete {
			t.Errorf("%v is deleted on the way", w.Key)
		}
	}
}

// Two pods may claim an address while one goes and the other comes; the agent gives it to one of them.
func TestAPodThatHasLostItsAddressesHoldsNothing(t *testing.T) {
	c := New()
	c.UpdateGroup(g1, prefixes("10.0.0.1/32"), nil)
	spec := PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{ingress("a", from(g1))}}
	c.SetPod("old", spec)
	c.Commit()
	if len(c.Maps().Rows) == 0 {
		t.Fatal("the policy has no row")
	}
	spec.Addresses = nil
	c.SetPod("old", spec)
	c.Commit()
	for range 3 {
		c.Collect()
	}
	if n := len(c.Maps().Rows); n > 0 {
		t.Errorf("%d rows are left of the policy of no pod", n)
	}
}

func TestPodsUnderTheSamePoliciesShareOneSet(t *testing.T) {
	c := New()
	p := ingress("a", onPort(from(g1), policy.PortRange{Protocol: policy.TCP, Name: "http"}))
	addrs := []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.3")}
	for i, port := range []uint16{80, 80, 8080} {
		named := []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: port}}
		c.SetPod(addrs[i].String(), PodSpec{Addresses: addrs[i : i+1], Policies: []*policy.Policy{p.ForPod(named)}})
	}
	c.Commit()
	set := func(i int) SetID { return c.Maps().Pods[addrs[i]].Sets[policy.Ingress] }
	if set(0) != set(1) || set(0) == set(2) || set(0) == 0 {
		t.Errorf("sets %d, %d, %d: the first two pods have the same number behind the name, the third another", set(0), set(1), set(2))
	}
}

func TestPortRangesBecomeTheFewestPrefixes(t *testing.T) {
	for _, tc := range []struct {
		first, last, want int
	}{
		{0, 65535, 1}, {80, 80, 1}, {80, 81, 1}, {81, 82, 2}, {1, 65535, 16}, {1, 65534, 30}, {32768, 65535, 1}, {1024, 2047, 1},
	} {
		entries := appendPrefixes(nil, policy.TCP, tc.first, tc.last, Decision{})
		if len(entries) != tc.want {
			t.Errorf("%d–%d: %d prefixes, want %d", tc.first, tc.last, len(entries), tc.want)
		}
		covered := 0
		for _, e := range entries {
			size := 1 << (16 - e.key.Bits)
			if int(e.key.Port)%size != 0 || int(e.key.Port) != tc.first+covered {
				t.Errorf("%d–%d: prefix %d/%d is out of place", tc.first, tc.last, e.key.Port, e.key.Bits)
			}
			covered += size
		}
		if covered != tc.last-tc.first+1 {
			t.Errorf("%d–%d: %d ports covered", tc.first, tc.last, covered)
		}
	}
}

func TestThousandsOfPortsForOneNetwork(t *testing.T) {
	c := New()
	rule := policy.Rule{Peers: policy.ListPeers(policy.Peer{CIDR: netip.MustParsePrefix("10.0.0.0/8")})}
	for port := uint16(1); port < 8000; port += 2 {
		rule.Ports = append(rule.Ports, tcp(port, port))
	}
	c.SetPod("p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{ingress("a", rule)}})
	c.Commit()
	for port := range uint16(9000) {
		f := policy.Flow{Source: netip.MustParseAddr("10.1.1.1"), Destination: podAddr, Protocol: policy.TCP, Port: port}
		v, _ := c.Maps().Lookup(policy.Ingress, f)
		if open, want := v.Action == policy.Allow, port%2 == 1 && port < 8000; open != want {
			t.Fatalf("port %d: open %v, want %v", port, open, want)
		}
	}
}
