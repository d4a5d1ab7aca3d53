package oracle

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
	"github.com/kidoban/kidoban/internal/recommend"
	"github.com/kidoban/kidoban/internal/replay"
)

// recorded is a drawn cluster, with flows as an observer has them.
type recorded struct {
	*dice
	objects *objects
	cluster *reference.Cluster
	flows   []policy.Flow
}

func record(seed, iteration uint64, flows int) *recorded {
	r := &recorded{dice: newDice(seed, iteration)}
	r.objects = r.dice.objects()
	r.cluster = r.objects.cluster()
	f := newFlows(r.dice, r.cluster)
	for range flows {
		r.flows = append(r.flows, f.flow())
	}
	return r
}

// end of a flow, by its address.
func (r *recorded) end(a netip.Addr) observerapi.End {
	out := observerapi.End{Address: a}
	for i := range r.cluster.Nodes {
		for _, is := range r.cluster.Nodes[i].Status.Addresses {
			if is.Address == a.String() {
				out.IsNode, out.Node = true, r.cluster.Nodes[i].Name
			}
		}
	}
	p := r.cluster.PodAt(a)
	if p == nil {
		return out
	}
	out = observerapi.End{Address: a, Namespace: p.Namespace, Pod: p.Name, UID: p.Namespace + "/" + p.Name, Workload: &agentapi.Workload{Kind: "Pod", Name: p.Name},
		Labels: p.Labels, NamespaceLabels: r.objects.namespaces[p.Namespace].Labels, Node: p.Spec.NodeName}
	for _, n := range policy.ContainerPorts(p) {
		out.NamedPorts = append(out.NamedPorts, observerapi.NamedPort{Name: n.Name, Protocol: n.Protocol.String(), Number: n.Port})
	}
	return out
}

func (r *recorded) record(f policy.Flow, verdict observerapi.Verdict, connections uint64) *observerapi.Flow {
	return &observerapi.Flow{First: time.Unix(1, 0), Last: time.Unix(2, 0), Source: r.end(f.Source), Destination: r.end(f.Destination), Protocol: f.Protocol.String(),
		Port: f.Port, Verdict: verdict, Connections: connections, Sides: observerapi.Complete}
}

// changed are other policies: some of today's, and some that are new.
func (r *recorded) changed() *reference.Cluster {
	o := newObjects()
	o.namespaces, o.pods, o.nodes = r.objects.namespaces, r.objects.pods, r.objects.nodes
	for name, np := range r.objects.policies {
		if !r.oneIn(3) {
			o.policies[name] = np
		}
	}
	for i := range 3 {
		np := r.policy(pick(r.dice, r.namespaces...), r.policyName(i), int64(i))
		o.policies[types.NamespacedName{Namespace: np.Namespace, Name: np.Name}] = np
	}
	for name, p := range r.objects.clusterPolicies {
		if !r.oneIn(3) {
			o.clusterPolicies[name] = p
		}
	}
	if len(r.objects.nodes) > 0 {
		o.clusterPolicies["new"] = r.clusterPolicy("new")
	}
	return o.cluster()
}

func policiesOf(c *reference.Cluster) replay.Policies {
	return replay.Policies{NetworkPolicies: c.Policies, ClusterPolicies: c.ClusterPolicies}
}

// allowedBy a judge of others: both directions must be. A pod reaches itself.
func allowedBy(j judge, f policy.Flow) bool {
	return f.Source == f.Destination || j.judge(policy.Egress, f).allowed && j.judge(policy.Ingress, f).allowed
}

func foreignJudge(c *reference.Cluster) judge {
	adapted, _ := adapt(enforcedOf(c), knpQuirks)
	return newKubeNetworkPolicies(adapted, knpQuirks)
}

const replayScenarios = 60

