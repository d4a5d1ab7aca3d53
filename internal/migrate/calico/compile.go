package calico

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

type compiler struct {
	set        *Set
	namespaces map[string]map[string]string
}

// policy made ready; nil for one that is not about pods.
func (c *compiler) policy(p *Policy) (*JudgedPolicy, []Problem) {
	if len(p.Invalid) > 0 {
		return nil, p.Invalid
	}
	if p.AboutHosts() {
		return nil, nil
	}
	if _, known := c.set.Tier(p.TierName()); !known {
		return nil, []Problem{{Object: p.String(), Field: "spec.tier", Problem: fmt.Sprintf("Tier %s is not known, and so not its place", p.Spec.Tier), Fix: "give the Tier too"}}
	}
	s, err := p.Selector()
	if err != nil {
		return nil, problemsOf(p.String(), err)
	}
	out := &JudgedPolicy{Name: p.String(), Order: p.Order(), Isolates: p.Isolates(), name: p.Name, namespace: p.Namespace}
	out.selects = func(e *Endpoint) bool { return s.Matches(e.label) }
	var problems []Problem
	for _, d := range policy.Directions {
		if !out.Isolates[d] {
			continue // Calico does not look at them either
		}
		for i := range p.Rules(d) {
			r, err := c.rule(p, d, i)
			if err != nil {
				problems = append(problems, problemsOf(p.String(), err)...)
				continue
			}
			out.Rules[d] = append(out.Rules[d], r)
		}
	}
	return out, problems
}

func (c *compiler) rule(p *Policy, d policy.Direction, i int) (*JudgedRule, error) {
	r, path := &p.Rules(d)[i], RulePath(d, i)
	fail := func(field, format string, args ...any) error {
		return &Problem{Object: p.String(), Field: path + "." + field, Problem: fmt.Sprintf(format, args...), Fix: "this cannot be judged here"}
	}
	switch {
	case !slices.Contains([]Action{Allow, Deny, Pass, Log}, r.Action):
		return nil, fail("action", "%q is not an action", r.Action)
	case r.ICMP != nil || r.NotICMP != nil:
		return nil, fail("icmp", "types of ICMP are not looked at")
	case r.HTTP != nil:
		return nil, fail("http", "requests are not looked at")
	case r.IPVersion != nil && *r.IPVersion != 4 && *r.IPVersion != 6:
		return nil, fail("ipVersion", "%d is not an IP version", *r.IPVersion)
	case len(r.Source.Ports)+len(r.Source.NotPorts) > 0:
		return nil, fail("source.ports", "source ports are not looked at")
	}
	if err := CheckPorts(r); err != nil {
		return nil, fail("destination.ports", "%v", err)
	}
	out := &JudgedRule{Action: r.Action, Path: path, traffic: r.matchesTraffic}
	for _, end := range []struct {
		of    func(policy.Direction) (string, *EntityRule)
		set   *func(*Endpoint) bool
		names bool // domain names are those of egress' destinations
	}{{r.Self, &out.self, false}, {r.Peer, &out.peer, d == policy.Egress}} {
		field, entity := end.of(d)
		match, err := c.entity(entity, p.Namespace, end.names)
		if err != nil {
			return nil, fail(field, "%v", err)
		}
		*end.set = match
	}
	if r.IPVersion != nil {
		peer, version := out.peer, *r.IPVersion
		out.peer = func(e *Endpoint) bool { return family(e.Addr) == version && peer(e) }
	}
	return out, nil
}

// CheckPorts of a rule: one with ports must say of which protocol.
func CheckPorts(r *Rule) error {
	for _, e := range []*EntityRule{&r.Source, &r.Destination} {
		if len(e.Ports)+len(e.NotPorts) > 0 && (r.Protocol == nil || !policy.Protocol(*r.Protocol).HasPorts()) {
			return errors.New("ports without a protocol that has ports")
		}
	}
	return nil
}

func (r *Rule) matchesTraffic(t Traffic) bool {
	if r.Protocol != nil && policy.Protocol(*r.Protocol) != t.Protocol || r.NotProtocol != nil && policy.Protocol(*r.NotProtocol) == t.Protocol {
		return false
	}
	return (len(r.Destination.Ports) == 0 || t.hasPort(r.Destination.Ports)) && (len(r.Destination.NotPorts) == 0 || !t.hasPort(r.Destination.NotPorts))
}

func (t Traffic) hasPort(ports []Port) bool {
	return slices.ContainsFunc(ports, func(p Port) bool {
		if p.Name != "" {
			return t.Target != nil && slices.Contains(policy.ContainerPorts(t.Target), policy.NamedPort{Protocol: t.Protocol, Name: p.Name, Port: t.Port})
		}
		return p.First <= t.Port && t.Port <= p.Last
	})
}

