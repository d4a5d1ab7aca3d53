package convert

import (
	"slices"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// A ClusterNetworkPolicy of the Admin tier is evaluated before all NetworkPolicies. So a direction of a policy can become one only if nothing
// that stays with NetworkPolicies has to be evaluated before it. Three things of Calico's have no counterpart there:
//
//   - The end of a tier denies. In egress, that is a rule that denies all networks: in the Admin tier, or for the default tier in the Baseline
//     tier, which NetworkPolicies come before. In ingress, rules are about pods only, so that other addresses would stay open.
//   - Pass leaves one of many tiers. It is Pass where no later tier has a ClusterNetworkPolicy for the same pods.
//   - A rule that allows everything in ingress: pods are allowed, and other addresses are left to what follows, which must be nothing.

// unit is what becomes ClusterNetworkPolicies of one candidate.
type unit struct {
	who   *candidate
	has   [2]bool
	rules [2][]rule
	// ends: the end of the tier denies what no rule of it decided, in egress.
	ends bool
}

// choose the directions of policies that become ClusterNetworkPolicies, and takes them from the candidates.
func (c *conversion) choose() {
	if c.options.Cluster {
		for _, d := range policy.Directions {
			c.chooseIn(d)
		}
	}
	for _, who := range c.candidates {
		for d := range who.rules {
			if !who.isolates[d] || who.kubernetes != nil {
				continue
			}
			for _, r := range who.rules[d] {
				if len(r.names) > 0 {
					c.refuse(who, calico.Problem{Field: r.namesField, Problem: "it has domain names, and cannot become a ClusterNetworkPolicy, which alone has such", Fix: "make it a GlobalNetworkPolicy that comes before policies which cannot become one"})
				}
			}
		}
	}
}

func (c *conversion) chooseIn(d policy.Direction) {
	out := map[*candidate]bool{}
	for {
		n := len(out)
		var chosen, rest []*candidate
		for _, who := range c.candidates {
			if who.invalid { // its place is not known
				rest = append(rest, who)
			}
		}
		for _, who := range c.candidates {
			switch {
			case !who.isolates[d] || who.invalid:
			case out[who] || !c.eligible(who, d) || slices.ContainsFunc(rest, func(r *candidate) bool { return overlap(r, who) && !commute(r, who, d) }):
				rest = append(rest, who)
			default:
				chosen = append(chosen, who)
			}
		}
		for _, who := range chosen {
			if w := c.unfit(who, chosen, rest, d); w != nil {
				out[w] = true
				break
			}
		}
		if len(out) > n {
			continue
		}
		for _, who := range chosen {
			c.take(who, d)
		}
		return
	}
}

func overlap(a, b *candidate) bool {
	if a.opaque || b.opaque {
		return true
	}
	both, err := a.selects.intersect(b.selects)
	return err != nil || !both.empty()
}

// commute reports whether two policies may be evaluated in any order: both only allow, in one tier.
func commute(a, b *candidate, d policy.Direction) bool {
	return a.tier.Name == b.tier.Name && onlyAllows(a, d) && onlyAllows(b, d) && !a.invalid && !b.invalid && !a.opaque && !b.opaque
}

func onlyAllows(c *candidate, d policy.Direction) bool {
	return !slices.ContainsFunc(c.rules[d], func(r rule) bool { return r.action != calico.Allow })
}

func isAll(r *rule) bool { return r.flow.peers.everyone && r.flow.ports.isEverything() }

// lastIsAll returns the last rule, if it is about everything.
func lastIsAll(who *candidate, d policy.Direction) *rule {
	if n := len(who.rules[d]); n > 0 && isAll(&who.rules[d][n-1]) {
		return &who.rules[d][n-1]
	}
	return nil
}

// eligible reports whether each rule can be said.
func (c *conversion) eligible(who *candidate, d policy.Direction) bool {
	if who.kubernetes != nil || who.policy.Kind != calico.KindGlobalNetworkPolicy || who.opaque || who.invalid || c.refused[who.policy] != nil || c.onlyNetwork[who.policy] {
		return false
	}
	if def, _ := c.set.Tier(calico.DefaultTier); who.tier.Order > def.Order {
		return false
	}
	for i := range who.rules[d] {
		r := &who.rules[d][i]
		last := i == len(who.rules[d])-1
		switch {
		case last && isAll(r) && r.action != calico.Deny: // unfit looks at it
		case d == policy.Ingress && (r.flow.peers.everyone || !emptySet(r.flow.peers.nets)):
			return false
		}
		if _, ok := protocolsOf(r.flow.ports); !ok {
			return false
		}
	}
	return true
}

// unfit returns a policy that cannot become a ClusterNetworkPolicy beside the others that are chosen.
func (c *conversion) unfit(who *candidate, chosen, rest []*candidate, d policy.Direction) *candidate {
	other := func(list []*candidate, is func(*candidate) bool) *candidate {
		for _, o := range list {
			if o != who && is(o) && overlap(o, who) {
				return o
			}
		}
		return nil
	}
	sameTier := func(o *candidate) bool { return o.tier.Name == who.tier.Name }
	laterTier := func(o *candidate) bool { return !sameTier(o) && o.tier.Order >= who.tier.Order }
	isDefault := who.tier.Name == calico.DefaultTier
	last := lastIsAll(who, d)
	for i := range who.rules[d] {
		r := &who.rules[d][i]
		if r.action != calico.Pass || r == last {
			continue
		}
		if later := other(chosen, laterTier); later != nil {
			return later
		}
		if isDefault && other(rest, laterTier) != nil {
			return who
		}
	}
	switch {
	case last != nil && last.action == calico.Pass && !isDefault:
		if other(rest, sameTier) != nil || other(chosen, sameTier) != nil {
			return who
		}
	case last != nil && d == policy.Ingress: // it allows everything, or passes the last tier
		if other(rest, func(*candidate) bool { return true }) != nil {
			return who
		}
	case last != nil:
		if last.action == calico.Pass && other(rest, laterTier) != nil {
			return who
		}
	case isDefault || who.tier.DefaultAction == calico.Deny:
		after := sameTier // these would be evaluated after the end
		if isDefault {
			after = laterTier // these are NetworkPolicies, which come before the Baseline tier
		}
		if d == policy.Ingress || other(rest, after) != nil {
			return who
		}
	}
	return nil
}

// take a direction from the candidate.
func (c *conversion) take(who *candidate, d policy.Direction) {
	i := slices.IndexFunc(c.units, func(u *unit) bool { return u.who == who })
	if i < 0 {
		i = len(c.units)
		c.units = append(c.units, &unit{who: who})
	}
	u := c.units[i]
	u.has[d] = true
	isDefault := who.tier.Name == calico.DefaultTier
	last := lastIsAll(who, d)
	for j := range who.rules[d] {
		r := who.rules[d][j]
		if r.action == calico.Pass && isDefault {
			r.action = calico.Allow // no tier comes after it
		}
		if &who.rules[d][j] == last && r.action == calico.Pass {
			continue // to the next tier, as if no rule had matched
		}
		u.rules[d] = append(u.rules[d], r)
	}
	u.ends = u.ends || d == policy.Egress && last == nil && (isDefault || who.tier.DefaultAction == calico.Deny)
	who.cluster, who.isolates[d] = true, false
}
