package aws

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
	"github.com/kidoban/kidoban/internal/policy"
)

// Differences are the flows that the ClusterNetworkPolicies decide one way as they are written and another way as Amazon's agent evaluates
// them: Deny before Accept before Pass within a policy.
func (s *Set) Differences(ctx context.Context) (*clusterproof.Report, error) {
	terms, err := tiered.Terms(s.Policies)
	if err != nil {
		return nil, err
	}
	written := tiered.Sorted(s.Policies)
	return clusterproof.Compare(ctx, terms, &tiered.Judge{Policies: written}, &tiered.Judge{Policies: tiered.DenyFirst(written)})
}

// Findings are what else is different with kidoban.
func (s *Set) Findings() (out []migrate.Problem) {
	for i := range s.Policies {
		p := &s.Policies[i]
		if s.ClusterPolicies[p.Name] {
			out = append(out, migrate.Problem{
				Object: p.String(), Problem: "upstream's ClusterNetworkPolicy of the same name is another object: the plural and the short name do not tell them apart",
				Fix: "ask for clusternetworkpolicies.policy.networking.k8s.io " + p.Name + " or clusternetworkpolicies." + Group + " " + p.Name,
			})
		}
		for j, r := range p.Rules[policy.Egress] {
			for k, peer := range r.Peers {
				for _, n := range peer.Networks {
					field := fmt.Sprintf("spec.egress[%d].to[%d].networks", j, k)
					out = append(out, s.ofNetwork(p.String(), field, string(n))...)
				}
			}
		}
	}
	for i := range s.Applications {
		a := &s.Applications[i]
		if slices.ContainsFunc(s.NetworkPolicies, func(np networkingv1.NetworkPolicy) bool { return np.Namespace == a.Namespace && np.Name == a.Name }) {
			out = append(out, migrate.Problem{
				Object: a.String(), Problem: "a NetworkPolicy has the same name: they are two policies, and both are in force",
			})
		}
		for j, r := range a.Spec.Egress {
			for k, peer := range r.To {
				if peer.IPBlock != nil {
					out = append(out, s.ofBlock(a, fmt.Sprintf("spec.egress[%d].to[%d].ipBlock", j, k), peer.IPBlock.CIDR, r.Ports)...)
				}
			}
		}
	}
	return out
}

// ofNetwork are findings about a network of a ClusterNetworkPolicy.
func (s *Set) ofNetwork(object, field, network string) (out []migrate.Problem) {
	block, err := netip.ParsePrefix(network)
	if err != nil {
		return nil
	}
	if name := s.service(block); name != "" {
		out = append(out, migrate.Problem{
			Object: object, Field: field, Problem: fmt.Sprintf("%s is the address of Service %s: kidoban evaluates the address behind the Service, so that this network matches nothing", network, name),
			Fix: "select the pods behind the Service",
		})
	}
	if !block.IsSingleIP() {
		return out
	}
	for i := range s.Nodes {
		if slices.ContainsFunc(s.Nodes[i].Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == block.Addr().String() }) {
			return append(out, migrate.Problem{
				Object: object, Field: field, Problem: fmt.Sprintf("%s is an address of node %s: Amazon's agent skips the rule on that node, kidoban evaluates it", network, s.Nodes[i].Name),
				Fix: "decide whether pods of that node may reach it",
			})
		}
	}
	if len(s.Nodes) == 0 {
		out = append(out, migrate.Problem{
			Object: object, Field: field, Problem: fmt.Sprintf("if %s is an address of a node, Amazon's agent skips the rule on that node, and kidoban evaluates it", network), Fix: "give the Node objects too",
		})
	}
	return out
}

// service that has an address as its own in a network of one address.
func (s *Set) service(block netip.Prefix) string {
	if !block.IsSingleIP() {
		return ""
	}
	for i := range s.Services {
		svc := &s.Services[i]
		if slices.Contains(append(svc.Spec.ClusterIPs, svc.Spec.ClusterIP), block.Addr().String()) {
			return svc.Namespace + "/" + svc.Name
		}
	}
	return ""
}

// ofBlock are findings about a block of an ApplicationNetworkPolicy: users write the DNS Service's address there.
func (s *Set) ofBlock(a *Application, field, cidr string, ports []networkingv1.NetworkPolicyPort) []migrate.Problem {
	block, err := netip.ParsePrefix(cidr)
	if err != nil || !block.IsSingleIP() {
		return nil
	}
	isDNS := slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.IntVal == 53 })
	name := s.service(block)
	if name == "" && (!isDNS || len(s.Services) > 0) {
		return nil
	}
	p := migrate.Problem{Object: a.String(), Field: field, Problem: fmt.Sprintf("%s is the address of Service %s", cidr, name), Fix: "select the pods behind the Service"}
	if name == "" {
		p.Problem = cidr + " with port 53 is probably the address of the DNS Service"
	}
	p.Problem += ": kidoban evaluates the address behind the Service, so that this rule matches nothing"
	if isDNS {
		p.Problem += ", and DNS is denied"
		p.Fix = "select the DNS pods, as namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}} with podSelector: {matchLabels: {k8s-app: kube-dns}}; where DNS runs on the nodes (EKS Auto Mode), allow the nodes' addresses"
	}
	return []migrate.Problem{p}
}

// Objects counts what was read, by kind.
func (s *Set) Objects() string {
	return strings.Join([]string{fmt.Sprintf("%d %s", len(s.Policies), Kind), fmt.Sprintf("%d %s", len(s.Applications), KindApplication)}, ", ")
}
