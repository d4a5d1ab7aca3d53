package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// refusal is a rule of a ClusterNetworkPolicy that denies connections of the system, and for which pods.
type refusal struct {
	direction policy.Direction
	rule      *clusterRule
	pods      map[string]bool
	target    string
}

// refusals collects, by rule, the pods whose connections to some targets are denied by a ClusterNetworkPolicy.
func (l *linter) refusals(sources []*model.Pod, targets []netip.AddrPort, protocol policy.Protocol) (out []*refusal) {
	for _, source := range sources {
		for _, s := range policy.PodAddresses(&source.Pod) {
			for _, to := range targets {
				if s.Is4() != to.Addr().Is4() || s == to.Addr() {
					continue
				}
				for _, d := range policy.Directions {
					rule := model.DenyingRule(l.evaluator.Decide(d, policy.Flow{Source: s, Destination: to.Addr(), Protocol: protocol, Port: to.Port()}))
					if rule == nil {
						continue
					}
					k := slices.IndexFunc(out, func(r *refusal) bool {
						return r.direction == d && r.rule.of.Name == rule.Policy.Name && r.rule.index == rule.Index
					})
					if k < 0 {
						k = len(out)
						r := &clusterRule{model.ClusterRules(d, rule.Policy)[rule.Index], rule.Policy, d, rule.Index}
						target := to.String()
						if pod := l.evaluator.PodAt(to.Addr()); pod != nil {
							target = pod.Key()
						}
						out = append(out, &refusal{d, r, map[string]bool{}, target})
					}
					out[k].pods[source.Key()] = true
				}
			}
		}
	}
	return out
}

func (l *linter) peers() []*model.Pod { return l.podsWhere(func(p *pod) bool { return p.isPeer }) }

// clusterDeniesDNS finds rules that keep pods from asking DNS.
func (l *linter) clusterDeniesDNS() {
	asking := l.podsWhere(func(p *pod) bool { return p.isPeer && !slices.Contains(dnsNamespaces, p.Namespace) })
	for _, r := range l.refusals(asking, l.dns(), policy.UDP) {
		const fix = "Put a rule before it that accepts UDP and TCP port 53 of the DNS pods."
		if r.direction == policy.Ingress {
			l.found(Error, r.rule.object(), r.rule.path(), "Leave the DNS pods out of the subject, or "+strings.ToLower(fix[:1])+fix[1:],
				"the subject includes the DNS pods, such as %s, and the rule denies them the questions of %s: names do not resolve", r.target, some(r.pods))
			continue
		}
		names := ""
		for i, o := range model.ClusterRules(policy.Egress, r.rule.of) {
			if slices.ContainsFunc(o.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool { return len(p.DomainNames) > 0 }) {
				names = ", and the domain names of " + (&clusterRule{o, r.rule.of, policy.Egress, i}).describe() + " can never match"
			}
		}
		l.found(Warning, r.rule.object(), r.rule.path(), fix, "denies the DNS questions of %s: names do not resolve%s", some(r.pods), names)
	}
}

// clusterDeniesSystem finds rules that deny something to pods of kube-system, or connections to them by name.
func (l *linter) clusterDeniesSystem() {
	system := labels.Set{corev1.LabelMetadataName: "kube-system"}
	if ns := l.evaluator.Namespace("kube-system"); ns != nil {
		system = ns.Labels
	}
	l.eachClusterRule(func(r *clusterRule) {
		if !r.isDeny() {
			return
		}
		for i := range r.Peers {
			namespaces := r.Peers[i].Namespaces
			if p := r.Peers[i].Pods; p != nil {
				namespaces = &p.NamespaceSelector
			}
			if r.direction == policy.Ingress || namespaces == nil || len(requirements(namespaces)) == 0 {
				continue
			}
			if s, err := metav1.LabelSelectorAsSelector(namespaces); err == nil && s.Matches(system) {
				l.found(Info, r.object(), fmt.Sprintf("%s[%d]", r.peersPath(), i), "Accept UDP and TCP port 53 of the DNS pods, and what else the pods need there, by a rule before it.",
					"denies connections to kube-system, where most clusters have their DNS pods")
			}
		}
		for _, p := range l.subjects(r.of) {
			if p.Namespace == "kube-system" {
				l.found(Warning, r.object(), "spec.subject", "Leave kube-system out: subject: {namespaces: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}]}}.",
					"the subject includes kube-system, such as pod %s, and %s denies: what the cluster needs to run may stop", p.Key(), r.describe())
				return
			}
		}
	})
}

// clusterDeniesAPIServer finds rules that keep pods from the API server, as far as its addresses are known.
func (l *linter) clusterDeniesAPIServer() {
	for _, r := range l.refusals(l.peers(), l.apiServers(), policy.TCP) {
		l.found(Warning, r.rule.object(), r.rule.path(), "Put a rule before it that accepts the API server's addresses and port, if these pods need it.",
			"denies %s the API server, %s", some(r.pods), r.target)
	}
}

// apiServers are the endpoints of the Service kubernetes, and the pods of kube-apiserver.
func (l *linter) apiServers() (out []netip.AddrPort) {
	for i := range l.cluster.EndpointSlices {
		es := &l.cluster.EndpointSlices[i]
		if es.Namespace != "default" || es.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
			continue
		}
		for _, e := range es.Endpoints {
			for _, text := range e.Addresses {
				for _, p := range es.Ports {
					if addr, err := netip.ParseAddr(text); err == nil && p.Port != nil {
						out = append(out, netip.AddrPortFrom(addr.Unmap(), uint16(*p.Port)))
					}
				}
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, p := range l.podsWhere(func(p *pod) bool { return p.Labels["component"] == "kube-apiserver" && !p.Invented }) {
		for _, a := range policy.PodAddresses(&p.Pod) {
			out = append(out, netip.AddrPortFrom(a, 6443))
		}
	}
	return out
}

// tunnels are labels of pods through which an API server outside the cluster reaches webhooks.
var tunnels = map[string]bool{"konnectivity-agent": true}

// clusterDeniesWebhooks finds rules that keep the API server from webhooks, where it reaches them through pods.
func (l *linter) clusterDeniesWebhooks() {
	agents := l.podsWhere(func(p *pod) bool { return p.isPeer && tunnels[p.Labels["k8s-app"]] })
	var webhooks []netip.AddrPort
	for i := range l.pods {
		p := &l.pods[i]
		if !p.isPeer || !strings.Contains(p.Workload.Name, "webhook") {
			continue
		}
		for _, port := range l.cluster.Ports(p.Pod) {
			for _, a := range p.addresses {
				if port.Protocol == policy.TCP {
					webhooks = append(webhooks, netip.AddrPortFrom(a, port.Number))
				}
			}
		}
	}
	for _, r := range l.refusals(agents, webhooks, policy.TCP) {
		l.found(Error, r.rule.object(), r.rule.path(), "Put a rule before it that accepts connections from these pods to the webhooks.",
			"denies connections from %s to the webhook %s: the API server reaches webhooks through these pods, and rejects what they should admit", some(r.pods), r.target)
	}
}
