package compiler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// drawExpensive draws policies of one pod. They overlap in many ways, and are as large as a search has time for.
func drawExpensive(rng *rand.Rand) []*policy.Policy {
	var out []*policy.Policy
	for i := range 1 + rng.IntN(3) {
		p := ingress(fmt.Sprint("p", i))
		if rng.IntN(4) == 0 {
			p.Tier = pick(rng, []policy.Tier{policy.TierAdmin, policy.TierBaseline})
		}
		rules := 1 + rng.IntN(200)
		peers, excepts, ports := 1+rng.IntN(4), rng.IntN(5), rng.IntN(12)
		// what differs from rule to rule
		bits, exceptBits, stride := rng.IntN(33), rng.IntN(33), rng.IntN(3)
		width, portStride, firstPort := rng.IntN(3000), rng.IntN(40), rng.IntN(30000)
		changing := rng.IntN(8)
		for r := range rules {
			rule := policy.Rule{Everyone: rng.IntN(24) == 0, EveryPort: rng.IntN(24) == 0}
			if p.Tier == policy.TierAdmin {
				rule.Action = policy.Action(rng.IntN(3))
			}
			var list []policy.Peer
			for k := range peers {
				if rule.Everyone {
					break
				}
				if changing&1 != 0 && k == 0 {
					list = append(list, policy.Peer{Group: policy.GroupKey{Namespace: "shop", Name: fmt.Sprint("g", r%20)}})
					continue
				}
				b := bits
				if changing&2 != 0 {
					b = (bits + r + k) % 33
				}
				peer := policy.Peer{CIDR: must(nth((r*stride + k) * 37).Addr().Prefix(b))}
				for x := range excepts {
					e := max(exceptBits, b+1)
					if changing&4 != 0 {
						e = b + 1 + (r+x)%8
					}
					if e > 32 {
						break
					}
					if except := must(nth((r*stride + k + x*excepts) * 37).Addr().Prefix(e)); peer.CIDR.Contains(except.Addr()) {
						peer.Except = append(peer.Except, except)
					}
				}
				list = append(list, peer)
			}
			rule.Peers = policy.ListPeers(list...)
			for k := range ports {
				if rule.EveryPort {
					break
				}
				first := (firstPort + (r*ports+k)*portStride) % 65536
				rule.Ports = append(rule.Ports, policy.PortRange{Protocol: policy.TCP, First: uint16(first), Last: uint16(min(65535, first+width))})
			}
			p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], rule)
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, policy.Compare)
	return out
}

// excess is how much of what policies may cost they do; more than 1 is too much.
func excess(policies []*policy.Policy) (float64, cost) {
	c, got := costOf(policies...)
	entries := 0.0
	if len(c.Problems()) == 0 {
		own := Cost{Prefixes: len(c.Maps().Addresses) + len(c.Maps().Networks), Rows: len(c.Maps().Rows), Ports: len(c.Maps().Ports)}
		if p, over := own.exceeds(DefaultBudget); over {
			entries = float64(p.Figure) / float64(p.Limit)
		}
	} else {
		got.entries += DefaultBudget.Ports // it had to look at so many to find out
	}
	return max(float64(got.work)/got.scale()/mostWork, float64(got.bytes)/got.scale()/mostBytes, entries), got
}

// TestSearchForExpensivePolicies climbs towards policies that cost much for their size and their map entries.
func TestSearchForExpensivePolicies(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7))
	worst := 0.0
	for range 6 {
		genome := make([]byte, 64)
		for i := range genome {
			genome[i] = byte(rng.Uint32())
		}
		best := 0.0
		for range 25 {
			tried := slices.Clone(genome)
			for range 1 + rng.IntN(6) {
				tried[rng.IntN(len(tried))] = byte(rng.Uint32())
			}
			x, got := excess(drawExpensive(rand.New(&choices{tried, rand.NewPCG(1, 1)})))
			if x > 1 {
				t.Fatalf("%.2f of what it may cost: %+v, drawn from %v", x, got, tried)
			}
			if x >= best {
				best, genome = x, tried
			}
		}
		worst = max(worst, best)
	}
	t.Logf("the most expensive policies found cost %.2f of what they may", worst)
}

// FuzzCost looks for policies that cost too much for their size.
func FuzzCost(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("blocks and ports"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 256 {
			return
		}
		if x, got := excess(drawExpensive(rand.New(&choices{data, rand.NewPCG(1, 1)}))); x > 1 {
			t.Errorf("%.2f of what it may cost: %+v", x, got)
		}
	})
}