// What replay says of a change of policies is the difference of what two evaluators say of the two clusters.
func TestReplayIsTheDifferenceOfTwoEvaluations(t *testing.T) {
	differ, unknown, all := 0, 0, 0
	for i := range uint64(replayScenarios) {
		r := record(7, i, FlowsPerScenario)
		after := r.changed()
		j := replay.NewJudge(replay.Cluster{Nodes: r.cluster.Nodes}, policiesOf(r.cluster), policiesOf(after))
		clusters := [2]*reference.Cluster{r.cluster, after}
		foreign := [2]judge{foreignJudge(r.cluster), foreignJudge(after)}
		for _, f := range r.flows {
			answers := j.Decide(r.record(f, observerapi.Allowed, 1)).Answers
			for n, a := range answers {
				if all++; a.Verdict == replay.Unknown {
					unknown++
					if f.Port != 0 && a.Why != string(replay.ReasonName) {
						t.Errorf("scenario %d: %+v is unknown: %s", i, f, a.Why)
					}
					continue
				}
				if want := clusters[n].Allows(f); (a.Verdict == replay.Allowed) != want {
					t.Fatalf("scenario %d: %+v is %v by the policies %d; the reference evaluator says %v", i, f, a, n, want)
				}
				if want := allowedBy(foreign[n], f); (a.Verdict == replay.Allowed) != want {
					t.Fatalf("scenario %d: %+v is %v by the policies %d; kube-network-policies says %v", i, f, a, n, want)
				}
			}
			if answers[0].Verdict != answers[1].Verdict {
				differ++
			}
		}
	}
	if differ < all/100 || unknown > all/4 {
		t.Errorf("of %d answers %d are unknown, and %d flows differ: that tells little", all, unknown, differ)
	}
}

// Recommended policies allow what was recorded, by two evaluators that share nothing with what wrote them, and no rule of theirs can go.
func TestRecommendationsHold(t *testing.T) {
	rules, policies := 0, 0
	for i := range uint64(replayScenarios) {
		r := record(11, i, 60)
		in := r.input(t)
		result, err := recommend.Run(in, recommend.Options{Namespaces: r.namespaces})
		if err != nil {
			t.Fatalf("scenario %d: %v", i, err)
		}
		policies += len(result.Policies)
		then := r.with(result, -1, 0, 0)
		judges := map[string]func(policy.Flow) bool{
			"the reference evaluator": then.Allows,
			"kube-network-policies":   func(f policy.Flow) bool { return allowedBy(foreignJudge(then), f) },
		}
		var needed []policy.Flow
		for _, f := range r.flows {
			if !r.cluster.Allows(f) || isListed(result, r.record(f, "", 0)) {
				continue
			}
			needed = append(needed, f)
			for who, allows := range judges {
				if !allows(f) {
					t.Fatalf("scenario %d: %s says that %+v is denied from then on", i, who, f)
				}
			}
		}
		for n, p := range result.Policies {
			for _, d := range policy.Directions {
				reasons := p.Ingress
				if d == policy.Egress {
					reasons = p.Egress
				}
				for rule, reason := range reasons {
					if reason.DNS {
						continue
					}
					rules++
					if without := foreignJudge(r.with(result, n, d, rule)); !slices.ContainsFunc(needed, func(f policy.Flow) bool { return !allowedBy(without, f) }) {
						t.Errorf("scenario %d: no recorded flow needs rule %d of %s of %s/%s", i, rule, d, p.NetworkPolicy.Namespace, p.NetworkPolicy.Name)
					}
				}
			}
		}
	}
	if policies < replayScenarios || rules < replayScenarios {
		t.Errorf("%d policies with %d rules: that tells little", policies, rules)
	}
}

