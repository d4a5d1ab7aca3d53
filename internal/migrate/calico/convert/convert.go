package convert

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// Annotation of a policy that was converted: the policy that it comes from.
const Annotation = calico.Annotation

// Options of a conversion.
type Options struct {
	// Namespaces are those that there are, with their labels; nil where these are not known.
	Namespaces map[string]map[string]string
	// PodCIDRs have all pods' addresses; none: pods may be anywhere.
	PodCIDRs []netip.Prefix
	// Cluster writes GlobalNetworkPolicies as ClusterNetworkPolicies where these can say the same.
	Cluster bool
	// ExpandGlobal writes a GlobalNetworkPolicy into each namespace that there is, where it is about namespaces that come later too.
	ExpandGlobal bool
	// WithoutLog leaves rules out that log.
	WithoutLog bool
}

// Result of a conversion.
type Result struct {
	// Policies in order of namespace and name.
	Policies []networkingv1.NetworkPolicy
	// Cluster are ClusterNetworkPolicies, in the order of evaluation.
	Cluster []cnp.ClusterNetworkPolicy
	// Refused are the policies that are not converted, each with all that stands in the way.
	Refused []calico.Problem
	// Warnings are findings about policies that may not say what was meant.
	Warnings []calico.Problem
	// Notes are what was left out without a change of meaning.
	Notes []calico.Problem
	// Converted are the policies of Calico's that the NetworkPolicies stand for, and the others.
	Converted, NotConverted []string
	// Namespaces that the conversion considered: those that are known, that have policies, or that a policy selects by name.
	Namespaces []string
}

// Convert the policies of a set. A policy of which one direction can be a ClusterNetworkPolicy while the other cannot be converted is left to
// NetworkPolicies from the start, so that what depends on it is held back.
func Convert(set *calico.Set, options Options) *Result {
	only := map[*calico.Policy]bool{}
	for {
		c := newConversion(set, &options, only)
		result := c.convert()
		again := false
		for _, u := range c.units {
			if p := u.who.policy; c.refused[p] != nil && !only[p] {
				only[p], again = true, true
			}
		}
		if !again {
			return result
		}
	}
}

func newConversion(set *calico.Set, options *Options, only map[*calico.Policy]bool) *conversion {
	return &conversion{
		reader:  reader{set: set, options: options, space: space{calico.PodSpace(options.PodCIDRs)}},
		refused: map[*calico.Policy][]calico.Problem{}, local: map[string][]local{}, onlyNetwork: only,
	}
}

func (c *conversion) convert() *Result {
	c.read()
	c.choose()
	c.findNamespaces()
	c.place()
	// A policy that is refused takes those with it whose meaning depends on it, and so on.
	for {
		n := len(c.refused)
		c.dependents()
		grants := c.walkAll()
		if len(c.refused) == n {
			return c.result(grants)
		}
	}
}

type conversion struct {
	reader
	candidates []*candidate
	// refused are policies with why. Those of Kubernetes' are never among them.
	refused map[*calico.Policy][]calico.Problem
	// onlyNetwork are policies that do not become ClusterNetworkPolicies, units those of which at least a direction does.
	onlyNetwork map[*calico.Policy]bool
	units       []*unit
	// namespaces that a policy about all namespaces is written into.
	namespaces []string
	// local are the candidates of each namespace, in the order of evaluation.
	local map[string][]local
}

func (c *conversion) refuse(who *candidate, p calico.Problem) {
	p.Object = who.name
	if !slices.Contains(c.refused[who.policy], p) {
		c.refused[who.policy] = append(c.refused[who.policy], p)
	}
}

func (c *conversion) read() {
	for i := range c.set.Policies {
		c.problems = nil
		candidate := c.reader.read(&c.set.Policies[i])
		for _, p := range c.problems {
			c.refuse(candidate, p)
		}
		parts, err := candidate.parts()
		if err != nil {
			c.refuse(candidate, calico.Problem{Field: "spec", Problem: err.Error(), Fix: "write it in several policies"})
			parts = nil
		}
		if len(parts) == 0 { // it selects nothing, or more than can be said
			parts = append(parts, candidate)
		}
		c.candidates = append(c.candidates, parts...)
	}
	for i := range c.set.Kubernetes {
		c.candidates = append(c.candidates, stays(&c.set.Kubernetes[i], c.set))
	}
	slices.SortStableFunc(c.candidates, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(a.tier.Order, b.tier.Order), cmp.Compare(a.tier.Name, b.tier.Name), cmp.Compare(a.order, b.order), cmp.Compare(a.shortName(), b.shortName()))
	})
}

