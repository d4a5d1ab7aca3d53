package recommend

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/replay"
)

// errOpens is the failure of a proof because something that is denied today would be allowed.
var errOpens = errors.New("denied today, and would be allowed")

// prove that every recorded flow that is allowed today stays allowed, unless it is listed for a decision; and that no rule can be taken away.
func (w *writer) prove(out *Result) error {
	w.prune(out)
	judge := replay.NewJudge(w.in.Cluster, w.policiesToday(), plus(w.keptToday(out), enforced(out.Policies)), plus(w.base(), out.Policies))
	for _, t := range w.items {
		if t.Reply || !w.isTarget(t.Source) && !w.isTarget(t.Destination) {
			continue
		}
		answers := judge.Decide(t.Flow()).Answers
		today, then, alone := answers[0], answers[1], answers[2]
		switch {
		case t.listed != nil && t.listed.Why == DeniedToday:
			if today.Verdict == replay.Denied && then.Verdict == replay.Allowed {
				if w.widen && !w.isDNS(t) {
					return fmt.Errorf("%s: %w", describe(t), errOpens)
				}
				t.listed.Allowed = true
			}
		case t.listed != nil:
			if then.Verdict != replay.Allowed {
				t.listed.Denied = true
				out.Proof.Denied.Add(&t.Count)
			}
		case then.Verdict == replay.Denied:
			return fmt.Errorf("%s would be denied: %s", describe(t), then.Why)
		case alone.Verdict == replay.Denied:
			return fmt.Errorf("%s would be denied without the policies of today: %s", describe(t), alone.Why)
		case then.Verdict == replay.Unknown:
			w.list(t, Undecidable, replay.Reason(then.Why))
			t.listed.Denied = true
			out.Proof.Denied.Add(&t.Count)
		default:
			out.Proof.Allowed.Add(&t.Count)
		}
	}
	for _, d := range w.decisions {
		out.Decisions = append(out.Decisions, *d)
	}
	slices.SortFunc(out.Decisions, func(a, b Decision) int {
		return cmp.Or(strings.Compare(string(a.Why), string(b.Why)), a.From.Compare(b.From), a.To.Compare(b.To), strings.Compare(a.FromText, b.FromText),
			strings.Compare(a.ToText, b.ToText), strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Reason), string(b.Reason)))
	})
	return nil
}

func describe(t *item) string {
	return fmt.Sprintf("%s to %s %s %d", textOf(t.Source), textOf(t.Destination), t.Protocol, t.Port)
}

// base are the policies beside which each rule must be needed: none, or those of today where only what is missing is written.
func (w *writer) base() replay.Policies {
	if !w.o.OnlyMissing {
		return replay.Policies{}
	}
	out := w.policiesToday()
	out.EnforceAudited = true
	return out
}

// keptToday are the policies of today without those whose place recommended ones take.
func (w *writer) keptToday(out *Result) replay.Policies {
	kept := replay.Policies{}
	today := w.policiesToday()
	for i := range today.NetworkPolicies {
		np := &today.NetworkPolicies[i]
		if !slices.ContainsFunc(out.Policies, func(p Policy) bool {
			return p.NetworkPolicy != nil && p.NetworkPolicy.Namespace == np.Namespace && p.NetworkPolicy.Name == np.Name
		}) {
			kept.NetworkPolicies = append(kept.NetworkPolicies, *np)
		}
	}
	for i := range today.ClusterPolicies {
		c := &today.ClusterPolicies[i]
		if !slices.ContainsFunc(out.Policies, func(p Policy) bool { return p.ClusterPolicy != nil && p.ClusterPolicy.Name == c.Name }) {
			kept.ClusterPolicies = append(kept.ClusterPolicies, *c)
		}
	}
	return kept
}

