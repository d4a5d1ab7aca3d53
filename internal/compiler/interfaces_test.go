package compiler

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// While pods come, go and change places at random, a packet that comes out of its pod's own interface, as it was before a change or
// is after it, passes in the middle of the change; and after it no pod's interface lets another's address through.
func TestHonestSourcesAlwaysPass(t *testing.T) {
	type place struct {
		addr    netip.Addr
		ifIndex uint32
	}
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	spoofed := func(m *Maps, p place) bool {
		return m.Interfaces[p.ifIndex].Kind == PodInterface && m.Pods[p.addr].IfIndex != p.ifIndex
	}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		c := New()
		mirror := cloneMaps(c.Maps())
		places := map[string]place{}
		for range 40 {
			var honest []place // of pods that are there after the change
			taken := map[any]bool{}
			now := map[string]place{}
			for i := range 4 {
				key := fmt.Sprint(i)
				p := place{addr(rng.IntN(5)), uint32(1 + rng.IntN(5))}
				if rng.IntN(3) > 0 && places[key] != (place{}) {
					p = places[key]
				}
				if rng.IntN(4) == 0 || taken[p.addr] || taken[p.ifIndex] {
					c.DeletePod(key)
					continue
				}
				taken[p.addr], taken[p.ifIndex] = true, true
				now[key] = p
				c.SetPod(key, PodSpec{Addresses: []netip.Addr{p.addr}, Interfaces: []uint32{p.ifIndex}, Flags: PodFlags(rng.IntN(2))})
				// A new pod is denied until its entry is written; pods that have theirs never are.
				if places[key] == p {
					honest = append(honest, p)
				}
			}
			places = now
			changes := c.Commit()
			changes.steps(mirror, func() {
				for _, p := range honest {
					if spoofed(mirror, p) {
						t.Fatalf("seed %d: %v is denied in the middle of %+v", seed, p, changes)
					}
				}
			})
			checkEqual(t, "mirror", mirror, c.Maps())
			for i := range 5 {
				for ifIndex := range uint32(6) {
					p, own := place{addr(i), ifIndex}, false
					known := false
					for _, q := range places {
						own = own || q == p
						known = known || q.ifIndex == ifIndex
					}
					if got, want := spoofed(mirror, p), known && !own; got != want {
						t.Fatalf("seed %d: %v is denied: %v, want %v; pods %v", seed, p, got, want, places)
					}
				}
			}
		}
	}
}

func TestAnUplinkIsNoPodsInterface(t *testing.T) {
	c := New()
	c.SetPod("a", PodSpec{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Interfaces: []uint32{3}})
	c.SetUplinks([]uint32{3, 4})
	c.Commit()
	if got := c.Maps().Interfaces; got[3] != (Interface{Kind: Uplink}) || got[4] != (Interface{Kind: Uplink}) {
		t.Errorf("interfaces %v", got)
	}
	c.SetUplinks([]uint32{4})
	changes := c.Commit()
	if got := c.Maps().Interfaces; got[3].Kind != PodInterface || len(changes.Interfaces) != 1 || len(changes.GoneInterfaces) != 1 {
		t.Errorf("interfaces %v after %+v", got, changes)
	}
	if v, _ := c.Maps().Lookup(policy.Egress, policy.Flow{Source: netip.MustParseAddr("10.0.0.1")}); v.Action != policy.Allow {
		t.Error("a pod that nothing isolates is denied")
	}
}
