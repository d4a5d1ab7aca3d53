package compiler

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// drawDemands draws namespaces of which some want little and some want everything.
func drawDemands(rng *rand.Rand) []demand {
	var out []demand
	for ns := range 1 + rng.IntN(24) {
		most := 1 + rng.IntN(1<<rng.IntN(12))
		for i := range 1 + rng.IntN(8) {
			out = append(out, demand{
				namespace: fmt.Sprint("ns", ns), created: rng.Int64N(20), key: fmt.Sprint(ns, "/", i), fixed: rng.IntN(16) == 0,
				cost: Usage{rng.IntN(most), rng.IntN(most), rng.IntN(most), rng.IntN(most)},
			})
		}
	}
	return out
}

func checkShares(t *testing.T, rng *rand.Rand, demands []demand) {
	t.Helper()
	const namespaces = 32
	capacity := Usage{1 << 11, 1 << 12, 1 << 11, 1 << 12}
	share := capacity.part(namespaces)
	admitted := admit(capacity, Usage{}, namespaces, demands)
	var fixed, all Usage
	wanted := map[string]Usage{}
	byKey := map[string]bool{}
	for i, d := range demands {
		wanted[d.namespace] = wanted[d.namespace].plus(d.cost)
		if byKey[d.key] = admitted[i]; admitted[i] {
			all = all.plus(d.cost)
		}
		if d.fixed {
			fixed = fixed.plus(d.cost)
		}
	}
	if fixed.within(capacity) && !all.within(capacity) {
		t.Fatalf("%+v are admitted of %+v", all, capacity)
	}
	for i, d := range demands {
		if wanted[d.namespace].within(share) && fixed.within(capacity.less(reserved)) && all.within(capacity.less(reserved)) && !admitted[i] {
			t.Fatalf("%s is within its share and does not fit", d.namespace)
		}
	}
	shuffled := append([]demand{}, demands...)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for i, yes := range admit(capacity, Usage{}, namespaces, shuffled) {
		if byKey[shuffled[i].key] != yes {
			t.Fatalf("%s depends on the order", shuffled[i].key)
		}
	}
	// one more demand, the newest of all, displaces nothing unless its namespace is within its share, and nothing within a share
	more := demand{namespace: "ns0", created: 100, key: "new", cost: Usage{rng.IntN(4000), rng.IntN(4000), rng.IntN(4000), rng.IntN(4000)}}
	later := admit(capacity, Usage{}, namespaces, append(shuffled, more))
	for i, yes := range later[:len(shuffled)] {
		d := shuffled[i]
		switch {
		case yes || !byKey[d.key]:
		case wanted[d.namespace].within(share):
			t.Fatalf("%s is within its share and is displaced by %s", d.key, more.key)
		case !wanted["ns0"].plus(more.cost).within(share):
			t.Fatalf("%s is displaced by a newer demand beyond its share", d.key)
		}
	}
}

func TestSharesOfRandomNamespaces(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 17))
		checkShares(t, rng, drawDemands(rng))
	}
}

func FuzzShares(f *testing.F) {
	f.Add([]byte("namespaces"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 256 {
			return
		}
		rng := rand.New(&choices{data, rand.NewPCG(1, 1)})
		checkShares(t, rng, drawDemands(rng))
	})
}

// Many namespaces in concert, each within reason, displace nothing of one that is within its share.
func TestManyNamespacesDisplaceNothingWithinTheShare(t *testing.T) {
	capacity := Usage{1 << 19, 1 << 20, 1 << 19, 1 << 20}
	demands := []demand{{namespace: "victim", created: 1_000_000_000, key: "victim", cost: capacity.part(DefaultNamespaces)}}
	for i := range 200 {
		demands = append(demands, demand{namespace: fmt.Sprint("evil", i), created: int64(i), key: fmt.Sprint("evil", i), cost: capacity.part(20)})
	}
	admitted := admit(capacity, Usage{}, DefaultNamespaces, demands)
	if !admitted[0] {
		t.Error("the namespace within its share is displaced")
	}
	for i, yes := range admitted[1:] {
		if yes != (i < 17) {
			t.Errorf("the demand that is number %d by age: %v", i, yes)
		}
	}
}
