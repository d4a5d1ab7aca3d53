package compiler

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

var (
	testPatterns = []string{"a.example", "*.example", "x.a.example", "*.a.example", "y.x.a.example", "*.x.a.example", "b.example", "other.test"}
	testNames    = []string{"example", "a.example", "x.a.example", "y.x.a.example", "b.example", "c.example", "other.test", "test"}
)

// patternsOf are the patterns under which the program learns a name's addresses.
func (t *Maps) patternsOf(name string) []PatternID {
	longest := name
	_, found := t.Domains[name]
	for rest := name; !found; {
		var more bool
		if _, rest, more = strings.Cut(rest, "."); !more {
			return nil
		}
		longest = "*." + rest
		_, found = t.Domains[longest]
	}
	var out []PatternID
	for _, id := range t.Domains[longest].Patterns {
		if id != 0 {
			out = append(out, id)
		}
	}
	return out
}

// addNames gives rules that may have names some.
func (w *world) addNames(p *policy.Policy) {
	if p.Tier == policy.TierBaseline {
		return
	}
	for i := range p.Rules[policy.Egress] {
		r := &p.Rules[policy.Egress][i]
		if r.Action != policy.Allow || r.Everyone || w.rng.IntN(2) == 0 {
			continue
		}
		peer := policy.Peer{DomainNames: []string{pick(w.rng, testPatterns)}}
		if other := pick(w.rng, testPatterns); other != peer.DomainNames[0] {
			peer.DomainNames = append(peer.DomainNames, other)
		}
		r.Peers = policy.ListPeers(append(slices.Collect(r.Peers.All()), peer)...)
	}
}

func TestRulesWithNamesStandInOrder(t *testing.T) {
	for seed := range uint64(300) {
		w := &world{rng: rand.New(rand.NewPCG(seed, 1)), groups: map[policy.GroupKey]map[netip.Prefix]int{}, pods: map[string]PodSpec{}}
		c := New()
		for range 6 {
			spec := PodSpec{Addresses: podAddresses["pod0"]}
			for range 1 + w.rng.IntN(4) {
				p := w.newPolicy()
				w.addNames(p)
				spec.Policies = append(spec.Policies, p)
			}
			slices.SortFunc(spec.Policies, policy.Compare)
			w.pods["pod0"] = spec
			c.SetPod("pod0", spec)
			w.mutateGroup(c)
			c.Commit()
			if w.rng.IntN(2) == 0 {
				c.Collect()
			}
			names := reference.Names{}
			for _, name := range testNames {
				for range w.rng.IntN(3) {
					names[name] = append(names[name], netip.MustParseAddr(pick(w.rng, universe)))
				}
			}
			for _, f := range w.flows(100) {
				f.Source = podAddresses["pod0"][0]
				if f.Destination.Is6() {
					f.Source = podAddresses["pod0"][1]
				}
				var patterns []PatternID
				for name, addresses := range names {
					if slices.Contains(addresses, f.Destination) {
						patterns = append(patterns, c.Maps().patternsOf(name)...)
					}
				}
				want := reference.EvaluateWithNames(policy.Egress, spec.Policies, f, w, names)
				got, _ := c.Maps().LookupNamed(policy.Egress, f, patterns)
				rule, ok := c.Rule(got.Rule)
				if got.Action != want.Action || got.Tier != want.Tier || ok != (want.Policy != nil) || ok && (rule.Policy.ID != want.Policy.ID || rule.Rule != want.Rule) {
					t.Fatalf("seed %d: %v with %v: %v %v, want %v %v of %v", seed, f, names, got, rule, want.Action, want.Rule, want.Policy)
				}
			}
		}
	}
}

func TestDomainsFollowThePolicies(t *testing.T) {
	c := New(WithPatterns(map[string]PatternID{"*.example.com": 7}, 9))
	set := func(pod string, names ...string) {
		t.Helper()
		p := &policy.Policy{ID: policy.ID{Kind: "NetworkPolicy", Namespace: "a", Name: pod}, Tier: policy.TierNetworkPolicy, Isolates: [2]bool{policy.Egress: true}}
		p.Rules[policy.Egress] = []policy.Rule{{EveryPort: true, Peers: policy.ListPeers(policy.Peer{DomainNames: names})}}
		c.SetPod("a/"+pod, PodSpec{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0." + pod)}, Policies: []*policy.Policy{p}})
		c.Commit()
	}
	collect := func() {
		c.Collect()
		c.Collect()
	}
	check := func(want string) {
		t.Helper()
		got := map[string]string{}
		for name, d := range c.Maps().Domains {
			n := slices.Index(d.Patterns[:], 0)
			got[name] = fmt.Sprint(d.Own, d.Patterns[:n])
		}
		if text := fmt.Sprint(got); text != want {
			t.Errorf("domains %v, want %v", text, want)
		}
	}
	set("1", "*.example.com") // an earlier agent's number
	check("map[*.example.com:7 [7] example.com:0 []]")
	set("2", "api.example.com", "example.com", "*.com")
	check("map[*.com:10 [10] *.example.com:7 [7 10] api.example.com:11 [11 7 10] com:0 [] example.com:12 [12 10]]")
	c.DeletePod("a/2")
	c.Commit()
	collect()
	check("map[*.example.com:7 [7] example.com:0 []]")
	set("1", "api.example.com")
	collect()
	check("map[api.example.com:11 [11]]") // the number that it had
	c.DeletePod("a/1")
	c.Commit()
	collect()
	check("map[]")
	if n := len(c.Maps().Rows) + len(c.Maps().Ports); n != 0 {
		t.Errorf("%d rows and ports are left", n)
	}
}
