package convert

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/calico"
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
}

func (c *candidate) passes(d policy.Direction) bool {
	return c.isolates[d] && (c.tier.DefaultAction == calico.Pass || slices.ContainsFunc(c.rules[d], func(r rule) bool { return r.action == calico.Pass }))
}

// reader of policies.
type reader struct {
	set     *calico.Set
	options *Options
	space   space
	// problems of the policy that is being read.
	problems []calico.Problem
	notes    []calico.Problem
	object   string
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
			r.problem(fmt.Sprintf("spec.types[%d]", i), "give Ingress or Egress", "%q is no type", t)
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
		r.problem("spec.applyOnForward", fix+"; if only pods are meant, add namespaceSelector: all()", "it makes the policy one about what passes host endpoints")
	}
	s, err := p.Selector()
	if err != nil {
		return // told by selection
	}
	for i := range r.set.HostEndpoints {
		if h := &r.set.HostEndpoints[i]; h.Matches(s) {
			r.problem("spec.selector", fix+"; if only pods are meant, add namespaceSelector: all()", "it selects HostEndpoint %s too", h.Name)
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
		var told *calico.Problem
		if errors.As(err, &told) {
			r.problem(told.Field, "correct the selector", "%s", told.Problem)
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
		r.problem(path+".action", "give Allow, Deny, Pass or Log", "%q is no action", in.Action)
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
	selfField, self := in.Self(d)
	out.self = r.self(path+"."+selfField, self, p.Namespace)
	peerField, peer := in.Peer(d)
	if d == policy.Ingress && len(peer.Ports)+len(peer.NotPorts) > 0 || d == policy.Egress && len(self.Ports)+len(self.NotPorts) > 0 {
		r.problem(path+".source.ports", "leave it out, if the other end may choose its port, as clients do", "NetworkPolicies know destination ports only")
	}
	out.flow.peers = r.entity(path+"."+peerField, peer, p.Namespace)
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

// self is the end that the policy selects: of those pods, the ones that the rule is about.
func (r *reader) self(path string, e *calico.EntityRule, namespace string) pods {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"nets", len(e.Nets) > 0}, {"notNets", len(e.NotNets) > 0}, {"serviceAccounts", e.ServiceAccounts != nil}, {"services", e.Services != nil}, {"domains", len(e.Domains) > 0},
	} {
		if f.set {
			r.problem(path+"."+f.name, "write a policy of its own, whose spec.selector says it by labels", "the rule is about some of the pods only that the policy selects, and NetworkPolicies select pods by labels")
			return everyPod
		}
	}
	positive, negative, err := e.Selectors(namespace)
	if err != nil {
		r.problem(path, "correct the selector", "%v", err)
		return everyPod
	}
	out := everyPod
	for _, part := range []struct {
		selector *calico.Selector
		combine  func(a, b pods) (pods, error)
	}{{positive, pods.intersect}, {negative, pods.minus}} {
		if part.selector == nil {
			continue
		}
		selected := r.selected(path+".selector", part.selector)
		if !r.space.apart(selected.nets) {
			r.problem(path+".selector", "give --pod-cidr, or a selector that selects no NetworkSet", "it selects NetworkSets whose networks may hold pods")
			return everyPod
		}
		if selected.everyone { // told by selected
			return everyPod
		}
		if out, err = part.combine(out, selected.pods); err != nil {
			r.problem(path+".selector", "give the pods a label that has what is meant as its whole value", "%v", err)
			return everyPod
		}
	}
	return out
}

// parts of a candidate, where some of its rules are about some of its pods only: for each of these the rules that are about them.
func (c *candidate) parts() ([]*candidate, error) {
	parts := []*candidate{c}
	for d := range c.rules {
		for i, r := range c.rules[d] {
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
						part.rules[d] = slices.DeleteFunc(slices.Clone(p.rules[d]), func(o rule) bool { return o.index == i })
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

// entity is the other end.
func (r *reader) entity(path string, e *calico.EntityRule, namespace string) peers {
	before := len(r.problems)
	if e.Services != nil {
		r.problem(path+".services", "select the Service's pods by their labels, or its addresses by nets", "NetworkPolicies know nothing of Services")
	}
	if e.ServiceAccounts != nil {
		r.problem(path+".serviceAccounts", "label the pods, and select them by the label", "NetworkPolicies know nothing of service accounts")
	}
	if len(e.Domains) > 0 {
		r.problem(path+".domains", "name the networks, or let such traffic go by a proxy", "NetworkPolicies know no names")
	}
	nets, err := calico.ParseNets(e.Nets)
	if err != nil {
		r.problem(path+".nets", "correct it", "%v", err)
	}
	notNets, err := calico.ParseNets(e.NotNets)
	if err != nil {
		r.problem(path+".notNets", "correct it", "%v", err)
	}
	positive, negative, err := e.Selectors(namespace)
	if err != nil {
		r.problem(path, "correct the selector", "%v", err)
	}
	if len(r.problems) > before {
		return everyone
	}
	out := everyone
	step := func(field string, combine func(a, b peers) (peers, error), with peers) {
		if len(r.problems) > before {
			return
		}
		result, err := combine(out, with)
		if err != nil {
			r.problem(path+"."+field, "write rules that each say one of both, or give --pod-cidr where the networks hold no pods", "%v", err)
			return
		}
		out = result
	}
	if positive != nil {
		step(fieldOf(e), r.space.intersect, r.selected(path+"."+fieldOf(e), positive))
	}
	if len(nets) > 0 {
		step("nets", r.space.intersect, peers{nets: setOf(nets)})
	}
	if len(notNets) > 0 {
		step("notNets", r.space.minus, peers{nets: setOf(notNets)})
	}
	if negative != nil {
		step("notSelector", r.space.minus, r.selected(path+".notSelector", negative))
	}
	return out
}

func fieldOf(e *calico.EntityRule) string {
	if e.Selector == "" && e.NamespaceSelector != "" {
		return "namespaceSelector"
	}
	return "selector"
}

// selected by a selector of a rule: pods, and the networks of NetworkSets.
func (r *reader) selected(path string, s *calico.Selector) peers {
	for i := range r.set.HostEndpoints {
		if h := &r.set.HostEndpoints[i]; h.Matches(s) {
			r.problem(path, "add a namespaceSelector, and nets for the nodes", "it selects HostEndpoint %s too, whose addresses no NetworkPolicy selects", h.Name)
			return everyone
		}
	}
	for i := range r.set.NetworkSets {
		n := &r.set.NetworkSets[i]
		if n.Namespace != "" && r.options.Namespaces[n.Namespace] == nil && asksForNamespace(s) {
			r.problem(path, "give the Namespace object too", "the labels of namespace %s are not known, and %s is in it", n.Namespace, n)
			return everyone
		}
	}
	nets, err := r.set.NetsOf(s, r.options.Namespaces)
	if err != nil {
		r.problem(path, "name the networks", "%v", err)
		return everyone
	}
	selected, err := podsOf(s)
	if err != nil {
		r.problem(path, "give the pods a label that has what is meant as its whole value", "%v", err)
		return everyone
	}
	return peers{pods: selected, nets: setOf(nets)}
}

// asksForNamespace reports whether a selector asks for labels of namespaces but their name.
func asksForNamespace(s *calico.Selector) bool {
	if len(s.Key) > 5 && s.Key[:5] == "pcns." && s.Key != "pcns.projectcalico.org/name" {
		return true
	}
	return slices.ContainsFunc(s.Of, asksForNamespace)
}

var families = map[int]peers{
	4: {nets: setOf([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")})},
	6: {nets: setOf([]netip.Prefix{netip.MustParsePrefix("::/0")})},
}

func (r *reader) version(field string, version int, p peers) peers {
	of, ok := families[version]
	if !ok {
		r.problem(field, "give 4 or 6", "%d is no version of IP", version)
		return p
	}
	out, err := r.space.intersect(p, of)
	if err != nil {
		r.problem(field, "leave it out, if pods have addresses of one family only", "selectors select pods with the addresses of both families")
		return p
	}
	return out
}

// stays is a policy of Kubernetes' own.
func stays(np *networkingv1.NetworkPolicy, set *calico.Set) *candidate {
	c := &candidate{kubernetes: np, name: calico.KubernetesName(np), order: calico.KubernetesOrder, isolates: policy.PolicyTypes(np)}
	c.tier, _ = set.Tier(calico.DefaultTier)
	c.selects = podsOfLabels(&np.Spec.PodSelector, false)
	for i, t := range c.selects {
		c.selects[i] = t.with(label{true, nameKey}, oneOf(np.Namespace))
	}
	for _, d := range policy.Directions {
		for i, r := range policy.ClusterRules(d, np) {
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
