package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Answer is the output of `explain -o json`.
type Answer struct {
	// Allowed reports whether all of Flows are allowed.
	Allowed bool    `json:"allowed"`
	Verdict Verdict `json:"verdict"`
	Flows   []Flow  `json:"flows"`
	// Notes are remarks about the input, such as which objects were not evaluated.
	Notes []string `json:"notes,omitempty"`

	ifEnforced *model.Evaluator // as if audited policies were enforced; nil if there are none
}

// Verdict of a flow, of one of its halves, or of all.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "allowed"
	Denied  Verdict = "denied"
	Depends Verdict = "depends" // on the address of a pod, which is not known
)

// all is the verdict where all of these must allow.
func all[T any](list []T, of func(*T) Verdict) Verdict {
	out := Allowed
	for i := range list {
		switch of(&list[i]) {
		case Denied:
			return Denied
		case Depends:
			out = Depends
		case Allowed:
		}
	}
	return out
}

func (a *Answer) decide() {
	a.Verdict = all(a.Flows, func(f *Flow) Verdict { return f.Verdict })
	a.Allowed = a.Verdict == Allowed
}

func (f *Flow) decide() {
	f.Verdict = all(f.Halves, func(h *Half) Verdict { return h.Verdict })
	f.Allowed = f.Verdict == Allowed
}

// Flow is one connection that was asked about.
type Flow struct {
	Source      End    `json:"source"`
	Destination End    `json:"destination"`
	Service     string `json:"service,omitempty"`
	Protocol    string `json:"protocol"`
	// Port is 0 for a port that no rule names.
	Port    uint16  `json:"port"`
	Allowed bool    `json:"allowed"`
	Verdict Verdict `json:"verdict"`
	// Always is why no policy applies, where none does.
	Always string `json:"always,omitempty"`
	Halves []Half `json:"halves,omitempty"`
	// IfEnforced is what would become of the flow if audited policies were enforced, if a half of it would become allowed or denied.
	IfEnforced *IfEnforced `json:"ifEnforced,omitempty"`
	// Hint is another question that may have been meant.
	Hint string `json:"hint,omitempty"`
	// Notes are the conditions under which the verdict holds.
	Notes []string `json:"notes,omitempty"`
}

