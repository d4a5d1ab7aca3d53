package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// What a difference says is what the reference says of each pair of pods, before and after.
func TestDifferencesAreTheReferences(t *testing.T) {
	asked := []Port{{policy.TCP, 1}, {policy.TCP, 80}, {policy.TCP, 83}, {policy.UDP, 443}, {policy.TCP, 8080}, {policy.SCTP, 9}}
	for seed := range uint64(60) {
		r := random{rand.New(rand.NewPCG(seed, 2))}
		before := r.cluster()
		after := &Cluster{Namespaces: before.Namespaces, Policies: slices.Clone(before.Policies), ClusterPolicies: slices.Clone(before.ClusterPolicies), Nodes: before.Nodes}
		for _, p := range before.Pods {
			p.Pod = *p.DeepCopy()
			if r.IntN(10) == 0 {
				p.Labels = r.labels()
			}
			after.Pods = append(after.Pods, p)
		}
		if r.IntN(4) == 0 {
			after.Namespaces = []corev1.Namespace{*before.Namespaces[0].DeepCopy(), *before.Namespaces[1].DeepCopy()}
			after.Namespaces[0].Labels = r.labels()
		}
		switch n := len(after.Policies); {
		case n > 0 && r.IntN(2) == 0:
			after.Policies = slices.Delete(after.Policies, 0, 1)
		default:
			after.Policies = append(after.Policies, r.policy(100))
		}
		switch n := len(after.ClusterPolicies); {
		case n > 0 && r.IntN(2) == 0:
			after.ClusterPolicies = slices.Delete(after.ClusterPolicies, 0, 1)
		case r.IntN(2) == 0:
			after.ClusterPolicies = append(after.ClusterPolicies, r.clusterPolicy(100))
		}
		after.Complete()
		was, is := before.Reference(), after.Reference()
		pairs := map[string]Pair{}
		for _, p := range NewDifference(before, after).Pairs {
			pairs[fmt.Sprint(p.From, p.To)] = p
		}
		for _, from := range before.Workloads() {
			for _, to := range before.Workloads() {
				for _, port := range asked {
					var gained, lost bool
					eachFlow(before, from, to, port, func(f policy.Flow) {
						b, a := was.Allows(f), is.Allows(f)
						gained, lost = gained || a && !b, lost || b && !a
					})
					p := pairs[fmt.Sprint(from, to)]
					if p.Gained.contains(port) != gained || p.Lost.contains(port) != lost {
						t.Fatalf("seed %d: %v → %v %v: gained %v, lost %v; %+v", seed, from, to, port, gained, lost, p)
					}
				}
			}
		}
	}
}

func eachFlow(c *Cluster, from, to Workload, port Port, yield func(policy.Flow)) {
	for i := range c.Pods {
		for j := range c.Pods {
			p, q := &c.Pods[i], &c.Pods[j]
			if i == j || p.Workload != from || q.Workload != to || !policy.IsPeer(&p.Pod) || !policy.IsPeer(&q.Pod) {
				continue
			}
			for _, a := range policy.PodAddresses(&p.Pod) {
				for _, b := range policy.PodAddresses(&q.Pod) {
					if a.Is4() == b.Is4() {
						yield(policy.Flow{Source: a, Destination: b, Protocol: port.Protocol, Port: port.Number})
					}
				}
			}
		}
	}
}

func TestTheSameChangesNothing(t *testing.T) {
	for seed := range uint64(50) {
		c := random{rand.New(rand.NewPCG(seed, 3))}.cluster()
		if d := NewDifference(c, c); !d.Empty() {
			t.Fatalf("seed %d: %+v", seed, d)
		}
	}
}

func namedPods(t *testing.T, port int, addresses ...string) *Cluster {
	text := fmt.Sprintf(`
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: np}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: a}}}, {ipBlock: {cidr: 10.0.0.2/32}}], ports: [{port: %d}]}]}
`, port)
	for i, a := range addresses {
		text += fmt.Sprintf("---\nkind: Pod\napiVersion: v1\nmetadata: {name: %c, labels: {app: %[1]c}}\nspec: {containers: [{name: c}]}\nstatus: {phase: Running, podIP: %s}\n", 'a'+i, a)
	}
	return mustRead(t, text)
}

// Of two pods with one address the first has it, here as for the reference.
func TestDifferencesWithAnAddressOfTwoPods(t *testing.T) {
	before, after := namedPods(t, 80, "10.0.0.1", "10.0.0.1", "10.0.0.3"), namedPods(t, 81, "10.0.0.1", "10.0.0.1", "10.0.0.3")
	d := NewDifference(before, after)
	if len(d.Pairs) == 0 || d.Pairs[0].From.Name != "a" || d.Pairs[0].Gained.String() != "TCP 81" || d.Pairs[0].Lost.String() != "TCP 80" {
		t.Errorf("%+v", d)
	}
}

// An address in a policy's block may be a pod's: it is listed as the pod.
func TestDifferencesWithABlockThatIsAPods(t *testing.T) {
	before, after := namedPods(t, 80, "10.0.0.1", "10.0.0.2"), namedPods(t, 81, "10.0.0.1", "10.0.0.2")
	d := NewDifference(before, after)
	var got []string
	for _, p := range d.Pairs {
		got = append(got, p.From.Name+" "+p.To.Name)
	}
	if !slices.Equal(got, []string{"a b", "b a"}) {
		t.Errorf("%q", got)
	}
}
