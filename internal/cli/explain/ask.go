package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Ask whether from reaches to. Families, replicas and endpoints that are judged alike, by the same rules, are one flow of the answer.
func Ask(c *model.Cluster, namespace, from, to string) (*Answer, error) {
	e := model.NewEvaluator(c)
	sources, err := findEnds(c, e, namespace, from)
	if err != nil {
		return nil, fmt.Errorf("--from %s: %w", from, err)
	}
	targets, err := findTargets(c, e, namespace, to)
	if name, port, ok := cutName(to); ok && err != nil {
		service, isService := serviceOfName(c, name)
		if !isService {
			return askName(c, e, sources, name, port)
		}
		targets, err = serviceTargets(c, e, namespace, service, port)
	}
	if err != nil {
		return nil, fmt.Errorf("--to %s: %w", to, err)
	}
	if !slices.ContainsFunc(targets, target.onHost) {
		sources = distinct(c, sources, func(s end) end { return s })
	}
	if targets[0].service == "" && !slices.ContainsFunc(sources, end.onHost) {
		targets = distinct(c, targets, func(t target) end { return t.end })
	}
	out := &Answer{Notes: c.Notes}
	if len(c.Audited()) > 0 {
		out.ifEnforced = model.NewEvaluator(c.EnforceAudited())
	}
	for _, t := range targets {
		for _, port := range t.ports {
			for _, source := range sources {
				if source.pod != nil && source.pod == t.pod && len(sources) > 1 && len(targets) > 1 {
					continue // replicas are meant, not one and itself
				}
				out.ask(e, source, &t, port)
			}
		}
	}
	if len(out.Flows) == 0 {
		return nil, errors.New("the two have no address family in common")
	}
	out.decide()
	return out, nil
}

// ask about one pod or address at each end.
func (a *Answer) ask(e *model.Evaluator, source end, t *target, port model.Port) {
	for _, d := range t.addresses {
		s, ok := ofFamily(source.addresses, d)
		if !ok || source.pod != nil && t.pod != nil && e.Cluster().AssumesIPv6(s) && e.Cluster().AssumesIPv6(d) {
			continue
		}
		f := explain(e, source, t.end, policy.Flow{Source: s, Destination: d, Protocol: port.Protocol, Port: port.Number}, t.service)
		if a.ifEnforced != nil {
			f.ifEnforced(explain(a.ifEnforced, source, t.end, policy.Flow{Source: s, Destination: d, Protocol: port.Protocol, Port: port.Number}, t.service))
		}
		if t.caveat != "" {
			f.Notes = append(f.Notes, t.caveat)
		}
		if !repeats(a.Flows, &f) {
			a.Flows = append(a.Flows, f)
		}
	}
}

// distinct are the ends less those that no policy tells apart from two others of the same workload, which may be each other's ends.
func distinct[T any](c *model.Cluster, list []T, of func(T) end) []T {
	if len(list) < 2 {
		return list
	}
	for _, o := range list {
		if of(o).onHost() {
			return list
		}
	}
	keep := map[string]bool{}
	for range 2 {
		rest := &model.Cluster{Policies: c.Policies, ClusterPolicies: c.ClusterPolicies}
		for _, o := range list {
			if p := of(o).pod; !keep[p.Key()] {
				rest.Pods = append(rest.Pods, *p)
			}
		}
		for _, p := range rest.Distinct() {
			keep[p.Key()] = true
		}
	}
	return slices.DeleteFunc(list, func(o T) bool { return !keep[of(o).pod.Key()] })
}

func ofFamily(addresses []netip.Addr, like netip.Addr) (netip.Addr, bool) {
	for _, a := range addresses {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// repeats reports whether a flow between the same pods, or to another endpoint of the same workload, has the same explanation already.
func repeats(flows []Flow, f *Flow) bool {
	for i := range flows {
		a, b := flows[i], *f
		if !a.Source.like(b.Source) || !a.Destination.like(b.Destination) {
			continue
		}
		a.Source, a.Destination, b.Source, b.Destination = End{}, End{}, End{}, End{}
		a.Halves, b.Halves = anonymous(a.Halves), anonymous(b.Halves)
		a.IfEnforced, b.IfEnforced = a.IfEnforced.anonymous(), b.IfEnforced.anonymous()
		if reflect.DeepEqual(a, b) {
			return true
		}
	}
	return false
}

// like: of one pod, or of one workload. An address that is no pod's is like itself alone.
func (e End) like(o End) bool {
	if e.Pod == "" || o.Pod == "" {
		return e == o
	}
	return e.Namespace == o.Namespace && e.Workload == o.Workload && (e.Workload != "" || e.Pod == o.Pod)
}

func anonymous(halves []Half) []Half {
	var out []Half
	for _, h := range halves {
		h.Of, h.Assumes = "", ""
		if len(h.Nearest) > 0 { // their texts have names and addresses in them
			var rules []Miss
			for _, m := range h.Nearest {
				rules = append(rules, Miss{Rule: m.Rule})
			}
			h.Nearest = rules
		}
		out = append(out, h)
	}
	return out
}
