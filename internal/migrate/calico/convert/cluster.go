package convert

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// What v1alpha2 admits: items of a list, and the last priority.
const (
	maxItems    = 25
	maxPriority = 1000
)

// baselinePriority of the policies that deny at the end of the default tier. Their order is of no meaning.
const baselinePriority = 500

// writeCluster writes the units, in the order of evaluation.
func (c *conversion) writeCluster() []cnp.ClusterNetworkPolicy {
	units := slices.DeleteFunc(slices.Clone(c.units), func(u *unit) bool { return c.refused[u.who.policy] != nil })
	slices.SortStableFunc(units, func(a, b *unit) int {
		return cmp.Compare(slices.Index(c.candidates, a.who), slices.Index(c.candidates, b.who))
	})
	w := &clusterWriter{taken: map[string]bool{}}
	for i := range c.set.Policies {
		if p := &c.set.Policies[i]; p.Kind == "ClusterNetworkPolicy" {
			w.taken[p.Name] = true
		}
	}
	for i, u := range units {
		w.unit(u)
		if i+1 < len(units) && units[i+1].who.tier.Name == u.who.tier.Name {
			continue
		}
		for _, o := range units[:i+1] { // the end of the tier
			if o.ends && o.who.tier.Name == u.who.tier.Name && !slices.ContainsFunc(units[:i+1], o.isEndedBy) {
				w.end(o)
			}
		}
	}
	step := int32(10)
	if w.steps*step > maxPriority {
		step = 1
	}
	for i := range w.out {
		if p := &w.out[i]; p.Spec.Tier == cnp.AdminTier {
			p.Spec.Priority *= step
		}
	}
	return w.out
}

type clusterWriter struct {
	taken map[string]bool
	steps int32
	out   []cnp.ClusterNetworkPolicy
}

// unit becomes a policy for each selector of its pods and each 25 rules.
func (w *clusterWriter) unit(u *unit) {
	var in []cnp.ClusterNetworkPolicyIngressRule
	for _, r := range u.rules[policy.Ingress] {
		for _, e := range rulesOf(&r, policy.Ingress) {
			rule := cnp.ClusterNetworkPolicyIngressRule{Name: e.Name, Action: e.Action, Protocols: e.Protocols}
			for _, peer := range e.To {
				rule.From = append(rule.From, cnp.ClusterNetworkPolicyIngressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
			}
			in = append(in, rule)
		}
	}
	var out []cnp.ClusterNetworkPolicyEgressRule
	for _, r := range u.rules[policy.Egress] {
		out = append(out, rulesOf(&r, policy.Egress)...)
	}
	ins, outs := slices.Collect(slices.Chunk(in, maxItems)), slices.Collect(slices.Chunk(out, maxItems))
	for i := range max(len(ins), len(outs)) {
		w.steps++
		spec := cnp.ClusterNetworkPolicySpec{Tier: cnp.AdminTier, Priority: w.steps}
		if i < len(ins) {
			spec.Ingress = ins[i]
		}
		if i < len(outs) {
			spec.Egress = outs[i]
		}
		w.add(u, u.who.policy.Name, spec)
	}
}

// end of the unit's tier, which denies what no policy of the tier decided. Of the default tier that is in the Baseline tier: NetworkPolicies,
// which are in the default tier too, may still allow it.
func (w *clusterWriter) end(u *unit) {
	spec := cnp.ClusterNetworkPolicySpec{Tier: cnp.BaselineTier, Priority: baselinePriority}
	if u.who.tier.Name != calico.DefaultTier {
		w.steps++
		spec.Tier, spec.Priority = cnp.AdminTier, w.steps
	}
	spec.Egress = []cnp.ClusterNetworkPolicyEgressRule{{Name: "end of tier " + u.who.tier.Name, Action: cnp.ClusterNetworkPolicyRuleActionDeny, To: everywhere()}}
	if len(spec.Egress[0].Name) > 100 {
		spec.Egress[0].Name = "end of tier"
	}
	w.add(u, u.who.policy.Name+"-end", spec)
}

// isEndedBy reports whether another policy of the tier decides everything about the same pods, so that its end is not reached.
func (u *unit) isEndedBy(o *unit) bool {
	if o.who.tier.Name != u.who.tier.Name || !o.has[policy.Egress] || lastIsAll(o.who, policy.Egress) == nil || lastIsAll(o.who, policy.Egress).action == calico.Pass {
		return false
	}
	left, err := u.who.selects.minus(o.who.selects)
	return err == nil && left.empty()
}

func everywhere() []cnp.ClusterNetworkPolicyEgressPeer {
	return []cnp.ClusterNetworkPolicyEgressPeer{{Networks: []cnp.CIDR{"0.0.0.0/0", "::/0"}}}
}

// add a policy for each selector of the unit's pods.
func (w *clusterWriter) add(u *unit, base string, spec cnp.ClusterNetworkPolicySpec) {
	for _, t := range u.who.selects {
		for _, one := range t.split() {
			name := base
			for n := 2; w.taken[name]; n++ {
				name = fmt.Sprintf("%s-%d", base, n)
			}
			w.taken[name] = true
			p := cnp.ClusterNetworkPolicy{
				TypeMeta:   metav1.TypeMeta{APIVersion: cnp.GroupVersion.String(), Kind: "ClusterNetworkPolicy"},
				ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{Annotation: u.who.name}},
				Spec:       *spec.DeepCopy(),
			}
			if own := one.selector(false); own != nil {
				p.Spec.Subject.Pods = &cnp.NamespacedPod{NamespaceSelector: selectorOr(one.selector(true)), PodSelector: *own}
			} else {
				namespaces := selectorOr(one.selector(true))
				p.Spec.Subject.Namespaces = &namespaces
			}
			w.out = append(w.out, p)
		}
	}
}

