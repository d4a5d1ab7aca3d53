package explain

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Answer is what `explain -o json` prints.
type Answer struct {
	Allowed bool   `json:"allowed"`
	Flows   []Flow `json:"flows"`
}

// Flow is one connection that was asked about.
type Flow struct {
	Source      End    `json:"source"`
	Destination End    `json:"destination"`
	Service     string `json:"service,omitempty"`
	Protocol    string `json:"protocol"`
	// Port is 0 for a port that no rule names.
	Port    uint16 `json:"port"`
	Allowed bool   `json:"allowed"`
	// Always is why policies are not asked, where they are not.
	Always string `json:"always,omitempty"`
	Halves []Half `json:"halves,omitempty"`
	// Hint is what may have been meant.
	Hint string `json:"hint,omitempty"`
}

// End of a flow.
type End struct {
	Address   netip.Addr `json:"address"`
	Namespace string     `json:"namespace,omitempty"`
	Pod       string     `json:"pod,omitempty"`
	Workload  string     `json:"workload,omitempty"`
	name      string
}

// Half is what the policies of one end say.
type Half struct {
	Direction string `json:"direction"`
	// Of is the pod whose policies are asked, or an address.
	Of      string `json:"of"`
	Allowed bool   `json:"allowed"`
	// Reason is Rule, NotIsolated, NoPod, DefaultDeny or, with --live, Strict.
	Reason string `json:"reason"`
	// Isolating are the policies that select the pod in this direction.
	Isolating []string `json:"isolating,omitempty"`
	// Rule that decided.
	Rule *Rule `json:"rule,omitempty"`
	// Nearest are the rules that nearly match.
	Nearest []Miss `json:"nearest,omitempty"`
	// InForce is what the node's agent says, with --live.
	InForce *InForce `json:"inForce,omitempty"`
}

// Reasons of a Half.
const (
	ReasonRule        = "Rule"
	ReasonNotIsolated = "NotIsolated"
	ReasonNoPod       = "NoPod"
	ReasonDefaultDeny = "DefaultDeny"
	ReasonStrict      = "Strict" // NotIsolated, on a node whose mode closes such a pod
)

// Rule is a rule, quoted from its policy.
type Rule struct {
	Policy string `json:"policy"` // namespace/name
	Path   string `json:"path"`   // spec.ingress[0]
	Quote  string `json:"quote"`  // YAML
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
	// Differs says where that is not what the policies mean.
	Differs []string `json:"differs,omitempty"`
}

func newEnd(e end, addr netip.Addr) End {
	out := End{Address: addr, name: addr.String()}
	if e.pod != nil {
		out.Namespace, out.Pod, out.name = e.pod.Namespace, e.pod.Name, e.pod.Key()
		if e.pod.Workload.Kind != "Pod" {
			out.Workload = e.pod.Workload.Kind + " " + e.pod.Workload.Name
		}
	}
	return out
}

// explain one flow.
func explain(e *model.Evaluator, from, to end, f policy.Flow) Flow {
	out := Flow{Source: newEnd(from, f.Source), Destination: newEnd(to, f.Destination), Protocol: f.Protocol.String(), Port: f.Port}
	switch {
	case f.Source == f.Destination:
		out.Always = "a pod always reaches itself"
	case hostOf(from, f.Source, to) || hostOf(to, f.Destination, from):
		out.Always = "a pod and the node that it runs on always reach each other"
	}
	if out.Always != "" {
		out.Allowed = true
		return out
	}
	out.Allowed = true
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		self, name := from, f.Source
		if d == policy.Ingress {
			self, name = to, f.Destination
		}
		h := half(e, d, self, name, f)
		out.Halves = append(out.Halves, h)
		out.Allowed = out.Allowed && h.Allowed
	}
	if to.pod != nil && !out.Allowed {
		if s, target := e.Cluster().Mistaken(to.pod, model.Port{Protocol: f.Protocol, Number: f.Port}); s != nil {
			out.Hint = fmt.Sprintf("%d is a port of Service %s/%s, which sends to the pods' port %d: ask about that, or --to svc/%[2]s/%[3]s:%[1]d", f.Port, s.Namespace, s.Name, target)
		}
	}
	return out
}

// hostOf reports whether a, at this address, is on the network of the node that b runs on.
func hostOf(a end, addr netip.Addr, b end) bool {
	switch {
	case b.pod == nil:
		return false
	case a.pod != nil:
		return a.pod.Spec.HostNetwork && a.pod.Spec.NodeName != "" && a.pod.Spec.NodeName == b.pod.Spec.NodeName
	}
	isAddr := func(ip string) bool {
		host, err := netip.ParseAddr(ip)
		return err == nil && host.Unmap() == addr
	}
	return isAddr(b.pod.Status.HostIP) || slices.ContainsFunc(b.pod.Status.HostIPs, func(h corev1.HostIP) bool { return isAddr(h.IP) })
}

func half(e *model.Evaluator, d policy.Direction, self end, addr netip.Addr, f policy.Flow) Half {
	out := Half{Direction: d.String(), Of: newEnd(self, addr).name}
	v := e.Evaluate(d, f)
	out.Allowed = v.Allowed
	for _, np := range v.Isolating {
		out.Isolating = append(out.Isolating, np.Namespace+"/"+np.Name)
	}
	switch {
	case e.PodAt(addr) == nil:
		out.Reason = ReasonNoPod
	case len(v.Isolating) == 0:
		out.Reason = ReasonNotIsolated
	case v.Allowed:
		out.Reason = ReasonRule
		r := quote(d, v.Policy, v.Rule)
		out.Rule = &r
	default:
		out.Reason = ReasonDefaultDeny
		out.Nearest = nearest(e, d, v.Isolating, f)
	}
	return out
}

// quote a rule as a manifest has it.
func quote(d policy.Direction, np *networkingv1.NetworkPolicy, i int) Rule {
	out := Rule{Policy: np.Namespace + "/" + np.Name}
	var text []byte
	if d == policy.Ingress {
		out.Path = fmt.Sprintf("spec.ingress[%d]", i)
		text, _ = yaml.Marshal(np.Spec.Ingress[i : i+1])
	} else {
		out.Path = fmt.Sprintf("spec.egress[%d]", i)
		text, _ = yaml.Marshal(np.Spec.Egress[i : i+1])
	}
	out.Quote = string(text)
	return out
}
