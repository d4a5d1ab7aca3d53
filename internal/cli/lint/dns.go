package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// dnsNamespaces hold the cluster's DNS servers.
var dnsNamespaces = []string{"kube-system", "openshift-dns"}

// metadata is the address of clouds' metadata services, which rules without ports name for that.
var metadata = netip.MustParseAddr("169.254.169.254")

// linkLocal are addresses of the pod's own node.
var linkLocal = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}

// dns are the cluster's DNS servers with the port on which their pods listen, as far as they are known.
func (l *linter) dns() (out []netip.AddrPort) {
	for i := range l.cluster.Services {
		s := &l.cluster.Services[i]
		if !slices.Contains(dnsNamespaces, s.Namespace) {
			continue
		}
		for j := range s.Spec.Ports {
			if p := &s.Spec.Ports[j]; p.Port == 53 && policy.ProtocolOf(&p.Protocol) == policy.UDP {
				for _, b := range l.cluster.Backends(s, p) {
					out = append(out, b.Address)
				}
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, p := range l.podsWhere(func(p *pod) bool {
		return p.isPeer && (p.Labels["k8s-app"] == "kube-dns" || p.Labels["app.kubernetes.io/name"] == "coredns" || p.Labels["dns.operator.openshift.io/daemonset-dns"] != "")
	}) {
		port := uint16(53)
		for _, n := range policy.ContainerPorts(&p.Pod) {
			if n.Protocol == policy.UDP && (n.Name == "dns" || n.Name == "dns-udp") {
				port = n.Port
			}
		}
		for _, a := range policy.PodAddresses(&p.Pod) {
			out = append(out, netip.AddrPortFrom(a, port))
		}
	}
	return out
}

// hasNodeCache reports whether the nodes have a DNS cache of their own.
func (l *linter) hasNodeCache() bool {
	return len(l.podsWhere(func(p *pod) bool {
		return p.Spec.HostNetwork && (p.Labels["k8s-app"] == "node-local-dns" || strings.Contains(p.Workload.Name, "node-local-dns") || strings.Contains(p.Workload.Name, "nodelocaldns"))
	})) > 0
}

// answer to the question whether a pod may ask DNS.
type answer struct {
	allowed bool
	// depends on the server's address, which is not known: denied for these.
	depends []model.Part
	// port on which the servers listen, where a rule allows their Service's port alone.
	port uint16
	// reason in words, where there is more to say.
	reason string
}

func (l *linter) dnsForgotten() {
	servers, cached := l.dns(), l.hasNodeCache()
	seen := map[model.Workload]bool{}
	for i := range l.pods {
		p := &l.pods[i]
		if !p.isPeer || seen[p.Workload] || p.Spec.DNSPolicy == corev1.DNSDefault {
			continue
		}
		seen[p.Workload] = true
		a := l.mayAskDNS(p.Pod, servers)
		if a.allowed {
			continue
		}
		source := p.addresses[0]
		v := l.evaluator.Evaluate(policy.Egress, policy.Flow{Source: source, Destination: netip.IPv4Unspecified(), Protocol: policy.UDP, Port: 53})
		if len(v.Isolating) == 0 {
			continue
		}
		l.reportDNS(v.Isolating, p.Workload, a, cached)
	}
}

func (l *linter) reportDNS(isolating []*networkingv1.NetworkPolicy, w model.Workload, a answer, cached bool) {
	np := isolating[0]
	const allow = "Add a policy that allows egress to port 53, UDP and TCP, of pods k8s-app=kube-dns in namespace kube-system."
	switch {
	case l.silent(isolating):
		l.found(Info, object(np), "spec.egress", "Nothing, if the pods resolve no names.", "%s %s may open no connection at all, not to DNS either", w.Kind, w)
	case cached:
		l.found(Info, object(np), "spec.egress", allow, "%s %s may ask DNS at its own node's cache only, which no policy applies to here; other engines may deny that", w.Kind, w)
	case a.port != 0:
		l.found(Warning, object(np), "spec.egress", fmt.Sprintf("Allow port %d, UDP and TCP, of the DNS pods.", a.port),
			"%s %s may not ask DNS: the DNS pods listen on %d, and policies see the pods' port, not the Service's port 53", w.Kind, w, a.port)
	case len(a.depends) > 0:
		l.found(Warning, object(np), "spec.egress", allow+" Or give --pod-cidr, if the DNS pods have other addresses.",
			"%s %s may not ask DNS if the DNS pods have addresses of %s, as in most clusters: names will not resolve", w.Kind, w, parts(a.depends))
	default:
		l.found(Warning, object(np), "spec.egress", allow, "%s %s is isolated in egress and may not ask DNS: names will not resolve%s", w.Kind, w, a.reason)
	}
}

func parts(list []model.Part) string {
	names := map[string]bool{}
	for _, p := range list {
		names[p.String()] = true
	}
	return some(names)
}

// silent: the policies have no egress rule at all, so that the pod is meant to open no connection.
func (l *linter) silent(isolating []*networkingv1.NetworkPolicy) bool {
	return !slices.ContainsFunc(isolating, func(np *networkingv1.NetworkPolicy) bool { return len(np.Spec.Egress) > 0 })
}

func (l *linter) mayAskDNS(p *model.Pod, servers []netip.AddrPort) answer {
	sources := policy.PodAddresses(&p.Pod)
	own := ownServers(p)
	if len(own) > 0 {
		servers = own
	}
	out := answer{}
	known := false // a server of the pod's families
	for _, source := range sources {
		if slices.ContainsFunc(linkLocal, func(n netip.Prefix) bool { return l.allowsBlock(source, n) }) {
			return answer{allowed: true}
		}
		for _, s := range servers {
			if s.Addr().Is4() != source.Is4() {
				continue
			}
			known = true
			f := policy.Flow{Source: source, Destination: s.Addr(), Protocol: policy.UDP, Port: s.Port()}
			all, denied := l.judge(f)
			if all {
				return answer{allowed: true}
			}
			out.depends = denied
			if f.Port = 53; s.Port() != 53 {
				if all, _ := l.judge(f); all {
					out.port = s.Port()
				}
			}
		}
	}
	if known {
		return out
	}
	for _, source := range sources {
		if l.ruleForDNS(source) {
			return answer{allowed: true}
		}
		if v := l.evaluator.Evaluate(policy.Egress, outside(source)); v.Allowed() {
			out.reason = fmt.Sprintf(" (%s allows addresses outside the private ranges alone, and the cluster's DNS servers have private ones)", object(v.Policy))
		}
	}
	return out
}

// ownServers are the nameservers that a pod gives itself, in place of the cluster's.
func ownServers(p *model.Pod) (out []netip.AddrPort) {
	if p.Spec.DNSConfig == nil || p.Spec.DNSPolicy != corev1.DNSNone {
		return nil
	}
	for _, text := range p.Spec.DNSConfig.Nameservers {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.AddrPortFrom(a.Unmap(), 53))
		}
	}
	return out
}

// judge reports whether egress allows a flow to every address that its destination may have, and otherwise for which it is denied, where others
// are allowed.
func (l *linter) judge(f policy.Flow) (all bool, denied []model.Part) {
	all, some := true, false
	for _, a := range l.evaluator.Judge(policy.Egress, f) {
		all, some = all && a.Allowed(), some || a.Allowed()
		if !a.Allowed() {
			denied = append(denied, a.Parts...)
		}
	}
	if !some {
		denied = nil
	}
	return all, denied
}

// allowsBlock reports whether a rule names a block within this one, for UDP port 53.
func (l *linter) allowsBlock(source netip.Addr, within netip.Prefix) bool {
	return l.eachEgressRule(source, func(r *networkingv1.NetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(r.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			if peer.IPBlock == nil {
				return false
			}
			p, err := netip.ParsePrefix(peer.IPBlock.CIDR)
			return err == nil && p.Bits() >= within.Bits() && within.Contains(p.Addr()) && (len(r.Ports) > 0 || p.Addr() != metadata)
		})
	})
}