// selectorOr of all.
func selectorOr(s *metav1.LabelSelector) metav1.LabelSelector {
	if s == nil {
		return metav1.LabelSelector{}
	}
	return *s
}

var clusterActions = map[calico.Action]cnp.ClusterNetworkPolicyRuleAction{
	calico.Allow: cnp.ClusterNetworkPolicyRuleActionAccept, calico.Deny: cnp.ClusterNetworkPolicyRuleActionDeny, calico.Pass: cnp.ClusterNetworkPolicyRuleActionPass,
}

// rulesOf one rule: none if it matches nothing, several if it has more peers or ports than v1alpha2 admits.
func rulesOf(r *rule, d policy.Direction) (out []cnp.ClusterNetworkPolicyEgressRule) {
	var peers []cnp.ClusterNetworkPolicyEgressPeer
	switch p := r.flow.peers; {
	case p.everyone && d == policy.Egress:
		peers = everywhere()
	case p.everyone: // in ingress: pods; other addresses are left to what follows, which is nothing
		peers = []cnp.ClusterNetworkPolicyEgressPeer{{Namespaces: &metav1.LabelSelector{}}}
	default:
		for _, t := range p.pods {
			for _, one := range t.split() {
				namespaces := selectorOr(one.selector(true))
				if own := one.selector(false); own != nil {
					peers = append(peers, cnp.ClusterNetworkPolicyEgressPeer{Pods: &cnp.NamespacedPod{NamespaceSelector: namespaces, PodSelector: *own}})
				} else {
					peers = append(peers, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: &namespaces})
				}
			}
		}
		var nets []cnp.CIDR
		for _, n := range p.nets.Prefixes() {
			nets = append(nets, cnp.CIDR(n.String()))
		}
		for part := range slices.Chunk(nets, maxItems) {
			peers = append(peers, cnp.ClusterNetworkPolicyEgressPeer{Networks: part})
		}
	}
	var names []cnp.DomainName
	for _, n := range r.names {
		if !slices.Contains(names, cnp.DomainName(n)) {
			names = append(names, cnp.DomainName(n))
		}
	}
	for part := range slices.Chunk(names, maxItems) {
		peers = append(peers, cnp.ClusterNetworkPolicyEgressPeer{DomainNames: part})
	}
	protocols, _ := protocolsOf(r.flow.ports)
	if r.flow.ports.empty() {
		return nil
	}
	parts := slices.Collect(slices.Chunk(protocols, maxItems))
	if len(parts) == 0 {
		parts = append(parts, nil)
	}
	for to := range slices.Chunk(peers, maxItems) {
		for _, ports := range parts {
			out = append(out, cnp.ClusterNetworkPolicyEgressRule{Name: r.path, Action: clusterActions[r.action], To: to, Protocols: ports})
		}
	}
	return out
}

// protocolsOf ports; none is everything. ok is false where v1alpha2 cannot say it: protocols without ports, and names of ports of one
// protocol.
func protocolsOf(p ports) (out []cnp.ClusterNetworkPolicyProtocol, ok bool) {
	if p.isEverything() {
		return nil, true
	}
	if p.others || len(p.rest) > 0 {
		return nil, false
	}
	for i := range withPorts {
		if len(p.of[i].names) > 0 {
			return nil, false
		}
		for _, r := range p.of[i].ranges {
			port := &cnp.Port{Number: int32(r.first)}
			if r.first != r.last {
				port = &cnp.Port{Range: &cnp.PortRange{Start: int32(r.first), End: int32(r.last)}}
			}
			one := cnp.ClusterNetworkPolicyProtocol{}
			switch withPorts[i] {
			case policy.TCP:
				one.TCP = &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
			case policy.UDP:
				one.UDP = &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
			default:
				one.SCTP = &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
			}
			out = append(out, one)
		}
	}
	return out, true
}
