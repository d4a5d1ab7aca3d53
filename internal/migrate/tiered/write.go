package tiered

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/policy"
)

// maxItems is how many rules a direction, peers a rule, ports a rule and networks a peer v1alpha2 admits.
const maxItems = 25

// Result of a conversion.
type Result struct {
	Policies []cnp.ClusterNetworkPolicy
	// Notes are what changes in writing and not in meaning, and what has no place in the new kind.
	Notes []migrate.Problem
	// Refused is why nothing is written.
	Refused []migrate.Problem
}

// Write policies as ClusterNetworkPolicies of v1alpha2. taken are names that other ClusterNetworkPolicies have.
func Write(policies []Policy, taken map[string]bool) *Result {
	w := &writer{taken: maps.Clone(taken), result: &Result{}}
	if w.taken == nil {
		w.taken = map[string]bool{}
	}
	for _, tier := range []cnp.Tier{cnp.AdminTier, cnp.BaselineTier} {
		w.tier(slices.DeleteFunc(Sorted(policies), func(p Policy) bool { return p.Tier != tier }))
	}
	if len(w.result.Refused) > 0 {
		w.result.Policies = nil
	}
	return w.result
}

type writer struct {
	taken  map[string]bool
	result *Result
}

func (w *writer) note(p *Policy, field, fix, format string, args ...any) {
	w.result.Notes = append(w.result.Notes, migrate.Problem{Object: p.String(), Field: field, Problem: fmt.Sprintf(format, args...), Fix: fix})
}

// tier writes the policies of one tier, in the order in which they are evaluated.
func (w *writer) tier(policies []Policy) {
	parts := make([][]cnp.ClusterNetworkPolicy, len(policies))
	for i := range policies {
		parts[i] = w.parts(&policies[i])
	}
	priorities, ok := w.prioritise(policies, parts)
	if !ok {
		w.result.Refused = append(w.result.Refused, migrate.Problem{
			Object: "tier " + string(policies[0].Tier), Field: "spec.priority", Problem: "more policies than priorities from 0 to 1000: there is no room for the parts of policies with more than 25 rules",
			Fix: "put rules together",
		})
		return
	}
	next := 0
	for i := range policies {
		p := &policies[i]
		for j := range parts[i] {
			out := &parts[i][j]
			out.Name = w.name(p, j)
			out.Spec.Priority = priorities[next]
			next++
			w.result.Policies = append(w.result.Policies, *out)
		}
		first := parts[i][0].Spec.Priority
		if n := len(parts[i]); n > 1 {
			w.note(p, "spec", "", "its rules are more than the %d that v1alpha2 admits: they become %d ClusterNetworkPolicies, %s to %s, with priorities %d to %d", maxItems, n, parts[i][0].Name, parts[i][n-1].Name,
				first, parts[i][n-1].Spec.Priority)
		}
		if first != p.Priority && p.Kind != "BaselineAdminNetworkPolicy" && p.Source == "" {
			w.note(p, "spec.priority", "", "%d becomes %d: policies keep their order, and parts of others need priorities of their own", p.Priority, first)
		}
		if parts[i][0].Name != p.Name {
			w.note(p, "metadata.name", "", "it becomes %s: another ClusterNetworkPolicy is named %s", parts[i][0].Name, p.Name)
		}
	}
	for i := 1; i < len(policies); i++ {
		if a, b := &policies[i-1], &policies[i]; a.Priority == b.Priority && a.Source == "" && b.Source == "" {
			w.note(b, "spec.priority", "give them different priorities, if one flow can match rules of both", "%s has the same priority: which of them is evaluated first is not defined; kidoban goes by the name, and so does the proof", a)
		}
	}
}