func (c *candidate) shortName() string {
	if c.kubernetes != nil {
		return c.kubernetes.Name
	}
	return c.policy.Name
}

// place finds the namespaces that each candidate is about.
func (c *conversion) place() {
	for _, who := range c.candidates {
		if who.cluster && !who.isolates[policy.Ingress] && !who.isolates[policy.Egress] {
			continue // nothing is left of it
		}
		names, selects := c.namespacesOf(who), who.selects
		if who.opaque {
			selects = everyPod
		}
		for _, ns := range names {
			own, known := selects.in(ns, c.options.Namespaces[ns])
			if !known {
				c.refuse(who, calico.Problem{Field: selectorField(who), Problem: fmt.Sprintf("the labels of namespace %s are not known", ns), Fix: "give the Namespace object too"})
				own = everyPod
			}
			if !own.empty() {
				c.local[ns] = append(c.local[ns], local{who, own})
			}
		}
	}
}

func selectorField(who *candidate) string {
	if who.policy.Spec.NamespaceSelector != "" {
		return "spec.namespaceSelector"
	}
	return "spec.selector"
}

func (c *conversion) namespacesOf(who *candidate) []string {
	switch {
	case who.kubernetes != nil:
		return []string{who.kubernetes.Namespace}
	case who.policy.Namespace != "":
		return []string{who.policy.Namespace}
	}
	if names, fixed := who.selects.namespaces(); fixed && !who.opaque {
		return names
	}
	if !c.options.ExpandGlobal && !who.opaque {
		c.refuse(who, calico.Problem{
			Field: selectorField(who), Problem: "it is about pods of namespaces that come later too, and a NetworkPolicy is about those of one namespace",
			Fix: "--expand-global writes it into each namespace that there is; or name the namespaces, as namespaceSelector: kubernetes.io/metadata.name in {\"a\", \"b\"}",
		})
	}
	return c.namespaces
}

// findNamespaces that are known, and at least those where one policy could depend on another.
func (c *conversion) findNamespaces() {
	known := map[string]bool{}
	for ns := range c.options.Namespaces {
		known[ns] = true
	}
	for i := range c.set.Policies {
		known[c.set.Policies[i].Namespace] = true
	}
	for _, who := range c.candidates {
		if names, fixed := who.selects.namespaces(); fixed && !who.opaque {
			for _, ns := range names {
				known[ns] = true
			}
		}
	}
	for i := range c.set.Kubernetes {
		known[c.set.Kubernetes[i].Namespace] = true
	}
	delete(known, "")
	c.namespaces = slices.Sorted(maps.Keys(known))
}

// dependents are refused with what they depend on: a policy that may refuse or pass what they allow, or that would be asked
// about what they pass. What is known of the flows of a refused policy is never less than what they are.
func (c *conversion) dependents() {
	for _, ns := range slices.Sorted(maps.Keys(c.local)) {
		locals := c.local[ns]
		for _, d := range policy.Directions {
			w := &walk{space: c.space, direction: d}
			for at, l := range locals {
				if l.kubernetes != nil || c.refused[l.policy] != nil || !l.isolates[d] {
					continue
				}
				i := slices.IndexFunc(locals, func(o local) bool { return c.refused[o.policy] != nil && o.isolates[d] && w.dependsOn(l, o) })
				if i < 0 {
					continue
				}
				field := "spec.order"
				if locals[i].tier.Name != locals[at].tier.Name {
					field = "spec.tier"
				}
				c.refuse(l.candidate, calico.Problem{
					Field: field, Problem: fmt.Sprintf("what it comes to depends on %s, which is not converted", locals[i].name), Fix: "see to that one first", HeldBackBy: locals[i].name,
				})
			}
		}
	}
}

