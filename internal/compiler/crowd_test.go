package compiler

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

var (
	smallMaps       = Usage{Addresses: 1024, Networks: 1024, Rows: 512, Ports: 1024}
	smallNamespaces = 8
)

// A crowdedNode is a Compiler with small maps, and what it has received.
type crowdedNode struct {
	t    *testing.T
	c    *Compiler
	pods map[string]PodSpec
	held *Maps // after all writes
}

func newCrowdedNode(t *testing.T) *crowdedNode {
	c := New(WithCapacity(smallMaps, smallNamespaces))
	return &crowdedNode{t: t, c: c, pods: map[string]PodSpec{}, held: cloneMaps(c.Maps())}
}

func (n *crowdedNode) write(changes Changes) {
	n.t.Helper()
	changes.steps(n.held, func() {
		if held := (Usage{len(n.held.Addresses), len(n.held.Networks), len(n.held.Rows), len(n.held.Ports)}); !held.within(smallMaps) {
			n.t.Fatalf("the maps hold %+v", held)
		}
	})
}

// pod puts a pod under a policy, which is created at this time.
func (n *crowdedNode) pod(i int, created int64, p *policy.Policy) {
	p.Created = created
	key := fmt.Sprintf("%s/%d", p.ID.Namespace, i)
	n.pods[key] = PodSpec{Addresses: []netip.Addr{podAt(i)}, Policies: []*policy.Policy{p}}
	n.c.SetPod(key, n.pods[key])
	n.steps()
}

func (n *crowdedNode) delete(i int, namespace string) {
	key := fmt.Sprintf("%s/%d", namespace, i)
	delete(n.pods, key)
	n.c.DeletePod(key)
	n.steps()
}

func (n *crowdedNode) steps() {
	n.t.Helper()
	for more := true; more; {
		var changes Changes
		changes, more = n.c.Step(5000)
		n.write(changes)
	}
}

// settle waits until what is unused is gone.
func (n *crowdedNode) settle() {
	n.t.Helper()
	for range 24 {
		n.write(n.c.Collect())
		n.steps()
	}
}

// restarted is a Compiler that receives the same at once, in another order.
func (n *crowdedNode) restarted(rng *rand.Rand) *crowdedNode {
	n.t.Helper()
	out := newCrowdedNode(n.t)
	keys := make([]string, 0, len(n.pods))
	for key := range n.pods {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, key := range keys {
		out.c.SetPod(key, n.pods[key])
		out.pods[key] = n.pods[key]
	}
	out.write(out.c.Commit())
	return out
}

// refusedPolicies are those that do not fit. Their pods must be isolated.
func (n *crowdedNode) refusedPolicies() []string {
	n.t.Helper()
	out := []string{}
	for _, p := range n.c.Problems() {
		out = append(out, p.Policy.String())
	}
	for key, spec := range n.pods {
		pod, ok := n.held.Pods[spec.Addresses[0]]
		if !ok || pod.Sets[policy.Ingress] == 0 {
			n.t.Fatalf("%s is not isolated", key)
		}
		refused := slices.Contains(out, spec.Policies[0].ID.String())
		flow := policy.Flow{Source: nth(1 << 20).Addr(), Destination: spec.Addresses[0], Protocol: policy.TCP, Port: 1}
		if d, _ := n.held.Lookup(policy.Ingress, flow); (d.Action == policy.Allow) == refused {
			n.t.Fatalf("%s: %v, refused %v", key, d, refused)
		}
	}
	return out
}

// wanting is a policy that allows port 1 from some addresses, and makes about so many rows of so many ports each.
func wanting(from netip.Prefix, namespace, name string, rows, ports int) *policy.Policy {
	p := overlappingRules(name, rows, 1, ports, 0)
	p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], policy.Rule{Peers: policy.ListPeers(policy.Peer{CIDR: from}), Ports: []policy.PortRange{tcp(1, 1)}})
	for i := range rows {
		block := must(nth(len(name)<<12 + int(name[len(name)-1])<<6 + i).Addr().Prefix(32))
		p.Rules[policy.Ingress][i].Peers = policy.ListPeers(policy.Peer{CIDR: block})
	}
	return of(namespace, p)
}

// One namespace's policies fill the maps. Others' pods come under their policies, and what does not fit isolates.
func TestAFullMapConcernsTheNamespaceThatFillsIt(t *testing.T) {
	n := newCrowdedNode(t)
	n.pod(1, 1, wanting(nth(1<<20), "good", "small", 3, 3))
	for i := range 12 {
		n.pod(10+i, int64(10+i), wanting(nth(1<<20), "evil", fmt.Sprint("p", i), 20, 20))
	}
	n.pod(2, 50, wanting(nth(1<<20), "good", "new", 4, 4))
	n.pod(3, 60, wanting(nth(1<<20), "other", "newer", 5, 8))
	refused := n.refusedPolicies()
	if len(refused) < 6 || slices.ContainsFunc(refused, func(s string) bool { return s[:18] != "NetworkPolicy evil" }) {
		t.Fatalf("refused: %v", refused)
	}
	n.settle()
	for i := range 12 {
		n.delete(10+i, "evil")
	}
	n.settle()
	if refused := n.refusedPolicies(); len(refused) != 0 {
		t.Errorf("refused after there is room: %v", refused)
	}
}

// The group of one tenant splits the addresses of another's policy. That costs the first.
func TestRowsThatOthersSplitDoNotCountForANamespace(t *testing.T) {
	n := newCrowdedNode(t)
	everything := of("good", ingress("p", onPort(policy.Rule{Peers: policy.ListPeers(policy.Peer{CIDR: everywhere})}, tcp(1, 1))))
	n.pod(1, 1, everything)
	for i := range 30 {
		n.pod(10+i, int64(10+i), wanting(everywhere, "evil", fmt.Sprint("p", i), 30, 1))
		n.settle()
	}
	n.pod(2, 100, wanting(everywhere, "good", "new", 4, 4))
	n.settle()
	if refused := n.refusedPolicies(); len(refused) == 0 || slices.ContainsFunc(refused, func(s string) bool { return s[:18] != "NetworkPolicy evil" }) {
		t.Errorf("refused: %v", refused)
	}
}

// An agent that starts with full maps comes to what it was before, whatever order it receives things in.
func TestARestartWithFullMapsChangesNothing(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 5))
		n := newCrowdedNode(t)
		for i := range 24 {
			namespace := fmt.Sprint("ns", rng.IntN(6))
			n.pod(i, int64(i/3), wanting(nth(1<<20), namespace, fmt.Sprint("p", i), 1+rng.IntN(24), 1+rng.IntN(16)))
			if rng.IntN(4) == 0 {
				n.settle()
			}
		}
		for range rng.IntN(4) {
			i := rng.IntN(24)
			for ns := range 6 {
				if key := fmt.Sprintf("ns%d/%d", ns, i); n.pods[key].Policies != nil {
					n.delete(i, fmt.Sprint("ns", ns))
				}
			}
		}
		n.settle()
		before := n.refusedPolicies()
		again := n.restarted(rng)
		if at := again.refusedPolicies(); len(before) > 0 && len(at) == 0 {
			t.Fatalf("seed %d: nothing is refused after the restart; before: %v", seed, before)
		}
		again.settle()
		if after := again.refusedPolicies(); !slices.Equal(before, after) {
			t.Fatalf("seed %d: refused before %v, after %v", seed, before, after)
		}
	}
}