// prioritise returns a priority for each part: the policy's own where that is free, else the next one. Where that leads beyond the last
// priority, policies move down instead.
func (w *writer) prioritise(policies []Policy, parts [][]cnp.ClusterNetworkPolicy) (out []int32, ok bool) {
	var after []bool // must be evaluated after the one before, and not just have a later name
	for i := range policies {
		for j := range parts[i] {
			want := policies[i].Priority
			same := i > 0 && j == 0 && (policies[i-1].Source == "") == (policies[i].Source == "") && policies[i-1].Priority == want && len(parts[i-1]) == 1 && !w.taken[policies[i].Name] && !w.taken[policies[i-1].Name]
			if n := len(out); n > 0 {
				least := out[n-1] + 1
				if same {
					least = out[n-1]
				}
				want = max(want, least)
			}
			out, after = append(out, want), append(after, !same)
		}
	}
	limit := int32(maxPriority)
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = min(out[i], limit)
		limit = out[i]
		if after[i] {
			limit--
		}
	}
	return out, len(out) == 0 || out[0] >= 0
}

// name of a part, which no other policy has.
func (w *writer) name(p *Policy, part int) string {
	name := p.Name
	if part == 0 && w.taken[name] {
		name += map[string]string{"AdminNetworkPolicy": "-admin", "BaselineAdminNetworkPolicy": "-baseline"}[p.Kind]
		if name == p.Name {
			name += "-aws"
		}
	}
	if part > 0 {
		name = fmt.Sprintf("%s-%d", p.Name, part+1)
	}
	for base, n := name, 2; w.taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	w.taken[name] = true
	return name
}

// parts of a policy, each of which has no more rules than v1alpha2 admits. Directions are independent of each other.
func (w *writer) parts(p *Policy) []cnp.ClusterNetworkPolicy {
	for _, k := range slices.Sorted(maps.Keys(p.Annotations)) {
		switch {
		case k == corev1.LastAppliedConfigAnnotation:
		case strings.HasPrefix(k, "k8s.ovn.org/"):
			w.note(p, "metadata.annotations", "", "%s is for OVN-Kubernetes and is left out: kidoban's flow log is set up for the agents, not for each policy", k)
		default:
			w.note(p, "metadata.annotations", "add it again if a tool needs it", "%s is left out", k)
		}
	}
	var in []cnp.ClusterNetworkPolicyIngressRule
	for i := range p.Rules[policy.Ingress] {
		for _, r := range w.rules(p, policy.Ingress, i) {
			rule := cnp.ClusterNetworkPolicyIngressRule{Name: r.Name, Action: r.Action, Protocols: r.Protocols}
			for _, peer := range r.To {
				rule.From = append(rule.From, cnp.ClusterNetworkPolicyIngressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
			}
			in = append(in, rule)
		}
	}
	var out []cnp.ClusterNetworkPolicyEgressRule
	for i := range p.Rules[policy.Egress] {
		out = append(out, w.rules(p, policy.Egress, i)...)
	}
	ins, outs := chunks(in), chunks(out)
	var parts []cnp.ClusterNetworkPolicy
	for i := range max(len(ins), len(outs), 1) {
		part := cnp.ClusterNetworkPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: cnp.GroupVersion.String(), Kind: "ClusterNetworkPolicy"},
			ObjectMeta: metav1.ObjectMeta{Labels: p.Labels, Annotations: map[string]string{SourceAnnotation: cmp.Or(p.Source, p.String())}},
			Spec:       cnp.ClusterNetworkPolicySpec{Tier: p.Tier, Subject: cnp.ClusterNetworkPolicySubject{Namespaces: p.Subject.Namespaces, Pods: pods(p.Subject.Pods)}},
		}
		if i < len(ins) {
			part.Spec.Ingress = ins[i]
		}
		if i < len(outs) {
			part.Spec.Egress = outs[i]
		}
		parts = append(parts, part)
	}
	return parts
}

// chunks of a list, each short enough for v1alpha2.
func chunks[T any](list []T) [][]T { return slices.Collect(slices.Chunk(list, maxItems)) }

func pods(p *anp.NamespacedPod) *cnp.NamespacedPod {
	if p == nil {
		return nil
	}
	return &cnp.NamespacedPod{NamespaceSelector: p.NamespaceSelector, PodSelector: p.PodSelector}
}

var actions = map[policy.Action]cnp.ClusterNetworkPolicyRuleAction{
	policy.Allow: cnp.ClusterNetworkPolicyRuleActionAccept, policy.Deny: cnp.ClusterNetworkPolicyRuleActionDeny, policy.Pass: cnp.ClusterNetworkPolicyRuleActionPass,
}

