package convert

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
)

// noteEmpty notes empty lists of an end, as programs write them: for Calico they are no condition.
func (r *reader) noteEmpty(path string, e *calico.EntityRule) {
	if e.Nets != nil && len(e.Nets) == 0 {
		r.warnings = append(r.warnings, calico.Problem{
			Object: r.object, Field: path + ".nets", Problem: "nets is empty: Calico allows or denies every address, if no other field says which", Fix: "if none was meant, remove the rule",
		})
	}
	for _, f := range []struct {
		name, of string
		empty    bool
	}{
		{"ports", "port", e.Ports != nil && len(e.Ports) == 0}, {"domains", "address", e.Domains != nil && len(e.Domains) == 0},
	} {
		if f.empty {
			r.note(path+"."+f.name, "the list is empty, so that the rule is about every %s, as for Calico; if none was meant, remove the rule", f.of)
		}
	}
}

// self is the end that the policy selects: of those pods, the ones that the rule is about.
func (r *reader) self(path string, e *calico.EntityRule, namespace string) pods {
	r.noteEmpty(path, e)
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
		if left, err := everyPod.minus(selected.pods); !r.space.apart(selected.nets) && (err != nil || !left.empty()) {
			r.problem(path+".selector", "give --pod-cidr, or a selector that selects no NetworkSet", "it selects NetworkSets whose networks may hold pods")
			return everyPod
		}
		if selected.everyone { // selected reports it
			return everyPod
		}
		if out, err = part.combine(out, selected.pods); err != nil {
			r.problem(path+".selector", "give the pods a label that has what is meant as its whole value", "%v", err)
			return everyPod
		}
	}
	return out
}

// entity is the other end.
func (r *reader) entity(path string, e *calico.EntityRule, namespace string) peers {
	before := len(r.problems)
	r.noteEmpty(path, e)
	if e.Services != nil {
		r.problem(path+".services", "select the Service's pods by their labels, or its addresses by nets", "NetworkPolicies know nothing of Services")
	}
	if e.ServiceAccounts != nil {
		r.problem(path+".serviceAccounts", "label the pods, and select them by the label", "NetworkPolicies know nothing of service accounts")
	}
	if len(e.Domains) > 0 {
		others := len(e.Nets) > 0 || len(e.NotNets) > 0 || e.NotSelector != "" || e.Selector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil || e.Services != nil
		if others || !r.named(path+".domains", e.Domains) {
			r.problem(path+".domains", "name the networks, or let such traffic go by a proxy", "only rules of ClusterNetworkPolicies that allow egress have names, without other conditions, and * as the first label only")
		}
		return noPeers
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
		r.onlySelector = len(e.Nets) == 0 && len(e.NotNets) == 0 && negative == nil
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
	if len(r.problems) == before && out.empty() {
		r.note(path, "it selects nothing: neither pods nor networks of NetworkSets that are given")
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
	nets, names, err := r.set.NetsOf(s, r.options.Namespaces)
	if err == nil && len(names) > 0 && r.hasNames && (!r.onlySelector || !r.named(path, names)) {
		err = errors.New("it selects NetworkSets with allowedEgressDomains: only rules of ClusterNetworkPolicies that allow egress have names, without other conditions, and * as the first label only")
	}
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

// named adds domain names to the rule that is being read, if it can have them.
func (r *reader) named(path string, names []string) bool {
	if !r.takesNames || slices.ContainsFunc(names, func(n string) bool { return !tiered.IsDomainName(n) }) {
		return false
	}
	r.names = append(r.names, names...)
	r.namesField = path
	return true
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
		r.problem(field, "give 4 or 6", "%d is not an IP version", version)
		return p
	}
	out, err := r.space.intersect(p, of)
	if err != nil {
		r.problem(field, "leave it out, if pods have addresses of one family only", "selectors select pods with the addresses of both families")
		return p
	}
	return out
}
