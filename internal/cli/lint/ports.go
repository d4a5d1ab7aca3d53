package lint

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// receivers are the pods whose ports a rule is about: the selected ones for ingress, the peers for egress.
func (l *linter) receivers(np *networkingv1.NetworkPolicy, d policy.Direction, r netpol.Rule) []*model.Pod {
	if d == policy.Ingress {
		return l.selected(np)
	}
	if len(r.Peers) == 0 {
		return l.podsWhere(func(p *pod) bool { return p.isPeer })
	}
	var out []*model.Pod
	for i := range r.Peers {
		if r.Peers[i].IPBlock == nil {
			out = append(out, l.matched(np, &r.Peers[i])...)
		}
	}
	return out
}

func (l *linter) namedPort() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule) {
		for i := range r.Ports {
			p := &r.Ports[i]
			if p.Port == nil || p.Port.StrVal == "" {
				continue
			}
			at := fmt.Sprintf("%s.ports[%d]", path, i)
			protocol := policy.ProtocolOf(p.Protocol)
			pods := l.receivers(np, d, r)
			if len(pods) == 0 {
				continue // selects-nothing or peer-matches-nothing reports it
			}
			names := map[string]bool{}
			found, wrong := false, policy.Protocol(0)
			for _, pod := range pods {
				for _, n := range policy.ContainerPorts(&pod.Pod) {
					names[n.Name] = true
					if n.Name == p.Port.StrVal {
						found = found || n.Protocol == protocol
						if n.Protocol != protocol {
							wrong = n.Protocol
						}
					}
				}
			}
			whose := [...]string{"the pods that the policy selects", "the peers"}[d]
			switch {
			case found:
			case wrong != 0:
				l.found(Error, object(np), at, fmt.Sprintf("Add protocol: %s.", wrong), "port %q is of protocol %s at %s; the rule is about %s", p.Port.StrVal, wrong, whose, protocol)
			case len(names) == 0:
				l.found(Warning, object(np), at, "Name the containers' ports, or give a number.", "no container of %s names a port, so %q is none", whose, p.Port.StrVal)
			default:
				l.found(Warning, object(np), at, fmt.Sprintf("Give one of their names (%s), or a number.", some(names)), "no container of %s has a port named %q: the rule allows nothing", whose, p.Port.StrVal)
			}
		}
	})
}

func (l *linter) portProtocol() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule) {
		for i := range r.Ports {
			p := &r.Ports[i]
			if p.Protocol != nil || p.Port == nil || p.Port.StrVal != "" {
				continue
			}
			at := fmt.Sprintf("%s.ports[%d]", path, i)
			udp := slices.ContainsFunc(r.Ports, func(q networkingv1.NetworkPolicyPort) bool {
				return q.Protocol != nil && *q.Protocol == corev1.ProtocolUDP && (q.Port == nil || q.Port.IntVal == p.Port.IntVal)
			})
			if p.Port.IntVal == 53 && !udp {
				l.found(Error, object(np), at, "Add {protocol: UDP, port: 53} beside it.", "port 53 without a protocol is TCP alone, and DNS is mostly UDP")
				continue
			}
			for _, pod := range l.receivers(np, d, r) {
				if other, only := otherProtocol(l.cluster.Ports(pod), uint16(p.Port.IntVal)); only && !udp {
					l.found(Warning, object(np), at, fmt.Sprintf("Add protocol: %s.", other), "port %d without a protocol is TCP, and pod %s serves it as %s", p.Port.IntVal, pod.Key(), other)
					break
				}
			}
		}
	})
}

// otherProtocol reports whether a port is served by a protocol other than TCP, and not by TCP.
func otherProtocol(ports []model.Port, number uint16) (policy.Protocol, bool) {
	var other policy.Protocol
	for _, p := range ports {
		if p.Number == number {
			if p.Protocol == policy.TCP {
				return 0, false
			}
			other = p.Protocol
		}
	}
	return other, other != 0
}

// servicePort finds rules for a Service's port whose pods listen on another: policies see the pods' port.
func (l *linter) servicePort() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule) {
		if d == policy.Egress && len(r.Peers) == 0 {
			return // Services outside the cluster may be meant
		}
		pods := l.receivers(np, d, r)
		for i := range r.Ports {
			p := &r.Ports[i]
			if p.Port == nil || p.Port.StrVal != "" {
				continue
			}
			ports := policy.PortRange{Protocol: policy.ProtocolOf(p.Protocol), First: uint16(p.Port.IntVal), Last: uint16(p.Port.IntVal)}
			if p.EndPort != nil {
				ports.Last = uint16(*p.EndPort)
			}
			serves := func(pod *model.Pod) bool {
				return slices.ContainsFunc(l.cluster.Ports(pod), func(q model.Port) bool {
					return q.Protocol == ports.Protocol && ports.First <= q.Number && q.Number <= ports.Last
				})
			}
			if slices.ContainsFunc(pods, serves) {
				continue
			}
			for _, pod := range pods {
				m := l.cluster.Mistaken(pod, ports)
				if m == nil || netpol.MatchesPorts(r.Ports, &pod.Pod, policy.Flow{Protocol: ports.Protocol, Port: m.Target}) {
					continue
				}
				l.found(Warning, object(np), fmt.Sprintf("%s.ports[%d]", path, i), fmt.Sprintf("Give port %d.", m.Target),
					"%s; its pods listen on %d, and policies see the pods' port: the rule does not allow it", m, m.Target)
				break
			}
		}
	})
}
