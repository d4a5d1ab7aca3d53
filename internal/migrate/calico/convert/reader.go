package convert

import (
	"errors"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// reader of policies.
type reader struct {
	set     *calico.Set
	options *Options
	space   space
	// problems of the policy that is being read.
	problems []calico.Problem
	notes    []calico.Problem
	warnings []calico.Problem
	object   string
	// names are the domain names of the rule that is being read, namesField is where they are. hasNames: the end that is being read is the
	// destination of egress, where names count; takesNames: the rule can have them; onlySelector: the selector is the end's only condition.
	names                              []string
	namesField                         string
	hasNames, takesNames, onlySelector bool
}

func (r *reader) problem(field, fix, format string, args ...any) {
	r.problems = append(r.problems, calico.Problem{Object: r.object, Field: field, Problem: fmt.Sprintf(format, args...), Fix: fix})
}

func (r *reader) note(field, format string, args ...any) {
	r.notes = append(r.notes, calico.Problem{Object: r.object, Field: field, Problem: fmt.Sprintf(format, args...)})
}

// read a policy of Calico's. What it cannot say goes to problems; the candidate is then there for what depends on it.
func (r *reader) read(p *calico.Policy) *candidate {
	r.object = p.String()
	c := &candidate{policy: p, name: p.String(), order: p.Order(), isolates: p.Isolates(), opaque: true}
	if c.invalid = len(p.Invalid) > 0; c.invalid {
		r.problems = append(r.problems, p.Invalid...)
		c.isolates = [2]bool{true, true}
		c.tier, _ = r.set.Tier(p.TierName())
		return c
	}
	known := false
	if c.tier, known = r.set.Tier(p.TierName()); !known {
		r.problem("spec.tier", "give the Tier object too", "Tier %s is not known, and so not its place among the tiers", p.Spec.Tier)
	}
	for i, t := range p.Spec.Types {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			r.problem(fmt.Sprintf("spec.types[%d]", i), "give Ingress or Egress", "%q is not a type", t)
		}
	}
	if p.Stored && len(p.Spec.Types) == 0 {
		r.note("spec.types", "missing from an object as it is stored: Calico takes that for Ingress and Egress")
	}
	if len(p.Spec.PerformanceHints) > 0 {
		r.note("spec.performanceHints", "left out: hints change no verdict")
	}
	r.hosts(p)
	r.selection(p, c)
	if p.AboutHosts() || !c.opaque && c.selects.empty() {
		c.selects, c.opaque, c.isolates = noPods, false, [2]bool{} // no policy of pods depends on it
		return c
	}
	for _, d := range policy.Directions {
		if !c.isolates[d] {
			if n := len(p.Rules(d)); n > 0 {
				r.note(calico.RulePath(d, 0), "left out with all rules of its direction: spec.types is without %s", d)
			}
			continue
		}
		for i := range p.Rules(d) {
			r.rule(p, c, d, i)
		}
	}
	return c
}

// hosts: what is said about nodes' own interfaces.
func (r *reader) hosts(p *calico.Policy) {
	const fix = "guard the nodes by security groups or a firewall; kidoban's policies are about pods"
	const orOneOfBoth = "; if only pods are meant, add namespaceSelector: all(); if only nodes are, namespaceSelector: global()"
	if p.Spec.DoNotTrack {
		r.problem("spec.doNotTrack", fix, "only host endpoints have policies that bypass connection tracking")
	}
	if p.Spec.PreDNAT {
		r.problem("spec.preDNAT", fix, "only host endpoints have policies before DNAT")
	}
	if p.Kind != calico.KindGlobalNetworkPolicy || p.Spec.NamespaceSelector != "" {
		return // pods only
	}
	if p.Spec.ApplyOnForward && !p.Spec.DoNotTrack && !p.Spec.PreDNAT {
		r.problem("spec.applyOnForward", fix+orOneOfBoth, "it makes the policy one about what passes host endpoints")
	}
	s, err := p.Selector()
	if err != nil {
		return // selection reports it
	}
	for i := range r.set.HostEndpoints {
		if h := &r.set.HostEndpoints[i]; h.Matches(s) {
			r.problem("spec.selector", fix+orOneOfBoth, "it selects HostEndpoint %s too", h.Name)
			return
		}
	}
}