func (c *compiler) entity(e *EntityRule, namespace string, withNames bool) (func(*Endpoint) bool, error) {
	if e.Services != nil {
		return nil, errors.New("services: the endpoints of Services are not looked at")
	}
	domains := e.Domains
	if len(domains) > 0 && !withNames {
		return nil, errors.New("domains: names are for destinations of egress")
	}
	nets, err := ParseNets(e.Nets)
	if err != nil {
		return nil, fmt.Errorf("nets: %w", err)
	}
	notNets, err := ParseNets(e.NotNets)
	if err != nil {
		return nil, fmt.Errorf("notNets: %w", err)
	}
	positive, negative, err := e.Selectors(namespace)
	if err != nil {
		return nil, err
	}
	selected, err := c.selected(positive, withNames)
	if err != nil {
		return nil, err
	}
	excluded, err := c.selected(negative, withNames)
	if err != nil {
		return nil, err
	}
	return func(e *Endpoint) bool {
		return (len(domains) == 0 || hasName(e, domains)) && (len(nets) == 0 || inside(e.Addr, nets)) && !inside(e.Addr, notNets) && (selected == nil || selected(e)) && (excluded == nil || !excluded(e))
	}, nil
}

func hasName(e *Endpoint, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return e.Names[n] })
}

func inside(a netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}

// selected by a selector of a rule are pods by their labels, and the addresses of NetworkSets by those of the sets.
func (c *compiler) selected(s *Selector, withNames bool) (func(*Endpoint) bool, error) {
	if s == nil {
		return nil, nil
	}
	nets, names, err := c.set.NetsOf(s, c.namespaces)
	if err != nil {
		return nil, err
	}
	if !withNames {
		names = nil
	}
	return func(e *Endpoint) bool {
		return e.Pod != nil && s.Matches(e.label) || inside(e.Addr, nets) || hasName(e, names)
	}, nil
}

// NetsOf are the networks and the domain names of the NetworkSets that a selector of a rule selects.
func (s *Set) NetsOf(selector *Selector, namespaces map[string]map[string]string) (out []netip.Prefix, names []string, err error) {
	for i := range s.NetworkSets {
		n := &s.NetworkSets[i]
		if !n.Matches(selector, namespaces[n.Namespace]) {
			continue
		}
		if n.Invalid {
			return nil, nil, fmt.Errorf("it selects %s, which cannot be read", n)
		}
		names = append(names, n.Domains...)
		nets, err := ParseNets(n.Nets)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, nets...)
	}
	for i := range s.HostEndpoints {
		if h := &s.HostEndpoints[i]; h.Matches(selector) {
			return nil, nil, fmt.Errorf("it selects HostEndpoint %s, whose addresses are not looked at", h.Name)
		}
	}
	return out, names, nil
}

// String is "Kind namespace/name" or "Kind name".
func (n *NetworkSet) String() string {
	if n.Namespace == "" {
		return KindGlobalNetworkSet + " " + n.Name
	}
	return KindNetworkSet + " " + n.Namespace + "/" + n.Name
}

// kubernetes makes a NetworkPolicy of Kubernetes' ready.
func kubernetes(np *networkingv1.NetworkPolicy) *JudgedPolicy {
	out := &JudgedPolicy{Name: KubernetesName(np), Order: KubernetesOrder, Isolates: netpol.PolicyTypes(np), name: np.Name, namespace: np.Namespace}
	selector, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
	if err != nil {
		selector = labels.Nothing()
	}
	out.selects = func(e *Endpoint) bool {
		return e.Pod.Namespace == np.Namespace && selector.Matches(labels.Set(e.Pod.Labels))
	}
	for _, d := range policy.Directions {
		for i, r := range netpol.Rules(d, np) {
			out.Rules[d] = append(out.Rules[d], &JudgedRule{
				Action: Allow, Path: RulePath(d, i),
				self: func(*Endpoint) bool { return true },
				peer: peers(np.Namespace, r.Peers),
				traffic: func(t Traffic) bool {
					return netpol.MatchesPorts(r.Ports, t.Target, policy.Flow{Protocol: t.Protocol, Port: t.Port})
				},
			})
		}
	}
	return out
}

// KubernetesName tells a NetworkPolicy of Kubernetes' from one of Calico's.
func KubernetesName(np *networkingv1.NetworkPolicy) string {
	return "Kubernetes' NetworkPolicy " + np.Namespace + "/" + np.Name
}

func peers(namespace string, list []networkingv1.NetworkPolicyPeer) func(*Endpoint) bool {
	if len(list) == 0 {
		return func(*Endpoint) bool { return true }
	}
	var matchers []*netpol.PeerMatcher
	for i := range list {
		matchers = append(matchers, netpol.NewPeerMatcher(namespace, &list[i]))
	}
	return func(e *Endpoint) bool {
		return slices.ContainsFunc(matchers, func(m *netpol.PeerMatcher) bool { return m.Matches(e.Addr, e.Pod, e.NamespaceLabels) })
	}
}