// eachEgressRule reports whether one of the rules that apply to an address and allow UDP port 53 is as wanted.
func (l *linter) eachEgressRule(source netip.Addr, wanted func(*networkingv1.NetworkPolicyEgressRule) bool) bool {
	f := outside(source)
	for _, np := range l.evaluator.Evaluate(policy.Egress, f).Isolating {
		for i := range np.Spec.Egress {
			if r := &np.Spec.Egress[i]; netpol.MatchesPorts(r.Ports, nil, f) && wanted(r) {
				return true
			}
		}
	}
	return false
}

// outside is a question to a DNS server outside the cluster.
func outside(source netip.Addr) policy.Flow {
	to := netip.MustParseAddr("192.0.2.1")
	if source.Is6() {
		to = netip.MustParseAddr("2001:db8::1")
	}
	return policy.Flow{Source: source, Destination: to, Protocol: policy.UDP, Port: 53}
}

// ruleForDNS: where the servers are not known, an egress rule with UDP port 53 will do, and one for all ports to pods or to private addresses.
func (l *linter) ruleForDNS(source netip.Addr) bool {
	if len(l.evaluator.Evaluate(policy.Egress, outside(source)).Isolating) == 0 {
		return true
	}
	return l.eachEgressRule(source, func(r *networkingv1.NetworkPolicyEgressRule) bool {
		if len(r.Ports) > 0 || len(r.To) == 0 {
			return true
		}
		return slices.ContainsFunc(r.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			return peer.IPBlock == nil || len(l.uncovered(peer.IPBlock)) > 0
		})
	})
}
