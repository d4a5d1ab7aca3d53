package resolver

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// trustedResolvers are the DNS servers whose answers agents believe. The resolver of policies passes their addresses to all agents as those of
// a shared group for each port: agents watch these slices already, and a restart of the controller does not change them.
type trustedResolvers struct {
	isSet  bool // SetTrustedResolvers was called
	wanted map[uint16]map[address]struct{}
	groups map[uint16]trustedGroup // those in the space, by port
}

type trustedGroup struct {
	id      int32 // in the space
	members map[address]struct{}
}

// SetTrustedResolvers replaces the resolvers whose answers count for domain names. A policy with names has a problem while there are none; if
// SetTrustedResolvers was never called, the Resolver does not check that.
func (r *Resolver) SetTrustedResolvers(all []netip.AddrPort) Changes {
	t := &r.trusted
	had := !t.isSet || len(t.wanted) > 0
	t.isSet, t.wanted = true, map[uint16]map[address]struct{}{}
	for _, a := range all {
		if t.wanted[a.Port()] == nil {
			t.wanted[a.Port()] = map[address]struct{}{}
		}
		t.wanted[a.Port()][a.Addr().As16()] = struct{}{}
	}
	if !r.started {
		return Changes{}
	}
	r.placeTrusted()
	if has := len(t.wanted) > 0; has != had {
		for _, p := range r.cluster.policies {
			if p.cluster.normalized.hasNames() {
				r.renderClusterPolicy(p, p)
			}
		}
		for _, p := range r.policies {
			if p.normalized.hasNames() {
				r.render(p, p)
			}
		}
	}
	return r.takeChanges()
}

// placeTrusted makes the groups in the space those that are wanted.
func (r *Resolver) placeTrusted() {
	t := &r.trusted
	for _, port := range slices.Sorted(maps.Keys(t.wanted)) {
		g, ok := t.groups[port]
		if !ok {
			key := policy.GroupKey{Namespace: r.options.SharedNamespace, Name: policy.ResolversGroup(port)}
			g = trustedGroup{r.space.use(key, true, nil), map[address]struct{}{}}
			t.groups[port] = g
		}
		for _, a := range slices.SortedFunc(maps.Keys(t.wanted[port]), address.compare) {
			if _, ok := g.members[a]; !ok {
				g.members[a] = struct{}{}
				r.space.add(g.id, a, a)
			}
		}
		for a := range g.members {
			if _, ok := t.wanted[port][a]; !ok {
				delete(g.members, a)
				r.space.remove(g.id, a)
			}
		}
	}
	for port, g := range t.groups {
		if _, ok := t.wanted[port]; !ok {
			delete(t.groups, port)
			r.space.drop(g.id)
		}
	}
}

// problemsOfNames are those of policies with names, which no answer can make known.
func (r *Resolver) problemsOfNames() []Problem {
	if !r.trusted.isSet || len(r.trusted.wanted) > 0 {
		return nil
	}
	return []Problem{{Reason: v1alpha1.ReasonNoTrustedResolver, Message: "spec.egress: its domain names match nothing, because no DNS resolver " +
		"of the cluster was found whose answers can be trusted; set the controller's --trusted-resolvers"}}
}

// hasNames reports whether a rule has a peer with domain names.
func (n *normalizedCluster) hasNames() bool {
	return slices.ContainsFunc(n.rules[policy.Egress], func(r clusterRule) bool {
		return slices.ContainsFunc(r.peers, func(p peer) bool { return p.names != nil })
	})
}
