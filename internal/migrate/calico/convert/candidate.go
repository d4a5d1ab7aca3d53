package convert

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// candidate is a policy read as sets: one of Calico's, to be converted, or one of Kubernetes', that stays as it is.
type candidate struct {
	policy     *calico.Policy
	kubernetes *networkingv1.NetworkPolicy

	name     string
	tier     calico.Tier
	order    float64
	isolates [2]bool
	selects  pods
	// opaque: what it selects cannot be said here, so that it may be anything.
	opaque bool
	// cluster: a direction of it is a ClusterNetworkPolicy, and no longer among what it isolates.
	cluster bool
	// invalid: it cannot be read at all, and may say anything.
	invalid bool
	rules   [2][]rule
}

// rule is a rule read as a set of flows.
type rule struct {
	action calico.Action
	flow   flow
	// self are the pods that the rule is about, of those that the policy selects.
	self  pods
	path  string
	index int // in the policy
	// names are domain names that the rule is about beside the flow, namesField is where they are.
	names      []string
	namesField string
}

func (c *candidate) passes(d policy.Direction) bool {
	return c.isolates[d] && (c.tier.DefaultAction == calico.Pass || slices.ContainsFunc(c.rules[d], func(r rule) bool { return r.action == calico.Pass }))
}

// parts of a candidate, where some of its rules are about some of its pods only: for each of these the rules that are about them.
func (c *candidate) parts() ([]*candidate, error) {
	parts := []*candidate{c}
	for d := range c.rules {
		for _, r := range c.rules[d] {
			if len(r.self) == 1 && len(r.self[0]) == 0 {
				continue // all
			}
			var next []*candidate
			for _, p := range parts {
				for _, about := range []bool{true, false} {
					combine := pods.minus
					if about {
						combine = pods.intersect
					}
					selects, err := combine(p.selects, r.self)
					if err != nil {
						return nil, err
					}
					if selects.empty() {
						continue
					}
					part := *p
					part.selects = selects
					if !about {
						part.rules[d] = slices.DeleteFunc(slices.Clone(p.rules[d]), func(o rule) bool { return o.index == r.index })
					}
					next = append(next, &part)
				}
			}
			if parts = next; len(parts) > maxClasses {
				return nil, errTooManyClasses
			}
		}
	}
	return parts, nil
}

// stays is a policy of Kubernetes' own.
func stays(np *networkingv1.NetworkPolicy, set *calico.Set) *candidate {
	c := &candidate{kubernetes: np, name: calico.KubernetesName(np), order: calico.KubernetesOrder, isolates: netpol.PolicyTypes(np)}
	c.tier, _ = set.Tier(calico.DefaultTier)
	c.selects = podsOfLabels(&np.Spec.PodSelector, false)
	for i, t := range c.selects {
		c.selects[i] = t.with(label{true, nameKey}, oneOf(np.Namespace))
	}
	for _, d := range policy.Directions {
		for i, r := range netpol.Rules(d, np) {
			f := flow{everyone, portsOfPolicy(r.Ports)}
			if len(r.Peers) > 0 {
				f.peers = peersOfPolicy(np.Namespace, r.Peers)
			}
			c.rules[d] = append(c.rules[d], rule{action: calico.Allow, flow: f, path: calico.RulePath(d, i), index: i})
		}
	}
	return c
}

func peersOfPolicy(namespace string, list []networkingv1.NetworkPolicyPeer) peers {
	out := peers{nets: setOf(nil)}
	var nets []netip.Prefix
	for i := range list {
		peer := &list[i]
		if peer.IPBlock != nil {
			n, _ := calico.ParseNets([]string{peer.IPBlock.CIDR})
			e, _ := calico.ParseNets(peer.IPBlock.Except)
			nets = append(nets, setMinus(setOf(n), setOf(e)).Prefixes()...)
			continue
		}
		p := pods{term{}.with(label{true, nameKey}, oneOf(namespace))}
		if peer.NamespaceSelector != nil {
			p = podsOfLabels(peer.NamespaceSelector, true)
		}
		if peer.PodSelector != nil {
			p, _ = p.intersect(podsOfLabels(peer.PodSelector, false))
		}
		out.pods = append(out.pods, p...)
	}
	out.nets = setOf(nets)
	return out
}