// plus adds recommended policies, as if they were enforced.
func plus(p replay.Policies, more []Policy) replay.Policies {
	out := replay.Policies{NetworkPolicies: slices.Clone(p.NetworkPolicies), ClusterPolicies: slices.Clone(p.ClusterPolicies), EnforceAudited: p.EnforceAudited}
	for _, m := range more {
		if m.NetworkPolicy != nil {
			np := *m.NetworkPolicy
			np.Labels = nil
			out.NetworkPolicies = append(out.NetworkPolicies, np)
		}
		if m.ClusterPolicy != nil {
			c := *m.ClusterPolicy
			c.Labels = nil
			out.ClusterPolicies = append(out.ClusterPolicies, c)
		}
	}
	return out
}

// enforced are the policies that are not staged beside audited ones.
func enforced(policies []Policy) []Policy {
	return slices.DeleteFunc(slices.Clone(policies), func(p Policy) bool { return p.Staged })
}

// prune takes away each rule that no recorded flow needs. What is left is minimal: taking away more makes the others more needed.
func (w *writer) prune(out *Result) {
	for _, cluster := range [...]bool{true, false} {
		for i := range out.Policies {
			p := &out.Policies[i]
			if (p.ClusterPolicy != nil) != cluster {
				continue
			}
			for _, d := range policy.Directions {
				for n := p.rules(d) - 1; n >= 0; n-- {
					reason := p.reasons(d)[n]
					if reason.DNS {
						continue
					}
					if w.isNeeded(out, i, d, n, reason.items) {
						out.Proof.Rules++
					} else {
						*p = p.without(d, n)
					}
				}
			}
		}
	}
	out.Policies = slices.DeleteFunc(out.Policies, func(p Policy) bool { return p.ClusterPolicy != nil && len(p.ClusterPolicy.Spec.Egress) == 0 })
}

// isNeeded reports whether some recorded traffic is denied without a rule.
func (w *writer) isNeeded(out *Result, i int, d policy.Direction, rule int, items []*item) bool {
	policies := slices.Clone(out.Policies)
	policies[i] = policies[i].without(d, rule)
	judges := map[[2]string]*replay.Judge{}
	return slices.ContainsFunc(items, func(t *item) bool {
		namespaces := [2]string{t.Source.Namespace, t.Destination.Namespace}
		judge := judges[namespaces]
		if judge == nil {
			judge = replay.NewJudge(w.in.Cluster, of(plus(w.base(), policies), namespaces))
			judges[namespaces] = judge
		}
		return judge.Decide(t.Flow()).Answers[0].Verdict != replay.Allowed
	})
}

// of are the policies that can be about pods of two namespaces.
func of(p replay.Policies, namespaces [2]string) replay.Policies {
	p.NetworkPolicies = slices.DeleteFunc(p.NetworkPolicies, func(np networkingv1.NetworkPolicy) bool { return !slices.Contains(namespaces[:], np.Namespace) })
	return p
}

// rules is the number of rules of a direction.
func (p *Policy) rules(d policy.Direction) int { return len(p.reasons(d)) }

func (p *Policy) reasons(d policy.Direction) []Reason {
	if d == policy.Ingress {
		return p.Ingress
	}
	return p.Egress
}

// without a rule.
func (p *Policy) without(d policy.Direction, i int) Policy {
	out := *p
	if out.NetworkPolicy != nil {
		np := *out.NetworkPolicy
		out.NetworkPolicy = &np
		if d == policy.Ingress {
			np.Spec.Ingress = slices.Delete(slices.Clone(np.Spec.Ingress), i, i+1)
		} else {
			np.Spec.Egress = slices.Delete(slices.Clone(np.Spec.Egress), i, i+1)
		}
	}
	if out.ClusterPolicy != nil {
		c := *out.ClusterPolicy
		out.ClusterPolicy = &c
		c.Spec.Egress = slices.Delete(slices.Clone(c.Spec.Egress), i, i+1)
	}
	if d == policy.Ingress {
		out.Ingress = slices.Delete(slices.Clone(out.Ingress), i, i+1)
	} else {
		out.Egress = slices.Delete(slices.Clone(out.Egress), i, i+1)
	}
	return out
}
