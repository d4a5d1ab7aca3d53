package recommend

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/replay"
)

// Tightened is rules of policies in place that could go.
type Tightened struct {
	Coverage observerapi.Coverage `json:"coverage"`
	Complete bool                 `json:"complete"`
	Rules    []Spare              `json:"rules"`
	// Policies are those that have such rules, without them.
	Policies []networkingv1.NetworkPolicy `json:"policies,omitempty"`
	Proof    Proof                        `json:"proof"`
}

// Spare is a rule that could go.
type Spare struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Direction string `json:"direction"`
	Index     int    `json:"index"`
	Why       string `json:"why"`
}

// Why a rule could go.
const (
	unused    = "no recorded connection matches it"
	redundant = "other rules allow all recorded connections that match it"
)

// ruleKey names a rule of a NetworkPolicy in place.
type ruleKey struct {
	policy    int
	direction policy.Direction
	rule      int
}

// Tighten finds rules of the NetworkPolicies in place that no recorded connection needs. Taken away all together, they deny none.
func Tighten(in *Input, o Options) (*Tightened, error) {
	complete := replay.IsComplete(in.Coverage) && !slices.ContainsFunc(o.Namespaces, func(ns string) bool { return slices.Contains(in.Hidden, ns) })
	if o.RequireComplete && !complete {
		return nil, ErrIncomplete
	}
	w := newWriter(in, o, false)
	today := w.policiesToday()
	t := &tightener{writer: w, policies: today.NetworkPolicies, uses: map[ruleKey]int{}}
	t.parse()
	for _, i := range w.items {
		if !i.Reply && i.allowed() {
			t.count(i)
		}
	}
	out := &Tightened{Coverage: in.Coverage, Complete: complete, Rules: []Spare{}}
	spare := t.spare(out)
	then := replay.Policies{ClusterPolicies: today.ClusterPolicies}
	for i := range today.NetworkPolicies {
		np := withoutRules(&today.NetworkPolicies[i], i, spare)
		then.NetworkPolicies = append(then.NetworkPolicies, np)
		if len(np.Spec.Ingress) != len(today.NetworkPolicies[i].Spec.Ingress) || len(np.Spec.Egress) != len(today.NetworkPolicies[i].Spec.Egress) {
			out.Policies = append(out.Policies, np)
		}
	}
	judge := replay.NewJudge(in.Cluster, today, then)
	for _, i := range w.items {
		if i.Reply || !i.allowed() {
			continue
		}
		answers := judge.Decide(i.Flow()).Answers
		if answers[0].Verdict == replay.Allowed && answers[1].Verdict != replay.Allowed {
			return nil, fmt.Errorf("what was found to be spare is needed, so it is not shown: %s would be denied: %s", describe(i), answers[1].Why)
		}
		out.Proof.Allowed.Add(&i.Count)
	}
	return out, nil
}

type tightener struct {
	*writer
	policies []networkingv1.NetworkPolicy
	peers    map[ruleKey][]*netpol.PeerMatcher
	keys     []ruleKey
	// matches are the rules that match some traffic, in one direction of it: any of them would do.
	matches [][]ruleKey
	uses    map[ruleKey]int
}

func (t *tightener) parse() {
	t.peers = map[ruleKey][]*netpol.PeerMatcher{}
	for i := range t.policies {
		np := &t.policies[i]
		for _, d := range policy.Directions {
			for n, r := range netpol.Rules(d, np) {
				k := ruleKey{i, d, n}
				if slices.Contains(t.o.Namespaces, np.Namespace) && !policy.IsLabelledAudit(np.Labels) && np.Kind != application.Kind {
					t.keys = append(t.keys, k)
				}
				for p := range r.Peers {
					t.peers[k] = append(t.peers[k], netpol.NewPeerMatcher(np.Namespace, &r.Peers[p]))
				}
			}
		}
	}
}

// count the rules that match traffic.
func (t *tightener) count(i *item) {
	for _, d := range policy.Directions {
		self, peer := i.Source, i.Destination
		if d == policy.Ingress {
			self, peer = peer, self
		}
		if !t.isTarget(self) {
			continue
		}
		var matches []ruleKey
		for n := range t.policies {
			np := &t.policies[n]
			if np.Namespace != self.Namespace || policy.IsLabelledAudit(np.Labels) || !netpol.Selects(d, np, podOf(self)) {
				continue
			}
			for index, r := range netpol.Rules(d, np) {
				if k := (ruleKey{n, d, index}); t.matchesRule(k, &r, i, peer) {
					matches = append(matches, k)
					t.uses[k]++
				}
			}
		}
		if len(matches) > 0 {
			t.matches = append(t.matches, matches)
		}
	}
}

func (t *tightener) matchesRule(k ruleKey, r *netpol.Rule, i *item, peer *observerapi.End) bool {
	if protocol, ok := policy.ParseProtocol(i.Protocol); !ok || !netpol.MatchesPorts(r.Ports, podOf(i.Destination), policy.Flow{Protocol: protocol, Port: i.Port}) {
		return false
	}
	if !peer.Address.IsValid() { // a block might contain it
		return true
	}
	return len(t.peers[k]) == 0 || slices.ContainsFunc(t.peers[k], func(m *netpol.PeerMatcher) bool {
		return m.Matches(peer.Address, podOf(peer), peer.NamespaceLabels)
	})
}

func podOf(e *observerapi.End) *corev1.Pod {
	if e.Namespace == "" || e.IsNode {
		return nil
	}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Labels = e.Namespace, e.Labels
	c := corev1.Container{}
	for _, p := range e.NamedPorts {
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: p.Name, Protocol: corev1.Protocol(p.Protocol), ContainerPort: int32(p.Number)})
	}
	pod.Spec.Containers = []corev1.Container{c}
	return pod
}

// spare are rules that can go all together: those that match nothing, and then, one after the other, those whose traffic other rules match.
func (t *tightener) spare(out *Tightened) map[ruleKey]bool {
	spare := map[ruleKey]bool{}
	for _, k := range t.keys {
		why := unused
		if t.uses[k] > 0 {
			needed := slices.ContainsFunc(t.matches, func(rules []ruleKey) bool {
				return slices.Contains(rules, k) && !slices.ContainsFunc(rules, func(r ruleKey) bool { return r != k && !spare[r] })
			})
			if needed {
				continue
			}
			why = redundant
		}
		spare[k] = true
		np := &t.policies[k.policy]
		out.Rules = append(out.Rules, Spare{np.Namespace, np.Name, k.direction.String(), k.rule, why})
	}
	return spare
}

// withoutRules is a policy without spare rules. It isolates the same pods.
func withoutRules(np *networkingv1.NetworkPolicy, i int, spare map[ruleKey]bool) networkingv1.NetworkPolicy {
	out := *np.DeepCopy()
	out.Spec.PolicyTypes = nil
	for _, d := range policy.Directions {
		if netpol.PolicyTypes(np)[d] {
			out.Spec.PolicyTypes = append(out.Spec.PolicyTypes, networkingv1.PolicyType(d.String()))
		}
	}
	out.Spec.Ingress, out.Spec.Egress = nil, nil
	for n := range np.Spec.Ingress {
		if !spare[ruleKey{i, policy.Ingress, n}] {
			out.Spec.Ingress = append(out.Spec.Ingress, np.Spec.Ingress[n])
		}
	}
	for n := range np.Spec.Egress {
		if !spare[ruleKey{i, policy.Egress, n}] {
			out.Spec.Egress = append(out.Spec.Egress, np.Spec.Egress[n])
		}
	}
	return out
}