// End of a flow.
type End struct {
	// Address; absent for a DNS name.
	Address netip.Addr `json:"address,omitzero"`
	// DomainName that was asked about, instead of an address outside the cluster.
	DomainName string `json:"domainName,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Pod        string `json:"pod,omitempty"`
	Workload   string `json:"workload,omitempty"`
	// Invented: the pod's address is not known, and Address only stands for it.
	Invented bool `json:"invented,omitempty"`
	// HostNetwork: no policy applies to the pod, and no selector selects it.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	name        string
}

// Half is the decision of the policies of one end.
type Half struct {
	Direction string `json:"direction"`
	// Of is the pod whose policies decide, or an address.
	Of      string  `json:"of"`
	Allowed bool    `json:"allowed"`
	Verdict Verdict `json:"verdict"`
	// Reason is Rule, ClusterRule, NotIsolated, NoPod, HostNetwork, OwnNode, DefaultDeny, Depends or, with --live, Strict.
	Reason string `json:"reason"`
	// Isolating are the policies that select the pod in this direction.
	Isolating []string `json:"isolating,omitempty"`
	// Rule that decided.
	Rule *Rule `json:"rule,omitempty"`
	// Tiers are the steps of evaluation, where there are ClusterNetworkPolicies.
	Tiers []Step `json:"tiers,omitempty"`
	// ByName are the rules that would allow the connection if the pod had the address from a name.
	ByName []ByName `json:"byName,omitempty"`
	// Nearest are the rules that nearly match.
	Nearest []Miss `json:"nearest,omitempty"`
	// Depends are the decisions by the address of the other end, which is not known.
	Depends []Dependence `json:"depends,omitempty"`
	// Assumes is what the decision takes for granted.
	Assumes string `json:"assumes,omitempty"`
	// InForce is the report of the node's agent, with --live.
	InForce *InForce `json:"inForce,omitempty"`

	subjectOf []string // ClusterNetworkPolicies
	byName    bool     // a rule by name allows
}

// Reasons of a Half.
const (
	ReasonRule        = "Rule"
	ReasonClusterRule = "ClusterRule" // of a ClusterNetworkPolicy, which allows or denies
	ReasonOwnNode     = "OwnNode"     // NetworkPolicies do not apply between a pod and its own node
	ReasonNotIsolated = "NotIsolated"
	ReasonNoPod       = "NoPod"
	ReasonHostNetwork = "HostNetwork"
	ReasonDefaultDeny = "DefaultDeny"
	ReasonDepends     = "Depends"
	ReasonStrict      = "Strict" // NotIsolated, on a node whose mode isolates such a pod
)

// Dependence is the decision for some addresses.
type Dependence struct {
	Allowed   bool         `json:"allowed"`
	Addresses []model.Part `json:"addresses"`
	Rule      *Rule        `json:"rule,omitempty"`
}

// Rule is a rule, quoted from its policy.
type Rule struct {
	// Kind of the policy, if it is not NetworkPolicy.
	Kind   string `json:"kind,omitempty"`
	Policy string `json:"policy"` // namespace/name, or the name of a ClusterNetworkPolicy
	// Priority of a ClusterNetworkPolicy, and the rule's name.
	Priority *int32 `json:"priority,omitempty"`
	Name     string `json:"name,omitempty"`
	Path     string `json:"path"`  // spec.ingress[0]
	Quote    string `json:"quote"` // YAML
	// Unreadable is why the rule cannot be honoured, so that it denies everything.
	Unreadable string `json:"unreadable,omitempty"`
	short      string // of a rule with many peers
}

// Miss is a rule that does not match, and why.
type Miss struct {
	Rule
	Why []string `json:"why"`
}

// InForce is what the agent of the pod's node enforces.
type InForce struct {
	Node  string `json:"node"`
	State string `json:"state"`
	// Learned are the addresses that the node has for the name that was asked about, or the names that it has for the address.
	Learned []Learned `json:"learned,omitempty"`
	// Differs says where that is not what the policies mean.
	Differs []string `json:"differs,omitempty"`
}

func newEnd(e end, addr netip.Addr) End {
	out := End{Address: addr, name: addr.String()}
	if e.pod != nil {
		out.Namespace, out.Pod, out.name = e.pod.Namespace, e.pod.Name, e.pod.Key()
		out.Invented, out.HostNetwork = e.pod.Invented, e.pod.Spec.HostNetwork
		if e.pod.Workload.Kind != "Pod" {
			out.Workload = e.pod.Workload.Kind + " " + e.pod.Workload.Name
		}
	}
	return out
}

// explain one flow.
func explain(e *model.Evaluator, from, to end, f policy.Flow, service string) Flow {
	out := Flow{Source: newEnd(from, f.Source), Destination: newEnd(to, f.Destination), Service: service, Protocol: f.Protocol.String(), Port: f.Port}
	tiers := len(e.Cluster().ClusterPolicies) > 0
	switch {
	case f.Source == f.Destination && tiers && service != "":
		out.Notes = append(out.Notes, "of a pod's connections to itself, ClusterNetworkPolicies judge those through a Service; NetworkPolicies judge none")
		e = withoutNetworkPolicies(e)
	case f.Source == f.Destination:
		out.Always = "a pod always reaches itself"
	case tiers && hostOf(e, from, f.Source, to):
		out.Always = "a node always reaches the pods that run on it"
	case tiers:
	case hostOf(e, from, f.Source, to) || hostOf(e, to, f.Destination, from):
		out.Always = "a pod and the node that it runs on always reach each other"
	}
	if out.Always != "" {
		out.decide()
		return out
	}
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		self, peer := from, to
		if d == policy.Ingress {
			self, peer = to, from
		}
		out.Halves = append(out.Halves, half(e, d, self, peer, f))
	}
	out.decide()
	out.note(e, from, to, f)
	if to.pod != nil && out.Verdict == Denied && service == "" { // otherwise the port is the pod's already
		if m := e.Cluster().Mistaken(to.pod, policy.PortRange{Protocol: f.Protocol, First: f.Port, Last: f.Port}); m != nil {
			out.Hint = fmt.Sprintf("%s, which sends to the pods' port %d: ask about that, or --to svc/%s/%s:%d", m, m.Target, m.Service.Namespace, m.Service.Name, m.Port.Port)
		}
	}
	return out
}

// note the conditions under which the verdict holds.
func (f *Flow) note(e *model.Evaluator, from, to end, flow policy.Flow) {
	unless := ""
	if len(e.Cluster().ClusterPolicies) > 0 {
		unless = ", unless a ClusterNetworkPolicy denies the pod's to the node"
	}
	for _, at := range []struct {
		end
		addr  netip.Addr
		other end
	}{{from, flow.Source, to}, {to, flow.Destination, from}} {
		others := e.Others(at.addr)
		if len(others) > 0 {
			var names []string
			for _, p := range others {
				names = append(names, p.Key())
			}
			f.Notes = append(f.Notes, fmt.Sprintf("%s is also the address of %s: the youngest pod, %s, counts, as for the nodes' agents",
				at.addr, strings.Join(names, ", "), e.PodAt(at.addr).Key()))
		}
		if at.pod != nil && at.pod.Spec.HostNetwork && at.pod.Invented && at.other.pod != nil {
			f.Notes = append(f.Notes, fmt.Sprintf("%s is on the host network: between it and the pods of its own node every connection is allowed"+unless, at.pod.Key()))
		}
	}
}

// hostOf reports whether a, at this address, is on the network of the node that b runs on.
func hostOf(e *model.Evaluator, a end, addr netip.Addr, b end) bool {
	switch {
	case b.pod == nil:
		return false
	case a.pod != nil:
		return a.pod.Spec.HostNetwork && a.pod.Spec.NodeName != "" && a.pod.Spec.NodeName == b.pod.Spec.NodeName
	}
	return e.IsNodeOf(b.pod, addr)
}

func half(e *model.Evaluator, d policy.Direction, self, peer end, f policy.Flow) Half {
	addr := f.Source
	if d == policy.Ingress {
		addr = f.Destination
	}
	out := Half{Direction: d.String(), Of: newEnd(self, addr).name}
	alternatives := e.Judge(d, f)
	v := alternatives[0].ClusterDecision
	isolating := e.Evaluate(d, f).Isolating
	for _, np := range isolating {
		out.Isolating = append(out.Isolating, np.Namespace+"/"+np.Name)
	}
	if e.PodAt(addr) != nil && len(e.Cluster().ClusterPolicies) > 0 {
		out.subjectOf = selecting(e, addr)
		out.Tiers = stepsOf(d, &v, len(isolating) > 0, f)
	}
	out.Verdict = Denied
	if v.Allowed() {
		out.Verdict = Allowed
	}
	switch {
	case slices.ContainsFunc(alternatives, func(a model.Alternative) bool { return a.Action != v.Action }):
		out.Reason, out.Verdict, out.Tiers = ReasonDepends, Depends, nil
		for _, a := range alternatives {
			out.Depends = append(out.Depends, Dependence{Allowed: a.Allowed(), Addresses: a.Parts, Rule: ruleOf(d, &a.ClusterDecision, f)})
		}
	case e.PodAt(addr) == nil && self.pod != nil && self.pod.Spec.HostNetwork:
		out.Reason = ReasonHostNetwork
	case e.PodAt(addr) == nil:
		out.Reason = ReasonNoPod
	case clusterRuleOf(&v) != nil:
		out.Reason, out.Rule = ReasonClusterRule, ruleOf(d, &v, f)
	case len(isolating) > 0 && v.Allowed() && (v.NetworkPolicy == nil || v.NetworkPolicy.Policy == nil):
		out.Reason = ReasonOwnNode
	case len(isolating) == 0:
		out.Reason = ReasonNotIsolated
	case v.Allowed():
		out.Reason, out.Rule = ReasonRule, ruleOf(d, &v, f)
	default:
		out.Reason = ReasonDefaultDeny
		out.Nearest = nearest(e, d, isolating, f)
	}
	if d == policy.Egress && out.Verdict == Denied {
		out.ByName = byName(e, &v, f)
	}
	out.Allowed = out.Verdict == Allowed
	if out.Reason != ReasonDepends && e.AssumesPrivate(d, f, alternatives) {
		out.Assumes = "the address of " + newEnd(peer, f.Peer(d)).name + " is taken to be a private one: give --pod-cidr if it is not"
	}
	return out
}

// ruleOf a decision that one of the rules made.
func ruleOf(d policy.Direction, v *reference.ClusterDecision, f policy.Flow) *Rule {
	var r Rule
	switch cluster := clusterRuleOf(v); {
	case cluster != nil:
		r = quoteCluster(d, cluster)
	case v.NetworkPolicy != nil && v.NetworkPolicy.Policy != nil:
		r = quote(d, v.NetworkPolicy.Policy, v.NetworkPolicy.Rule, f.Peer(d))
	default:
		return nil
	}
	return &r
}
