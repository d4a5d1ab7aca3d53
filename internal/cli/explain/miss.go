package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// mostMisses is how many rules that nearly match an answer has.
const mostMisses = 3

// nearest are the rules that lack least: those that match by peer or by port, the former first.
func nearest(e *model.Evaluator, d policy.Direction, isolating []*networkingv1.NetworkPolicy, f policy.Flow) []Miss {
	type ranked struct {
		Miss
		lacks int
	}
	var found []ranked
	for _, np := range isolating {
		for i, r := range netpol.Rules(d, np) {
			m := ranked{Miss: Miss{Rule: quote(d, np, i, f.Peer(d))}}
			peers, peerLacks := whyNotPeers(e, np.Namespace, r.Peers, f.Peer(d))
			ports := append(whyNotPorts(e.PodAt(f.Destination), r.Ports, f), takenForService(e, r.Ports, f)...)
			switch {
			case len(peers) > 0 && len(ports) > 0:
				m.lacks = 10 + peerLacks
			case len(peers) > 0:
				m.lacks = 1 + peerLacks
			}
			m.Why = append(ports, peers...)
			found = append(found, m)
		}
	}
	slices.SortStableFunc(found, func(a, b ranked) int { return cmp.Compare(a.lacks, b.lacks) })
	var out []Miss
	for _, m := range found {
		if m.lacks >= 10 && len(out) > 0 || len(out) == mostMisses {
			break
		}
		out = append(out, m.Miss)
	}
	return out
}

// whyNotPeers is empty where a peer matches; else it has the reasons for each peer, and how many the nearest lacks.
func whyNotPeers(e *model.Evaluator, namespace string, peers []networkingv1.NetworkPolicyPeer, addr netip.Addr) (why []string, lacks int) {
	if len(peers) == 0 {
		return nil, 0
	}
	for i := range peers {
		reasons := whyNotPeer(e, namespace, &peers[i], addr)
		if len(reasons) == 0 {
			return nil, 0
		}
		if i == 0 || len(reasons) < lacks {
			lacks = len(reasons)
		}
		why = append(why, strings.Join(reasons, ", and "))
	}
	return why, lacks
}

func whyNotPeer(e *model.Evaluator, namespace string, peer *networkingv1.NetworkPolicyPeer, addr netip.Addr) []string {
	pod := e.PodAt(addr)
	var namespaceLabels map[string]string
	if pod != nil {
		if ns := e.Namespace(pod.Namespace); ns != nil {
			namespaceLabels = ns.Labels
		}
		if netpol.NewPeerMatcher(namespace, peer).Matches(addr, &pod.Pod, namespaceLabels) {
			return nil
		}
	} else if netpol.NewPeerMatcher(namespace, peer).Matches(addr, nil, nil) {
		return nil
	}
	if peer.IPBlock != nil {
		return []string{whyNotBlock(peer.IPBlock, addr)}
	}
	if pod == nil {
		if host := e.OnHost(addr); host != nil {
			return []string{fmt.Sprintf("host network: no selector matches pod %s; use an ipBlock of the nodes", host.Key())}
		}
		return []string{fmt.Sprintf("the peer selects pods, and %s is not a pod's address (a node's, or outside the cluster): only an ipBlock can match it", addr)}
	}
	var why []string
	if peer.NamespaceSelector != nil {
		for _, lack := range unmet(peer.NamespaceSelector, namespaceLabels) {
			why = append(why, fmt.Sprintf("namespace %s %s", pod.Namespace, lack))
		}
	} else if pod.Namespace != namespace {
		why = append(why, fmt.Sprintf("a podSelector without a namespaceSelector selects pods of the policy's own namespace, %s; %s is in %s: add a namespaceSelector to the same peer", namespace, pod.Name, pod.Namespace))
	}
	if peer.PodSelector != nil {
		for _, lack := range unmet(peer.PodSelector, pod.Labels) {
			why = append(why, fmt.Sprintf("pod %s %s", pod.Key(), lack))
		}
	}
	return why
}

func whyNotBlock(block *networkingv1.IPBlock, addr netip.Addr) string {
	whole := &networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: block.CIDR}}
	if !netpol.NewPeerMatcher("", whole).Matches(addr, nil, nil) {
		return fmt.Sprintf("%s is not in ipBlock %s", addr, block.CIDR)
	}
	for _, except := range block.Except {
		part := &networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: except}}
		if netpol.NewPeerMatcher("", part).Matches(addr, nil, nil) {
			return fmt.Sprintf("%s is in ipBlock %s, and in its except %s", addr, block.CIDR, except)
		}
	}
	return fmt.Sprintf("%s is not in ipBlock %s", addr, block.CIDR)
}