// input of a recommendation: each flow twice or more, so that none is left out for being seen once.
func (r *recorded) input(t *testing.T) *recommend.Input {
	var file bytes.Buffer
	if err := replay.WriteHead(&file, observerapi.Coverage{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	w := replay.NewWriter(&file)
	random := rand.New(rand.NewPCG(1, 1))
	for _, f := range r.flows {
		verdict := observerapi.Denied
		if r.cluster.Allows(f) {
			verdict = observerapi.Allowed
		}
		if err := w.Write(r.record(f, verdict, 3+random.Uint64N(9))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	recording, err := replay.Open(&file)
	if err != nil {
		t.Fatal(err)
	}
	in := &recommend.Input{Objects: &replay.Objects{Policies: policiesOf(r.cluster), Pods: r.cluster.Pods, Namespaces: r.cluster.Namespaces, Nodes: r.cluster.Nodes},
		Cluster: replay.Cluster{Nodes: r.cluster.Nodes}}
	if in.Traffic, err = replay.Distinct(t.Context(), recording, time.Time{}); err != nil {
		t.Fatal(err)
	}
	return in
}

// with recommended policies besides those of today. With an index it is the recommended policies alone, without one rule of that policy.
func (r *recorded) with(result *recommend.Result, index int, d policy.Direction, rule int) *reference.Cluster {
	out := *r.cluster
	out.Policies, out.ClusterPolicies = slices.Clone(out.Policies), slices.Clone(out.ClusterPolicies)
	if index >= 0 {
		out.Policies, out.ClusterPolicies = nil, nil
	}
	for i, p := range result.Policies {
		np := *p.NetworkPolicy.DeepCopy()
		switch {
		case i != index:
		case d == policy.Ingress:
			np.Spec.Ingress = slices.Delete(np.Spec.Ingress, rule, rule+1)
		default:
			np.Spec.Egress = slices.Delete(np.Spec.Egress, rule, rule+1)
		}
		out.Policies = slices.DeleteFunc(out.Policies, func(old networkingv1.NetworkPolicy) bool { return old.Namespace == np.Namespace && old.Name == np.Name })
		out.Policies = append(out.Policies, np)
	}
	return &out
}

func isListed(r *recommend.Result, f *observerapi.Flow) bool {
	return slices.ContainsFunc(r.Decisions, func(d recommend.Decision) bool {
		return d.From == replay.PartyOf(&f.Source) && d.To == replay.PartyOf(&f.Destination) && d.Protocol == f.Protocol && d.Port == f.Port &&
			(d.From.Kind != replay.KindOutside || strings.Contains(d.FromText, f.Source.Address.String())) &&
			(d.To.Kind != replay.KindOutside || strings.Contains(d.ToText, f.Destination.Address.String()))
	})
}

// What kube-network-policies decides about recorded flows alone is what the reference evaluator says of the whole cluster.
func TestRecordedFlowsAreJudgedAsInTheirCluster(t *testing.T) {
	denied, all := 0, 0
	for i := range uint64(replayScenarios) {
		r := record(13, i, FlowsPerScenario)
		nodes := slices.Clone(r.cluster.Nodes)
		for n := range nodes { // as the kubelet lists them
			nodes[n].Status.Addresses = append(slices.Clone(nodes[n].Status.Addresses), corev1.NodeAddress{Type: corev1.NodeHostName, Address: nodes[n].Name})
		}
		for _, f := range r.flows {
			is := r.record(f, observerapi.Allowed, 1)
			traffic := &replay.Traffic{Source: &is.Source, Destination: &is.Destination, Protocol: is.Protocol, Port: is.Port, Verdict: is.Verdict}
			got := JudgeRecorded(traffic, nodes, policiesOf(r.cluster))
			if got.Lacks != "" {
				continue
			}
			all++
			want := r.cluster.Allows(f)
			if got.Allowed != want {
				t.Fatalf("scenario %d: %+v: allowed is %t; the reference evaluator says %t", i, f, got.Allowed, want)
			}
			if !want {
				denied++
			}
		}
	}
	if denied < all/20 || all < replayScenarios*FlowsPerScenario/2 {
		t.Errorf("of %d flows %d are denied: that tells little", all, denied)
	}
}
