package compiler

import (
	"math"
	"net/netip"
	"runtime"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// The most that the API lets one policy have in one direction.
const (
	mostRules   = 400
	mostPeers   = 48
	mostExcepts = 16
)

var everywhere = netip.MustParsePrefix("0.0.0.0/0")

func single(a, b, c, d int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a), byte(b), byte(c), byte(d)}), 32)
}

func nth(i int) netip.Prefix { return single(11, i>>16, i>>8, i) }

func but(excepts ...netip.Prefix) policy.Peer { return policy.Peer{CIDR: everywhere, Except: excepts} }

// blocksOfOneRule are n blocks 0.0.0.0/0 except x/32, as the controller writes one rule: split, with the same ports.
func blocksOfOneRule(n int) *policy.Policy {
	p := ingress("blocks")
	for first := 0; first < n; first += mostPeers {
		var peers []policy.Peer
		for i := first; i < min(first+mostPeers, n); i++ {
			peers = append(peers, but(nth(i)))
		}
		p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], policy.Rule{Peers: policy.ListPeers(peers...), Ports: []policy.PortRange{tcp(80, 80)}})
	}
	return p
}

// blocksOfRules are n blocks 0.0.0.0/0 except x/32 spread over rules with a port of their own each.
func blocksOfRules(n int) *policy.Policy {
	p := blocksOfOneRule(n)
	for i := range p.Rules[policy.Ingress] {
		port := uint16(1 + i)
		p.Rules[policy.Ingress][i].Ports = []policy.PortRange{tcp(port, port)}
	}
	return p
}

// nestedBlocks has rules whose blocks are nested in each other: 10.0.0.0/8 except /9, /10 …
func nestedBlocks(rules, peers int) *policy.Policy {
	p := ingress("nested")
	for i := range rules {
		r := policy.Rule{Ports: []policy.PortRange{tcp(uint16(1+i), uint16(1+i))}}
		var list []policy.Peer
		for k := range peers {
			bits := (i*7 + k*5) % 24
			addr := single(10+i%2, i*17+k*3, k*31+i, i^k).Addr()
			list = append(list, policy.Peer{CIDR: must(addr.Prefix(bits)), Except: []netip.Prefix{must(addr.Prefix(bits + 1 + k%8)), must(addr.Next().Prefix(bits + 4))}})
		}
		r.Peers = policy.ListPeers(list...)
		p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], r)
	}
	return p
}

func must(p netip.Prefix, err error) netip.Prefix {
	if err != nil {
		panic(err)
	}
	return p
}

// overlappingRules has rules that are each for everywhere except some addresses, with ports of their own or ranges that overlap.
func overlappingRules(name string, rules, excepts, ports, width int) *policy.Policy {
	p := ingress(name)
	for i := range rules {
		var peer policy.Peer
		for k := range excepts {
			peer.Except = append(peer.Except, nth(i*excepts+k))
		}
		peer.CIDR = everywhere
		r := policy.Rule{Peers: policy.ListPeers(peer)}
		for k := range ports {
			first := 1 + (2*(i*ports+k))%(65534-width)
			r.Ports = append(r.Ports, tcp(uint16(first), uint16(first+width)))
		}
		p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], r)
	}
	return p
}

// sizeOf is the number of rules, blocks, excepts, groups and port ranges in policies.
func sizeOf(policies ...*policy.Policy) int {
	n := 0
	for _, p := range policies {
		for _, d := range policy.Directions {
			var e estimate
			e.add(p, d)
			n += len(p.Rules[d]) + e.size()
		}
	}
	return n
}

func entriesOf(m *Maps) int { return len(m.Addresses) + len(m.Networks) + len(m.Rows) + len(m.Ports) }

// mostWork and mostBytes are the steps, and the bytes allocated, that compiling may take for each of n log n, where n is the
// size of the policies and the map entries that they come to.
const (
	mostWork  = 8
	mostBytes = 400
)

type cost struct{ size, entries, work, bytes int }

func (c cost) scale() float64 {
	n := float64(c.size + c.entries + 64)
	return n * math.Log2(n)
}

func costOf(policies ...*policy.Policy) (*Compiler, cost) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := New()
	c.SetPod("p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: policies})
	c.Commit()
	runtime.ReadMemStats(&after)
	return c, cost{sizeOf(policies...), entriesOf(c.Maps()), c.work, int(after.TotalAlloc - before.TotalAlloc)}
}

func checkCost(t *testing.T, got cost) {
	t.Helper()
	work, bytes := float64(got.work)/got.scale(), float64(got.bytes)/got.scale()
	t.Logf("size %d, %d map entries: %d steps, %.2f of n log n; %d KiB, %.1f bytes of n log n", got.size, got.entries, got.work, work, got.bytes>>10, bytes)
	if work > mostWork || bytes > mostBytes {
		t.Errorf("costs more than %d steps or %d bytes of n log n", mostWork, mostBytes)
	}
}

var expensive = []struct {
	name     string
	policies func() []*policy.Policy
	entries  int // the most that are needed
}{
	{"19,200 blocks in one rule", func() []*policy.Policy { return []*policy.Policy{blocksOfOneRule(19200)} }, 3},
	{"19,200 blocks in 400 rules", func() []*policy.Policy { return []*policy.Policy{blocksOfRules(19200)} }, 402},
	{"nested blocks", func() []*policy.Policy { return []*policy.Policy{nestedBlocks(mostRules, mostPeers)} }, 402},
	{"400 rules for everywhere except 16 addresses", func() []*policy.Policy { return []*policy.Policy{overlappingRules("p", mostRules, mostExcepts, 1, 0)} }, 170_000},
	{"hidden rules", func() []*policy.Policy { return []*policy.Policy{hiddenRules(mostRules, mostExcepts, 80)} }, 10_000},
	{"rules hidden but for one port", func() []*policy.Policy {
		p := hiddenRules(mostRules, mostExcepts, 80)
		p.Rules[policy.Ingress][0] = policy.Rule{Everyone: true, Ports: []policy.PortRange{tcp(0, 65534)}}
		return []*policy.Policy{p}
	}, 30_000},
}

// hiddenRules are overlapping rules behind one that decides about every port.
func hiddenRules(rules, excepts, ports int) *policy.Policy {
	p := overlappingRules("hidden", rules, excepts, ports, 0)
	p.Rules[policy.Ingress][0] = policy.Rule{Everyone: true, EveryPort: true}
	return p
}

// Compiling takes n log n steps and bytes, for policies as large as the API lets them be.
func TestCostOfLargePolicies(t *testing.T) {
	for _, tc := range expensive {
		t.Run(tc.name, func(t *testing.T) {
			_, got := costOf(tc.policies()...)
			checkCost(t, got)
			if got.entries > tc.entries {
				t.Errorf("%d map entries, want at most %d", got.entries, tc.entries)
			}
		})
	}
}

func BenchmarkLargePolicies(b *testing.B) {
	for _, tc := range expensive {
		policies := tc.policies()
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				costOf(policies...)
			}
		})
	}
}
