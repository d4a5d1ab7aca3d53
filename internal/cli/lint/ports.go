package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// receivers are the pods whose ports a rule means: the selected ones for ingress, the peers for egress.
func (l *linter) receivers(np *networkingv1.NetworkPolicy, d policy.Direction, r policy.NetworkPolicyRule) []*model.Pod {
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
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r policy.NetworkPolicyRule) {
		for i := range r.Ports {
			p := &r.Ports[i]
			if p.Port == nil || p.Port.StrVal == "" {
				continue
			}
			at := fmt.Sprintf("%s.ports[%d]", path, i)
			protocol := policy.ProtocolOf(p.Protocol)
			pods := l.receivers(np, d, r)
			if len(pods) == 0 {
				continue // told by selects-nothing or peer-matches-nothing
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
				l.found(Error, object(np), at, fmt.Sprintf("Say protocol: %s.", wrong), "port %q is of protocol %s at %s, and the rule means %s", p.Port.StrVal, wrong, whose, protocol)
			case len(names) == 0:
				l.found(Warning, object(np), at, "Name the containers' ports, or give a number.", "no container of %s names a port, so %q is none", whose, p.Port.StrVal)
			default:
				l.found(Warning, object(np), at, fmt.Sprintf("Give one of their names (%s), or a number.", some(names)), "no container of %s has a port named %q: the rule allows nothing", whose, p.Port.StrVal)
			}
		}
	})
}

func (l *linter) portProtocol() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r policy.NetworkPolicyRule) {
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
					l.found(Warning, object(np), at, fmt.Sprintf("Say protocol: %s.", other), "port %d without a protocol is TCP, and pod %s serves it as %s", p.Port.IntVal, pod.Key(), other)
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

func (l *linter) blockCoversCluster() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r policy.NetworkPolicyRule) {
		for i := range r.Peers {
			block := r.Peers[i].IPBlock
			if block == nil {
				continue
			}
			at := fmt.Sprintf("%s[%d].ipBlock", peersPath(d, path), i)
			m := policy.NewPeerMatcher(np.Namespace, &r.Peers[i])
			pods := l.podsWhere(func(p *pod) bool {
				return p.isPeer && slices.ContainsFunc(p.addresses, func(a netip.Addr) bool { return m.Matches(a, nil, nil) })
			})
			whole := strings.HasSuffix(block.CIDR, "/0")
			switch {
			case len(pods) > 0 && whole:
				l.found(Info, object(np), at, "If only the world outside is meant, add the cluster's pod and node ranges to except.",
					"%s is everything: the cluster's pods too", block.CIDR)
			case len(pods) > 0:
				l.found(Warning, object(np), at, "Select pods by labels: their addresses change. If others are meant, add the pods' range to except.",
					"%s holds pods, as %s", block.CIDR, pods[0].Key())
			}
			for n := range l.cluster.Nodes {
				node := &l.cluster.Nodes[n]
				if a, ok := nodeAddress(node); ok && !whole && m.Matches(a, nil, nil) {
					l.found(Info, object(np), at, "Nothing, if the nodes are meant, and with them pods of the host network and what comes through NodePorts.",
						"%s holds nodes of the cluster, as %s", block.CIDR, node.Name)
					break
				}
			}
		}
	})
}
