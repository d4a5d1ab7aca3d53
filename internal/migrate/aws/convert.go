package aws

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
	"github.com/kidoban/kidoban/internal/policy"
)

// namesPriority is behind all other policies of the Admin tier: what the cluster's policies decide comes first.
const namesPriority = 1000

// Result of a conversion.
type Result struct {
	ClusterPolicies []cnp.ClusterNetworkPolicy
	NetworkPolicies []networkingv1.NetworkPolicy
	Notes, Refused  []migrate.Problem
	// Proof is of both kinds. Narrower are flows to domain names that Amazon's engine allows and the new policies deny.
	Proof    *clusterproof.Report
	Narrower []*clusterproof.Difference
}

// Convert the policies and prove the result. With denyFirst, rules are in the order in which Amazon's agent evaluates them, else as they
// are written.
func (s *Set) Convert(ctx context.Context, denyFirst bool) (*Result, error) {
	before := tiered.Sorted(s.Policies)
	if denyFirst {
		before = tiered.DenyFirst(before)
	}
	r := &Result{Proof: &clusterproof.Report{}}
	all := slices.Clone(before)
	taken := map[string]bool{}
	for i := range s.NetworkPolicies {
		taken[s.NetworkPolicies[i].Namespace+"/"+s.NetworkPolicies[i].Name] = true
	}
	for i := range s.Applications {
		np, names := s.Applications[i].split()
		for base, n := np.Name, 1; taken[np.Namespace+"/"+np.Name]; n++ {
			np.Name = base + "-application"
			if n > 1 {
				np.Name = fmt.Sprintf("%s-application-%d", base, n)
			}
		}
		taken[np.Namespace+"/"+np.Name] = true
		if np.Name != s.Applications[i].Name {
			r.note(&s.Applications[i], "metadata.name", "it becomes NetworkPolicy %s: the NetworkPolicy of its name is another policy, and both are in force", np.Name)
		}
		if names != nil {
			all = append(all, *names)
			r.note(&s.Applications[i], "spec.egress", "its rules with domain names become a ClusterNetworkPolicy for the same pods, behind all others of the Admin tier: only that kind has domain names")
		}
		r.NetworkPolicies = append(r.NetworkPolicies, *np)
	}
	written := tiered.Write(all, s.ClusterPolicies)
	r.ClusterPolicies, r.Refused = written.Policies, written.Refused
	r.Notes = append(r.Notes, written.Notes...)
	if len(r.Refused) > 0 {
		r.NetworkPolicies = nil
		return r, nil
	}
	return r, s.prove(ctx, before, r)
}

