package aws

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Judge evaluates Amazon's policies together with NetworkPolicies.
type Judge struct {
	Policies        []tiered.Policy // sorted
	Applications    []Application
	NetworkPolicies []networkingv1.NetworkPolicy
}

// Judge a flow: the Admin tier first; then ApplicationNetworkPolicies and NetworkPolicies, which add up, for pods that one of them selects;
// then the Baseline tier.
func (j *Judge) Judge(d policy.Direction, f *clusterproof.Flow) clusterproof.Verdict {
	verdict := func(a policy.Action, by string) clusterproof.Verdict {
		return clusterproof.Verdict{Outcome: clusterproof.Outcome(a, policy.TierAdmin, false), By: by}
	}
	passed := ""
	if m := tiered.First(j.Policies, cnp.AdminTier, d, f); m.Policy != nil {
		if a := m.Rule(d).Action; a != policy.Pass {
			return verdict(a, m.By(d))
		}
		passed = ", after " + m.By(d) + " passed"
	}
	isolated := false
	for i := range j.Applications {
		a := &j.Applications[i]
		if a.Namespace != f.Self.Pod.Namespace || !selects(&a.Spec.PodSelector, f.Self.Pod.Labels) || !a.isolates()[d] {
			continue
		}
		isolated = true
		if by, ok := a.allows(d, f); ok {
			return verdict(policy.Allow, a.String()+": "+by+passed)
		}
	}
	np := reference.NetworkPolicies{Namespaces: f.Namespaces, Pods: f.Pods, Policies: j.NetworkPolicies}
	if got := np.Evaluate(d, f.Flow); len(got.Isolating) > 0 {
		if got.Policy != nil {
			return verdict(policy.Allow, fmt.Sprintf("NetworkPolicy %s/%s: rule %d", got.Policy.Namespace, got.Policy.Name, got.Rule))
		}
		isolated = true
	}
	if isolated {
		return verdict(policy.Deny, "isolated"+passed)
	}
	if m := tiered.First(j.Policies, cnp.BaselineTier, d, f); m.Policy != nil {
		return verdict(m.Rule(d).Action, m.By(d))
	}
	return verdict(policy.Allow, "default"+passed)
}

// isolates says in which directions the policy applies, as of a NetworkPolicy.
func (a *Application) isolates() (out [2]bool) {
	if len(a.Spec.PolicyTypes) == 0 {
		return [2]bool{policy.Ingress: true, policy.Egress: len(a.Spec.Egress) > 0}
	}
	return [2]bool{
		policy.Ingress: slices.Contains(a.Spec.PolicyTypes, networkingv1.PolicyTypeIngress),
		policy.Egress:  slices.Contains(a.Spec.PolicyTypes, networkingv1.PolicyTypeEgress),
	}
}

// rules of a direction.
func (a *Application) rules(d policy.Direction) (out []application.EgressRule) {
	if d == policy.Egress {
		return a.Spec.Egress
	}
	for _, r := range a.Spec.Ingress {
		rule := application.EgressRule{Ports: r.Ports}
		for _, p := range r.From {
			rule.To = append(rule.To, application.Peer{NetworkPolicyPeer: p})
		}
		out = append(out, rule)
	}
	return out
}

func (a *Application) allows(d policy.Direction, f *clusterproof.Flow) (by string, ok bool) {
	for i, r := range a.rules(d) {
		if (len(r.To) == 0 || slices.ContainsFunc(r.To, func(p application.Peer) bool { return a.isPeer(&p, f) })) &&
			(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return isPort(&p, d, f) })) {
			return clusterproof.RuleName(d, i, ""), true
		}
	}
	return "", false
}

func (a *Application) isPeer(p *application.Peer, f *clusterproof.Flow) bool {
	switch b := p.IPBlock; {
	case len(p.DomainNames) > 0:
		return slices.ContainsFunc(p.DomainNames, func(n string) bool { return f.Names[n] })
	case b != nil:
		return contains(b.CIDR, f.Peer.Addr) && !slices.ContainsFunc(b.Except, func(e string) bool { return contains(e, f.Peer.Addr) })
	case f.Peer.Pod == nil:
		return false
	case p.NamespaceSelector == nil && f.Peer.Pod.Namespace != a.Namespace:
		return false
	case p.NamespaceSelector != nil && !selects(p.NamespaceSelector, f.Peer.NamespaceLabels):
		return false
	}
	return p.PodSelector == nil || selects(p.PodSelector, f.Peer.Pod.Labels)
}

func contains(cidr string, addr netip.Addr) bool {
	block, err := netip.ParsePrefix(cidr)
	return err == nil && block.Contains(addr)
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

func isPort(p *networkingv1.NetworkPolicyPort, d policy.Direction, f *clusterproof.Flow) bool {
	protocol := corev1.ProtocolTCP
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	port := int32(f.Port)
	switch {
	case string(protocol) != f.Protocol.String():
		return false
	case p.Port == nil:
		return true
	case p.Port.StrVal == "" && p.EndPort == nil:
		return p.Port.IntVal == port
	case p.Port.StrVal == "":
		return p.Port.IntVal <= port && port <= *p.EndPort
	case f.Target(d) == nil:
		return false
	}
	for _, c := range f.Target(d).Spec.Containers {
		if slices.ContainsFunc(c.Ports, func(cp corev1.ContainerPort) bool {
			return cp.Name == p.Port.StrVal && cp.ContainerPort == port && cp.Protocol == protocol
		}) {
			return true
		}
	}
	return false
}
