package compiler

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Many rules in all tiers, with ranges that hide each other: the maps decide as the reference evaluator, at every edge.
func TestManyRulesDecideAsTheReferenceEvaluator(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		addresses := make([]netip.Addr, 24)
		for i := range addresses {
			addresses[i] = nth(rng.IntN(40)).Addr()
		}
		var policies []*policy.Policy
		for i := range 1 + rng.IntN(6) {
			policies = append(policies, manyRules(rng, i))
		}
		slices.SortFunc(policies, policy.Compare)
		c := New()
		c.SetPod("p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: policies})
		c.Commit()
		for _, source := range addresses {
			for _, port := range []uint16{0, 1, 79, 80, 81, 99, 100, 101, 149, 150, 151, 199, 200, 65535} {
				for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP} {
					f := policy.Flow{Source: source, Destination: podAddr, Protocol: proto, Port: port}
					if !proto.HasPorts() {
						f.Port = 0
					}
					want := reference.Evaluate(policy.Ingress, policies, f, c)
					got, _ := c.Maps().Lookup(policy.Ingress, f)
					ref, _ := c.Rule(got.Rule)
					if got.Action != want.Action || got.Tier != want.Tier || ref.Policy != want.Policy || ref.Rule != want.Rule {
						t.Fatalf("seed %d, %v: %v by %v, want %v", seed, f, got, ref, want)
					}
				}
			}
		}
	}
}

func manyRules(rng *rand.Rand, i int) *policy.Policy {
	p := ingress(fmt.Sprint("p", i))
	if p.Tier = pick(rng, []policy.Tier{policy.TierAdmin, policy.TierNetworkPolicy, policy.TierNetworkPolicy, policy.TierBaseline}); p.Tier != policy.TierNetworkPolicy {
		p.Priority = rng.Int32N(3)
	}
	for range rng.IntN(60) {
		r := policy.Rule{Everyone: rng.IntN(10) == 0, EveryPort: rng.IntN(20) == 0}
		switch p.Tier {
		case policy.TierAdmin:
			r.Action = pick(rng, []policy.Action{policy.Allow, policy.Deny, policy.Pass})
		case policy.TierBaseline:
			r.Action = pick(rng, []policy.Action{policy.Allow, policy.Deny})
		case policy.TierNetworkPolicy: // its rules only allow
		}
		var peers []policy.Peer
		for range rng.IntN(4) {
			if r.Everyone {
				break
			}
			peer := policy.Peer{CIDR: must(nth(rng.IntN(40)).Addr().Prefix(pick(rng, []int{0, 8, 27, 29, 30, 32})))}
			for range rng.IntN(4) {
				if e := nth(rng.IntN(40)); peer.CIDR.Bits() < 32 && peer.CIDR.Contains(e.Addr()) {
					peer.Except = append(peer.Except, must(e.Addr().Prefix(max(peer.CIDR.Bits()+1, pick(rng, []int{28, 31, 32})))))
				}
			}
			peers = append(peers, peer)
		}
		r.Peers = policy.ListPeers(peers...)
		for range rng.IntN(8) {
			if r.EveryPort {
				break
			}
			first := uint16(pick(rng, []int{1, 79, 80, 81, 99, 100, 150, 199, 65535}))
			last := max(first, uint16(pick(rng, []int{1, 80, 81, 100, 149, 150, 65534, 65535})))
			if rng.IntN(2) == 0 {
				last = first
			}
			r.Ports = append(r.Ports, policy.PortRange{Protocol: pick(rng, protocolsWithPorts[:]), First: first, Last: last})
		}
		p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], r)
	}
	return p
}

// clip and gaps against the same, port by port.
func TestClipAndGaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const ports = 64
	draw := func() []span {
		var out []span
		for at := rng.Uint32N(6); at < ports; {
			last := min(at+rng.Uint32N(6), ports-1)
			out = append(out, span{at, last})
			at = last + 1 + rng.Uint32N(8)
		}
		return out
	}
	for range 5000 {
		free, spans := draw(), draw()
		var pieces []piece
		for i, s := range spans {
			pieces = append(pieces, piece{s, int32(i)})
		}
		at := func(spans []span, port uint32) bool {
			return slices.ContainsFunc(spans, func(s span) bool { return s.first <= port && port <= s.last })
		}
		clipped := clip(pieces, free)
		var of [ports]int32
		for _, p := range clipped {
			for port := p.first; port <= p.last; port++ {
				of[port] = p.rule + 1
			}
		}
		rest := gaps(clipped, free)
		for port := range uint32(ports) {
			want := int32(0)
			if i := slices.IndexFunc(spans, func(s span) bool { return s.first <= port && port <= s.last }); i >= 0 && at(free, port) {
				want = int32(i + 1)
			}
			if of[port] != want || at(rest, port) != (at(free, port) && want == 0) {
				t.Fatalf("port %d of %v in %v: piece %d, want %d; gaps %v", port, spans, free, of[port], want, rest)
			}
		}
	}
}