// terms of the ApplicationNetworkPolicies.
func (s *Set) terms() (out []clusterproof.Terms, err error) {
	for i := range s.Applications {
		a := &s.Applications[i]
		subject, err := clusterproof.Select(&metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: a.Namespace}}, &a.Spec.PodSelector)
		if err != nil {
			return nil, err
		}
		for _, d := range policy.Directions {
			if !a.isolates()[d] {
				continue
			}
			t := clusterproof.Terms{Direction: d, Subject: subject}
			for _, r := range a.rules(d) {
				for _, p := range r.To {
					if len(p.DomainNames) > 0 {
						t.Names = append(t.Names, p.DomainNames...)
					} else if err := t.AddPeer(a.Namespace, &p.NetworkPolicyPeer); err != nil {
						return nil, err
					}
				}
				t.AddPorts(r.Ports)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

func (r *Result) note(a *Application, field, format string, args ...any) {
	r.Notes = append(r.Notes, migrate.Problem{Object: a.String(), Field: field, Problem: fmt.Sprintf(format, args...)})
}

// prove both kinds: the ClusterNetworkPolicies whatever NetworkPolicies there are, and all with the NetworkPolicies that there are.
func (s *Set) prove(ctx context.Context, before []tiered.Policy, r *Result) error {
	var err error
	own := slices.DeleteFunc(slices.Clone(r.ClusterPolicies), isOfApplication)
	if r.Proof, err = tiered.Prove(ctx, before, own); err != nil || len(s.Applications) == 0 {
		return err
	}
	terms, err := tiered.Terms(before)
	if err != nil {
		return err
	}
	more, err := clusterproof.ClusterTerms(r.ClusterPolicies)
	if err != nil {
		return err
	}
	named, err := s.terms()
	if err != nil {
		return err
	}
	nps := slices.Concat(s.NetworkPolicies, r.NetworkPolicies)
	others, err := clusterproof.NetworkPolicyTerms(nps)
	if err != nil {
		return err
	}
	both, err := clusterproof.Compare(ctx, slices.Concat(terms, more, named, others), &Judge{before, s.Applications, s.NetworkPolicies}, &clusterproof.Reference{Cluster: r.ClusterPolicies, NetworkPolicies: nps})
	if err != nil {
		return err
	}
	r.Proof.Flows += both.Flows
	for _, d := range both.Differences {
		if d.Names && d.Before.Outcome == policy.Allow.String() && d.After.Outcome == policy.Deny.String() {
			r.Narrower = append(r.Narrower, d)
			continue
		}
		r.Proof.Differing += d.Flows
		r.Proof.Differences = append(r.Proof.Differences, d)
	}
	return nil
}

// isOfApplication reports whether the policy stands for domain names of an ApplicationNetworkPolicy.
func isOfApplication(p cnp.ClusterNetworkPolicy) bool {
	return strings.HasPrefix(p.Annotations[tiered.SourceAnnotation], KindApplication+" ")
}

// split the policy into a NetworkPolicy and, of its domain names, a policy of the Admin tier; names is nil if it has none.
func (a *Application) split() (np *networkingv1.NetworkPolicy, names *tiered.Policy) {
	defer func() { np = np.DeepCopy() }()
	isolates := a.isolates()
	np = &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: a.Name, Labels: maps.Clone(a.Labels), Annotations: map[string]string{tiered.SourceAnnotation: a.String()}},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: a.Spec.PodSelector},
	}
	if isolates[policy.Ingress] {
		np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
		np.Spec.Ingress = a.Spec.Ingress
	}
	if !isolates[policy.Egress] {
		return np, nil
	}
	np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	var rules []tiered.Rule
	for i, r := range a.Spec.Egress {
		rule := networkingv1.NetworkPolicyEgressRule{Ports: r.Ports}
		named := tiered.Rule{Name: fmt.Sprintf("egress[%d] of %s/%s", i, a.Namespace, a.Name), Action: policy.Allow, Ports: portsOf(r.Ports)}
		if len(named.Name) > 100 {
			named.Name = fmt.Sprintf("egress[%d]", i)
		}
		for _, p := range r.To {
			if len(p.DomainNames) == 0 {
				rule.To = append(rule.To, p.NetworkPolicyPeer)
			}
			for part := range slices.Chunk(p.DomainNames, 25) {
				peer := anp.AdminNetworkPolicyEgressPeer{}
				for _, n := range part {
					peer.DomainNames = append(peer.DomainNames, anp.DomainName(n))
				}
				named.Peers = append(named.Peers, peer)
			}
		}
		if len(rule.To) > 0 || len(r.To) == 0 {
			np.Spec.Egress = append(np.Spec.Egress, rule)
		}
		if len(named.Peers) > 0 {
			rules = append(rules, named)
		}
	}
	if len(rules) == 0 {
		return np, nil
	}
	names = &tiered.Policy{
		Kind: KindApplication, Name: a.Namespace + "-" + a.Name + "-names", Tier: cnp.AdminTier, Priority: namesPriority, Labels: a.Labels,
		Subject: anp.AdminNetworkPolicySubject{Pods: &anp.NamespacedPod{
			NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: a.Namespace}}, PodSelector: a.Spec.PodSelector,
		}},
		Source: a.String(),
	}
	names.Rules[policy.Egress] = rules
	return np, names
}

// portsOf a rule of a NetworkPolicy, as v1alpha1 has them. A protocol without a port is all of its ports.
func portsOf(list []networkingv1.NetworkPolicyPort) *[]anp.AdminNetworkPolicyPort {
	if len(list) == 0 {
		return nil
	}
	out := []anp.AdminNetworkPolicyPort{}
	for _, p := range list {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = cmp.Or(*p.Protocol, protocol)
		}
		switch {
		case p.Port == nil:
			out = append(out, anp.AdminNetworkPolicyPort{PortRange: &anp.PortRange{Protocol: protocol, Start: 1, End: 65535}})
		case p.EndPort != nil:
			out = append(out, anp.AdminNetworkPolicyPort{PortRange: &anp.PortRange{Protocol: protocol, Start: p.Port.IntVal, End: *p.EndPort}})
		default:
			out = append(out, anp.AdminNetworkPolicyPort{PortNumber: &anp.Port{Protocol: protocol, Port: p.Port.IntVal}})
		}
	}
	return &out
}
