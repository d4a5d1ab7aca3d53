package convert

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// result writes the grants as NetworkPolicies.
func (c *conversion) result(grants map[string][2][]grant) *Result {
	r := &Result{Warnings: c.warnings, Notes: c.notes, Namespaces: c.namespaces, Cluster: c.writeCluster()}
	for ns, both := range grants {
		r.Policies = append(r.Policies, c.write(ns, both)...)
	}
	slices.SortFunc(r.Policies, func(a, b networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	placed := map[*calico.Policy]bool{}
	for _, locals := range c.local {
		for _, l := range locals {
			placed[l.policy] = true
		}
	}
	listed := map[*calico.Policy]bool{}
	for _, who := range c.candidates {
		switch p := who.policy; {
		case p == nil || listed[p]:
		case c.refused[p] != nil:
			r.Refused = append(r.Refused, c.refused[p]...)
			r.NotConverted = append(r.NotConverted, who.name)
		default:
			r.Converted = append(r.Converted, who.name)
			if !placed[p] && !who.cluster {
				r.Notes = append(r.Notes, calico.Problem{Object: who.name, Field: selectorField(who), Problem: "it selects no pods of the namespaces that there are: nothing is written for it"})
			}
		}
		listed[who.policy] = true
	}
	return r
}

// piece is one NetworkPolicy: the grants to the same pods.
type piece struct {
	pods      pods
	isolates  [2]bool
	flows     [2][]flow
	candidate *candidate
	passed    bool
}

func (c *conversion) write(ns string, both [2][]grant) []networkingv1.NetworkPolicy {
	var pieces []*piece
	for _, d := range policy.Directions {
		for _, g := range both[d] {
			i := slices.IndexFunc(pieces, func(p *piece) bool {
				return p.candidate == g.candidate && p.passed == g.passed && slices.EqualFunc(p.pods, g.pods, term.equal) && !p.isolates[d]
			})
			if i < 0 {
				i = len(pieces)
				pieces = append(pieces, &piece{pods: g.pods, candidate: g.candidate, passed: g.passed})
			}
			pieces[i].isolates[d], pieces[i].flows[d] = true, g.flows
		}
	}
	taken := map[string]bool{}
	for i := range c.set.Kubernetes {
		if c.set.Kubernetes[i].Namespace == ns {
			taken[c.set.Kubernetes[i].Name] = true
		}
	}
	var out []networkingv1.NetworkPolicy
	for _, p := range pieces {
		for _, t := range p.pods {
			for _, one := range t.split() {
				out = append(out, p.policy(ns, one, taken))
			}
		}
	}
	return out
}

func (p *piece) policy(ns string, t term, taken map[string]bool) networkingv1.NetworkPolicy {
	np := networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"}}
	np.Namespace, np.Name = ns, p.name(taken)
	np.Annotations = map[string]string{Annotation: p.candidate.name}
	if s := t.selector(false); s != nil {
		np.Spec.PodSelector = *s
	}
	for d, kind := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
		if p.isolates[d] {
			np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, kind)
		}
	}
	for _, f := range p.flows[policy.Ingress] {
		list, _ := f.ports.write()
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: f.peers.write(ns), Ports: list})
	}
	for _, f := range p.flows[policy.Egress] {
		list, _ := f.ports.write()
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: f.peers.write(ns), Ports: list})
	}
	return np
}

// name that is not taken in the namespace.
func (p *piece) name(taken map[string]bool) string {
	base := p.candidate.policy.Name
	if p.passed {
		base += "-passed"
	}
	name := base
	if taken[name] && p.candidate.tier.Name != calico.DefaultTier {
		name = p.candidate.tier.Name + "." + base
	}
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	taken[name] = true
	return name
}

// write the peers; none are everyone.
func (p peers) write(ns string) []networkingv1.NetworkPolicyPeer {
	if p.everyone {
		return nil
	}
	var out []networkingv1.NetworkPolicyPeer
	for _, t := range p.pods {
		for _, one := range t.split() {
			out = append(out, peer(ns, one))
		}
	}
	for _, b := range blocks(p.nets) {
		out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: &b})
	}
	return out
}

func peer(ns string, t term) networkingv1.NetworkPolicyPeer {
	own := label{true, nameKey}
	out := networkingv1.NetworkPolicyPeer{PodSelector: t.selector(false)}
	v, named := t[own]
	if named && v.equal(oneOf(ns)) {
		if out.PodSelector == nil {
			out.PodSelector = &metav1.LabelSelector{}
		}
		rest := maps.Clone(t)
		delete(rest, own)
		if rest.selector(true) == nil {
			return out // pods of the policy's own namespace
		}
	}
	if out.NamespaceSelector = t.selector(true); out.NamespaceSelector == nil {
		out.NamespaceSelector = &metav1.LabelSelector{}
	}
	return out
}

// blocks that come to a set of addresses, as few as can be, each with its excepts.
func blocks(s *netipx.IPSet) []networkingv1.IPBlock {
	var out []networkingv1.IPBlock
	for _, whole := range []string{"0.0.0.0/0", "::/0"} {
		_, list := cover(netip.MustParsePrefix(whole), s)
		out = append(out, list...)
	}
	slices.SortStableFunc(out, func(a, b networkingv1.IPBlock) int {
		return cmp.Compare(strings.Count(a.CIDR, ":"), strings.Count(b.CIDR, ":"))
	})
	return out
}

// cover what of a prefix is in the set: by the prefix itself less some, or by its halves, whichever is shorter.
func cover(p netip.Prefix, s *netipx.IPSet) (length int, list []networkingv1.IPBlock) {
	switch {
	case !s.OverlapsPrefix(p):
		return 0, nil
	case s.ContainsPrefix(p):
		return 1, []networkingv1.IPBlock{{CIDR: p.String()}}
	}
	missing := setMinus(setOf([]netip.Prefix{p}), s).Prefixes()
	halves := halvesOf(p)
	n, left := cover(halves[0], s)
	m, right := cover(halves[1], s)
	if 1+len(missing) < n+m {
		block := networkingv1.IPBlock{CIDR: p.String()}
		for _, e := range missing {
			block.Except = append(block.Except, e.String())
		}
		return 1 + len(missing), []networkingv1.IPBlock{block}
	}
	return n + m, append(left, right...)
}

func halvesOf(p netip.Prefix) [2]netip.Prefix {
	bits := p.Bits() + 1
	upper := p.Addr().AsSlice()
	upper[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	addr, _ := netip.AddrFromSlice(upper)
	return [2]netip.Prefix{netip.PrefixFrom(p.Addr(), bits), netip.PrefixFrom(addr, bits)}
}