// unmet lists the requirements of a selector that labels do not meet.
func unmet(selector *metav1.LabelSelector, set map[string]string) []string {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return []string{"is compared with an invalid selector: " + err.Error()}
	}
	requirements, _ := s.Requirements()
	var out []string
	for _, r := range requirements {
		if r.Matches(labels.Set(set)) {
			continue
		}
		value, has := set[r.Key()]
		wanted := strings.Join(r.ValuesUnsorted(), "|")
		switch r.Operator() {
		case selection.DoesNotExist:
			out = append(out, fmt.Sprintf("has label %s, which must be absent", r.Key()))
		case selection.NotIn, selection.NotEquals:
			out = append(out, fmt.Sprintf("has label %s=%s, which is excluded", r.Key(), value))
		case selection.Exists:
			out = append(out, fmt.Sprintf("has no label %s", r.Key()))
		default:
			if has {
				out = append(out, fmt.Sprintf("has label %s=%s, not %s", r.Key(), value, wanted))
			} else {
				out = append(out, fmt.Sprintf("has no label %s=%s", r.Key(), wanted))
			}
		}
	}
	return out
}

// whyNotPorts is empty where a port matches.
func whyNotPorts(target *model.Pod, ports []networkingv1.NetworkPolicyPort, f policy.Flow) []string {
	var allowed []string
	for i := range ports {
		if matchesPort(target, ports[i:i+1], f) {
			return nil
		}
		allowed = append(allowed, portText(&ports[i], target))
	}
	if len(allowed) == 0 {
		return nil
	}
	asked := fmt.Sprintf("%s %d", f.Protocol, f.Port)
	if f.Port == 0 {
		asked = "a port that no rule names"
	}
	return []string{fmt.Sprintf("rule allows %s; you asked about %s", shortList(allowed), asked)}
}

// takenForService finds ports that are a Service's, where the flow is to the port that it sends to.
func takenForService(e *model.Evaluator, ports []networkingv1.NetworkPolicyPort, f policy.Flow) []string {
	target := e.PodAt(f.Destination)
	if target == nil || len(ports) == 0 || matchesPort(target, ports, f) {
		return nil
	}
	var out []string
	for _, p := range ports {
		if p.Port == nil || p.Port.StrVal != "" || policy.ProtocolOf(p.Protocol) != f.Protocol {
			continue
		}
		number := uint16(p.Port.IntVal)
		if m := e.Cluster().Mistaken(target, policy.PortRange{Protocol: f.Protocol, First: number, Last: number}); m != nil && m.Target == f.Port {
			out = append(out, fmt.Sprintf("%s; policies apply to the pods' port, %d", m, m.Target))
		}
	}
	return out
}

func matchesPort(target *model.Pod, ports []networkingv1.NetworkPolicyPort, f policy.Flow) bool {
	if target == nil {
		return netpol.MatchesPorts(ports, nil, f)
	}
	return netpol.MatchesPorts(ports, &target.Pod, f)
}

func portText(p *networkingv1.NetworkPolicyPort, target *model.Pod) string {
	protocol := policy.ProtocolOf(p.Protocol)
	switch {
	case p.Port == nil:
		return fmt.Sprintf("every port of %s", protocol)
	case p.Port.StrVal != "":
		var numbers []string
		if target != nil {
			for _, n := range policy.ContainerPorts(&target.Pod) {
				if n.Name == p.Port.StrVal && n.Protocol == protocol {
					numbers = append(numbers, fmt.Sprint(n.Port))
				}
			}
		}
		if len(numbers) == 0 {
			return fmt.Sprintf("%s port named %q (which no container of the destination has)", protocol, p.Port.StrVal)
		}
		return fmt.Sprintf("%s %s (named %q)", protocol, strings.Join(numbers, "|"), p.Port.StrVal)
	case p.EndPort != nil:
		return fmt.Sprintf("%s %d-%d", protocol, p.Port.IntVal, *p.EndPort)
	}
	return fmt.Sprintf("%s %d", protocol, p.Port.IntVal)
}