// dependsOn reports whether what l comes to may be another thing because of a policy that is refused.
func (w *walk) dependsOn(l, refused local) bool {
	if shared, err := l.pods.intersect(refused.pods); err == nil && shared.empty() {
		return false
	}
	switch {
	case refused.invalid || l.passes(w.direction):
		return true
	case l.tier.Name != refused.tier.Name:
		return refused.tier.Order <= l.tier.Order
	}
	return refused.order <= l.order && (refused.tier.DefaultAction == calico.Pass || w.matters(refused.candidate, l.candidate))
}

// walkAll asks every policy what it allows, and refuses those that cannot say it.
func (c *conversion) walkAll() map[string][2][]grant {
	out := map[string][2][]grant{}
	for _, ns := range slices.Sorted(maps.Keys(c.local)) {
		var both [2][]grant
		for _, d := range policy.Directions {
			w := &walk{space: c.space, direction: d}
			for _, l := range c.local[ns] {
				if l.isolates[d] && c.refused[l.policy] == nil {
					w.locals = append(w.locals, l)
				}
			}
			both[d] = c.walkOne(w, ns)
		}
		out[ns] = both
	}
	return out
}

func (c *conversion) walkOne(w *walk, ns string) []grant {
	var out []grant
	for at, l := range w.locals {
		if tied := w.tied(at); tied != nil && l.kubernetes == nil {
			c.refuse(l.candidate, calico.Problem{Field: "spec.order", Problem: tied.Error(), Fix: "give them different orders"})
			continue
		}
		if l.kubernetes != nil {
			if by := w.untouched(at); by != nil {
				c.refuseWeighed(w, by, l.candidate)
			}
			continue
		}
		grants, err := w.grants(at)
		if err == nil {
			err = writable(grants)
		}
		if err != nil {
			c.refuseError(w, ns, err, l.candidate)
			continue
		}
		out = append(out, grants...)
	}
	ends, err := w.ends()
	if err == nil {
		err = writable(ends)
	}
	if err != nil {
		for _, l := range w.locals {
			if l.passes(w.direction) && l.kubernetes == nil {
				c.refuseError(w, ns, err, l.candidate)
			}
		}
	}
	return append(out, ends...)
}

// unwritable is what is left of a policy's rules, where a NetworkPolicy cannot say it.
type unwritable struct{ error }

func writable(grants []grant) error {
	for _, g := range grants {
		for _, f := range g.flows {
			if _, err := f.ports.write(); err != nil {
				return &unwritable{err}
			}
		}
	}
	return nil
}

// refuseError refuses the rule that could not be weighed or, where none is to blame, the policy itself.
func (c *conversion) refuseError(w *walk, ns string, err error, who *candidate) {
	var by *weighed
	if errors.As(err, &by) {
		c.refuseWeighed(w, by, who)
		return
	}
	var left *unwritable
	if errors.As(err, &left) {
		c.refuse(who, calico.Problem{
			Field:   [...]string{"spec.ingress", "spec.egress"}[w.direction],
			Problem: fmt.Sprintf("what is allowed, less what rules before it refuse, cannot be written: %v", err),
			Fix:     "refuse whole protocols or networks, or name the ports that are allowed",
		})
		return
	}
	c.refuse(who, calico.Problem{Field: selectorField(who), Problem: fmt.Sprintf("in namespace %s: %v", ns, err), Fix: "write it in several policies with simpler selectors"})
}

func (c *conversion) refuseWeighed(w *walk, by *weighed, about *candidate) {
	if by.policy.kubernetes != nil {
		return
	}
	p := calico.Problem{Field: "spec.order", Fix: "write what is left as rules that allow"}
	if by.rule >= 0 {
		p.Field = calico.RulePath(w.direction, by.rule)
	}
	p.Problem = by.Error()
	if about.kubernetes != nil {
		p.Fix = "take it out of that NetworkPolicy by hand, as an except"
	}
	if by.policy != about && about.kubernetes == nil {
		p.Problem = fmt.Sprintf("taken from what %s allows: %v", about.name, by.error)
	}
	if errors.Is(by.error, errPodsAndNets) {
		p.Fix = "give --pod-cidr, if its networks hold no pods; " + p.Fix
	}
	if errors.Is(by.error, errEverybodyElse) && p.Field != "spec.order" {
		p.Fix += "; if networks of GlobalNetworkSets alone are meant, add namespaceSelector: global() to the rule"
	}
	c.refuse(by.policy, p)
}