// rules that one rule becomes: none if it has no ports that exist, several where its peers or ports are more than v1alpha2 admits.
func (w *writer) rules(p *Policy, d policy.Direction, index int) (out []cnp.ClusterNetworkPolicyEgressRule) {
	r := &p.Rules[d][index]
	field := fmt.Sprintf("spec.%s[%d]", [...]string{"ingress", "egress"}[d], index)
	protocols, some := w.protocols(p, field, r)
	if !some {
		return nil
	}
	var selected, others []cnp.ClusterNetworkPolicyEgressPeer
	for _, peer := range r.Peers {
		to := cnp.ClusterNetworkPolicyEgressPeer{Namespaces: peer.Namespaces, Pods: pods(peer.Pods), Nodes: peer.Nodes}
		for _, n := range peer.Networks {
			to.Networks = append(to.Networks, cnp.CIDR(n))
		}
		for _, n := range peer.DomainNames {
			to.DomainNames = append(to.DomainNames, cnp.DomainName(n))
		}
		if to.Namespaces != nil || to.Pods != nil {
			selected = append(selected, to)
		} else {
			others = append(others, to)
		}
	}
	add := func(peers []cnp.ClusterNetworkPolicyEgressPeer, protocols []cnp.ClusterNetworkPolicyProtocol) {
		byPorts := chunks(protocols)
		if len(byPorts) == 0 {
			byPorts = append(byPorts, nil)
		}
		for _, to := range chunks(peers) {
			for _, ports := range byPorts {
				out = append(out, cnp.ClusterNetworkPolicyEgressRule{Name: r.Name, Action: actions[r.Action], To: to, Protocols: ports})
			}
		}
	}
	isNamed := func(p cnp.ClusterNetworkPolicyProtocol) bool { return p.DestinationNamedPort != "" }
	if len(others) == 0 || !slices.ContainsFunc(protocols, isNamed) {
		add(slices.Concat(selected, others), protocols)
		return out
	}
	w.note(p, field, "", "only pods have named ports: peers that are networks, nodes or domain names become a rule with the numbers alone")
	add(selected, protocols)
	if numbers := slices.DeleteFunc(slices.Clone(protocols), isNamed); len(numbers) > 0 {
		add(others, numbers)
	}
	return out
}

// protocols of a rule. some is false where the rule names ports and none of them exists: without protocols it would be about all ports.
func (w *writer) protocols(p *Policy, field string, r *Rule) (out []cnp.ClusterNetworkPolicyProtocol, some bool) {
	if r.Ports == nil {
		return nil, true
	}
	for i, port := range *r.Ports {
		at := fmt.Sprintf("%s.ports[%d]", field, i)
		switch {
		case port.NamedPort != nil:
			out = append(out, cnp.ClusterNetworkPolicyProtocol{DestinationNamedPort: *port.NamedPort})
		case port.PortNumber != nil:
			out = append(out, protocol(port.PortNumber.Protocol, cnp.Port{Number: port.PortNumber.Port}))
		case port.PortRange.Start > port.PortRange.End:
			w.note(p, at, "", "the range from %d to %d has no port: it is left out", port.PortRange.Start, port.PortRange.End)
		case port.PortRange.Start == port.PortRange.End:
			out = append(out, protocol(port.PortRange.Protocol, cnp.Port{Number: port.PortRange.Start}))
		default:
			out = append(out, protocol(port.PortRange.Protocol, cnp.Port{Range: &cnp.PortRange{Start: port.PortRange.Start, End: port.PortRange.End}}))
		}
	}
	if len(out) == 0 {
		w.note(p, field, "", "none of its ports exists, so that it matches nothing: it is left out (without ports it would match all)")
	}
	return out, len(out) > 0
}

func protocol(name corev1.Protocol, port cnp.Port) (out cnp.ClusterNetworkPolicyProtocol) {
	switch name {
	case corev1.ProtocolUDP:
		out.UDP = &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: &port}
	case corev1.ProtocolSCTP:
		out.SCTP = &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: &port}
	default: // "If not specified, this field defaults to TCP."
		out.TCP = &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: &port}
	}
	return out
}
