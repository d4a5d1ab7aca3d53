package calico

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// Judge is a Set made ready to be asked.
//
// A flow is judged for a pod in one direction. Tiers are asked in their order: those in which no policy selects the pod are skipped. In a
// tier, the first rule that matches decides: Allow and Deny end it, Pass goes on with the next tier. If none does, the tier's default
// action is taken. What passed all tiers is allowed, as is what no policy is about.
type Judge struct {
	Tiers []JudgedTier
	// Problems are what keeps policies from being judged: those policies are left out.
	Problems []Problem
	unjudged []func(policy.Direction, *Endpoint) bool
}

// Certain is false where a policy that cannot be judged may be about the pod: Evaluate knows only what the others say.
func (j *Judge) Certain(d policy.Direction, self *Endpoint) bool {
	return self.Pod == nil || !slices.ContainsFunc(j.unjudged, func(selects func(policy.Direction, *Endpoint) bool) bool { return selects(d, self) })
}

// JudgedTier is a tier with its policies in their order.
type JudgedTier struct {
	Tier
	Policies []*JudgedPolicy
}

// JudgedPolicy is a policy of Calico's or of Kubernetes'.
type JudgedPolicy struct {
	// Name is "Kind namespace/name".
	Name     string
	Order    float64
	Isolates [2]bool
	Rules    [2][]*JudgedRule

	name, namespace string
	selects         func(*Endpoint) bool
}

// Selects reports whether the policy is about a pod, in a direction.
func (p *JudgedPolicy) Selects(d policy.Direction, pod *Endpoint) bool {
	return p.Isolates[d] && p.selects(pod)
}

// JudgedRule matches where all three do.
type JudgedRule struct {
	Action Action
	// Path is the field of the rule.
	Path string

	self, peer func(*Endpoint) bool
	traffic    func(Traffic) bool
}

// MatchesSelf reports whether the rule is about this pod, which its policy selects.
func (r *JudgedRule) MatchesSelf(e *Endpoint) bool { return r.self(e) }

// MatchesPeer reports whether the rule is about this other end.
func (r *JudgedRule) MatchesPeer(e *Endpoint) bool { return r.peer(e) }

// MatchesTraffic reports whether the rule is about this protocol and port.
func (r *JudgedRule) MatchesTraffic(t Traffic) bool { return r.traffic(t) }

// Traffic is what a flow is but for its ends.
type Traffic struct {
	Protocol policy.Protocol
	Port     uint16 // of the destination; 0 where the protocol has none
	// Target is the pod that receives it, whose ports may have names; nil for what is no pod.
	Target *corev1.Pod
}

// Verdict is an answer and where it comes from.
type Verdict struct {
	Allowed bool `json:"allowed"`
	// By is the policy and the rule, or says which default it was.
	By string `json:"by"`
}

// NewJudge reads the policies of a set. namespaces are the labels of those that are known, for NetworkSets in them.
func NewJudge(s *Set, namespaces map[string]map[string]string) *Judge {
	j := &Judge{}
	c := &compiler{set: s, namespaces: namespaces}
	byTier := map[string][]*JudgedPolicy{}
	for i := range s.Policies {
		p := &s.Policies[i]
		jp, problems := c.policy(p)
		if len(problems) > 0 {
			j.Problems = append(j.Problems, problems...)
			j.unjudged = append(j.unjudged, p.mayBeAbout)
			continue
		}
		if jp != nil {
			byTier[p.TierName()] = append(byTier[p.TierName()], jp)
		}
	}
	for i := range s.Kubernetes {
		byTier[DefaultTier] = append(byTier[DefaultTier], kubernetes(&s.Kubernetes[i]))
	}
	admin, baseline := clusterTiers(s.Cluster)
	if len(s.Cluster) > 0 {
		j.Tiers = append(j.Tiers, admin)
	}
	for _, t := range s.TierOrder() {
		policies := byTier[t.Name]
		slices.SortStableFunc(policies, func(a, b *JudgedPolicy) int {
			return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.name, b.name), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.Name, b.Name))
		})
		j.Tiers = append(j.Tiers, JudgedTier{Tier: t, Policies: policies})
	}
	if len(s.Cluster) > 0 {
		j.Tiers = append(j.Tiers, baseline)
	}
	return j
}

// mayBeAbout a pod, as far as the policy can be read.
func (p *Policy) mayBeAbout(d policy.Direction, e *Endpoint) bool {
	if len(p.Invalid) > 0 {
		return p.Namespace == "" || p.Namespace == e.Pod.Namespace
	}
	s, err := p.Selector()
	return p.Isolates()[d] && (err != nil || s.Matches(e.label))
}

// Evaluate judges one direction of a flow for a pod. peer is the other end.
func (j *Judge) Evaluate(d policy.Direction, self, peer *Endpoint, t Traffic) Verdict {
	if self.Pod == nil {
		return Verdict{Allowed: true, By: "no pod"}
	}
	by := "no policy is about the pod"
	for _, tier := range j.Tiers {
		v, decided, selected := tier.evaluate(d, self, peer, t)
		if decided {
			return v
		}
		if selected {
			by = "passed all tiers"
		}
	}
	return Verdict{Allowed: true, By: by}
}

func (t *JudgedTier) evaluate(d policy.Direction, self, peer *Endpoint, traffic Traffic) (v Verdict, decided, selected bool) {
	for _, p := range t.Policies {
		if !p.Selects(d, self) {
			continue
		}
		selected = true
		for _, r := range p.Rules[d] {
			if !r.self(self) || !r.peer(peer) || !r.traffic(traffic) {
				continue
			}
			switch r.Action {
			case Allow, Deny:
				return Verdict{r.Action == Allow, p.Name + ": " + r.Path}, true, true
			case Pass:
				return Verdict{}, false, true
			case Log: // decides nothing
			}
		}
	}
	if selected && t.DefaultAction == Deny {
		return Verdict{false, fmt.Sprintf("the end of tier %s", t.Name)}, true, true
	}
	return Verdict{}, false, selected
}

// family of an address, as ipVersion has it.
func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}
