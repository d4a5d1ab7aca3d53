package proof

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// Difference is a flow of a class that the sets judge differently.
type Difference struct {
	Direction string `json:"direction"`
	// Pod is the one whose policies are asked, Peer the other end.
	Pod      End    `json:"pod"`
	Peer     End    `json:"peer"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
	// PortNames are those that the port has at the pod which receives.
	PortNames []string `json:"portNames,omitempty"`
	// Before and After are the verdicts, and what made them.
	Before calico.Verdict `json:"before"`
	After  calico.Verdict `json:"after"`
}

// End of a flow: a pod of this kind, or an address that is no pod's.
type End struct {
	Address         string            `json:"address"`
	Namespace       string            `json:"namespace,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	NamespaceLabels map[string]string `json:"namespaceLabels,omitempty"`
	ServiceAccount  string            `json:"serviceAccount,omitempty"`
	// Names are domain names that the address belongs to.
	Names []string `json:"names,omitempty"`
}

// String is as "pod a=b in namespace ns" or "10.0.0.1".
func (e End) String() string {
	if e.Namespace == "" {
		if len(e.Names) > 0 {
			return e.Address + " (an address of " + strings.Join(e.Names, ", ") + ")"
		}
		return e.Address
	}
	out := "a pod without labels"
	if len(e.Labels) > 0 {
		out = "pod " + write(e.Labels)
	}
	out += " in namespace " + e.Namespace
	if len(e.NamespaceLabels) > 0 {
		out += " (" + write(e.NamespaceLabels) + ")"
	}
	if e.ServiceAccount != "" {
		out += " as " + e.ServiceAccount
	}
	return out + " at " + e.Address
}

func write(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

func endOf(e *calico.Endpoint) End {
	out := End{Address: e.Addr.String(), Names: slices.Sorted(maps.Keys(e.Names))}
	if e.Pod != nil {
		out.Namespace, out.Labels, out.ServiceAccount = e.Pod.Namespace, e.Pod.Labels, e.Pod.Spec.ServiceAccountName
		out.NamespaceLabels = maps.Clone(e.NamespaceLabels)
		delete(out.NamespaceLabels, "kubernetes.io/metadata.name")
	}
	return out
}

// Flow is as "TCP 80" or "TCP 8080 (http)".
func (d *Difference) Flow() string {
	out := d.Protocol
	if d.Port != 0 {
		out += fmt.Sprintf(" %d", d.Port)
	}
	if len(d.PortNames) > 0 {
		out += " (" + strings.Join(d.PortNames, ", ") + ")"
	}
	return out
}

// step is a tier as one pod meets it: the rules of the policies that select it, by their index.
type step struct {
	defaultDeny bool
	rules       []int
	actions     []calico.Action
}

// steps of a pod through the tiers of one side.
func (c *comparison) steps(side int, self *calico.Endpoint) []step {
	var out []step
	for _, t := range c.judges[side].Tiers {
		s, selected := step{defaultDeny: t.DefaultAction == calico.Deny}, false
		for _, p := range t.Policies {
			if !p.Selects(c.direction, self) {
				continue
			}
			selected = true
			for i, r := range p.Rules[c.direction] {
				if r.Action != calico.Log && r.MatchesSelf(self) {
					s.rules, s.actions = append(s.rules, c.first[p]+i), append(s.actions, r.Action)
				}
			}
		}
		if selected {
			out = append(out, s)
		}
	}
	return out
}

// judge a flow as calico.Judge does, by what was found out about its classes.
func (c *comparison) judge(side int, steps []step, peer, traffic int) bool {
tiers:
	for i := range steps {
		s := &steps[i]
		for n, rule := range s.rules {
			if !c.peerMatches[side][rule][peer] || !c.trafficMatches[side][rule][traffic] {
				continue
			}
			if s.actions[n] == calico.Pass {
				continue tiers
			}
			return s.actions[n] == calico.Allow
		}
		if s.defaultDeny {
			return false
		}
	}
	return true
}

func (c *comparison) compare(self *calico.Endpoint) {
	steps := [2][]step{c.steps(0, self), c.steps(1, self)}
	shown := [2]int{}
	for p, peer := range c.peers {
		for t := range c.traffic {
			traffic := c.traffic[t]
			if c.direction == policy.Egress && traffic.Target != nil && peer.Pod == nil {
				continue // what is no pod has no names for its ports
			}
			c.report.Flows++
			before, after := c.judge(0, steps[0], p, t), c.judge(1, steps[1], p, t)
			if before == after {
				continue
			}
			c.report.Differing++
			if shown[bit(after)] < maxShown {
				shown[bit(after)]++
				c.show(self, peer, traffic)
			}
		}
	}
}

// show a difference, with the verdicts of the judges themselves.
func (c *comparison) show(self, peer *calico.Endpoint, t calico.Traffic) {
	d := Difference{Direction: c.direction.String(), Pod: endOf(self), Peer: endOf(peer), Protocol: t.Protocol.String(), Port: t.Port}
	if t.Target != nil {
		for _, n := range policy.ContainerPorts(t.Target) {
			d.PortNames = append(d.PortNames, n.Name)
		}
	}
	d.Before = c.judges[0].Evaluate(c.direction, self, peer, t)
	d.After = c.judges[1].Evaluate(c.direction, self, peer, t)
	c.report.Differences = append(c.report.Differences, d)
}