func (r *reader) selection(p *calico.Policy, c *candidate) {
	if p.Spec.ServiceAccountSelector != "" {
		r.problem("spec.serviceAccountSelector", "label the pods, and select them by the label", "NetworkPolicies know nothing of service accounts")
		return
	}
	s, err := p.Selector()
	if err != nil {
		var problem *calico.Problem
		if errors.As(err, &problem) {
			r.problem(problem.Field, "correct the selector", "%s", problem.Problem)
		}
		return
	}
	selected, err := podsOf(s)
	if err != nil {
		field := "spec.selector"
		if p.Spec.Selector == "" {
			field = "spec.namespaceSelector"
		}
		r.problem(field, "give the pods a label that has what is meant as its whole value", "%v", err)
		return
	}
	c.selects, c.opaque = selected, false
	if p.Kind == calico.KindGlobalNetworkPolicy && p.Spec.NamespaceSelector != "" && selected.empty() {
		r.problem("spec.namespaceSelector", "guard the nodes by security groups or a firewall; if it is no longer needed, delete it", "it selects no pods: host endpoints, or nothing")
	}
}

func (r *reader) rule(p *calico.Policy, c *candidate, d policy.Direction, i int) {
	in, path := &p.Rules(d)[i], calico.RulePath(d, i)
	out := rule{action: in.Action, flow: everyFlow, self: everyPod, path: path, index: i}
	switch in.Action {
	case calico.Allow, calico.Deny, calico.Pass:
	case calico.Log:
		if r.options.WithoutLog {
			r.note(path+".action", "Log is left out: it decides nothing, and kidoban's flow log has every refusal")
			return
		}
		r.problem(path+".action", "--without-log leaves such rules out: they decide nothing, and kidoban's flow log has every refusal", "NetworkPolicies log nothing")
		return
	default:
		r.problem(path+".action", "give Allow, Deny, Pass or Log", "%q is not an action", in.Action)
	}
	if in.ICMP != nil || in.NotICMP != nil {
		r.problem(path+".icmp", "a rule without ports allows ICMP too", "NetworkPolicies cannot tell kinds of ICMP apart")
	}
	if in.HTTP != nil {
		r.problem(path+".http", "leave it to a proxy or a service mesh", "NetworkPolicies do not look into requests")
	}
	before := len(r.problems)
	p1, err := portsOfRule(in)
	if err != nil {
		r.problem(path+".destination.ports", "write one rule for each port, by number", "%v", err)
		p1 = everything
	}
	out.flow.ports = p1
	r.names, r.namesField, r.hasNames, r.takesNames, r.onlySelector = nil, "", false, false, false
	selfField, self := in.Self(d)
	out.self = r.self(path+"."+selfField, self, p.Namespace)
	peerField, peer := in.Peer(d)
	if d == policy.Ingress && len(peer.Ports)+len(peer.NotPorts) > 0 || d == policy.Egress && len(self.Ports)+len(self.NotPorts) > 0 {
		r.problem(path+".source.ports", "leave it out, if the other end may choose its port, as clients do", "NetworkPolicies know destination ports only")
	}
	r.hasNames = d == policy.Egress
	r.takesNames = r.options.Cluster && d == policy.Egress && in.Action == calico.Allow && in.IPVersion == nil
	out.flow.peers = r.entity(path+"."+peerField, peer, p.Namespace)
	out.names, out.namesField = r.names, r.namesField
	r.takesNames = false
	if in.IPVersion != nil {
		out.flow.peers = r.version(path+".ipVersion", *in.IPVersion, out.flow.peers)
	}
	if in.Action == calico.Allow && len(r.problems) == before && !out.flow.empty() {
		if _, err := out.flow.ports.write(); err != nil {
			r.problem(path+".protocol", "leave the protocol out where everything may be allowed", "%v", err)
		}
	}
	c.rules[d] = append(c.rules[d], out)
}
