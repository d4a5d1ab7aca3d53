package resolver

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterPolicyKind is the kind of cluster-wide policies that this package resolves.
const clusterPolicyKind = "ClusterNetworkPolicy"

// renderedCluster is a ClusterNetworkPolicy in the form of the API. A group that is used twice is in groups twice.
type renderedCluster struct {
	spec     *v1alpha1.ClusterPolicyEndpointSpec
	groups   []groupRef
	problems []Problem
}

// renderCluster renders a ClusterNetworkPolicy. What it says by itself always fits (25 rules of 25 peers or 625 networks). Numbers
// of port names are chosen by tenants, so as many of them are left out as do not fit.
func (r *renderer) renderCluster(np *cnp.ClusterNetworkPolicy, n *normalizedCluster) renderedCluster {
	var out renderedCluster
	for _, r.mostNumbers = range numbersOfName {
		spec := &v1alpha1.ClusterPolicyEndpointSpec{
			PolicyRef:   v1alpha1.PolicyReference{Kind: clusterPolicyKind, Name: np.Name, UID: np.UID, Generation: np.Generation},
			Tier:        v1alpha1.Tier(np.Spec.Tier),
			Priority:    np.Spec.Priority,
			Enforcement: enforcementOf(np.Labels),
			Subject:     n.subject,
		}
		names := rendered{problems: slices.Clone(n.problems)}
		spec.Ingress = r.clusterRules("spec.ingress", n.rules[policy.Ingress], &names)
		spec.Egress = r.clusterRules("spec.egress", n.rules[policy.Egress], &names)
		out = renderedCluster{spec, names.groups, sortProblems(names.problems)}
		if len(spec.Ingress) <= v1alpha1.MaxRules && len(spec.Egress) <= v1alpha1.MaxRules {
			break
		}
	}
	return out
}

// IsolatesCluster reports whether one spec decides about the pods of another, in the same place of the order, or audits them as the other does.
func IsolatesCluster(spec, other *v1alpha1.ClusterPolicyEndpointSpec) bool {
	return isAudited(spec.Enforcement) == isAudited(other.Enforcement) && spec.Tier == other.Tier && spec.Priority == other.Priority && equality.Semantic.DeepEqual(spec.Subject, other.Subject)
}

// Isolating returns the endpoint with all of its rules closed: Accept matches nothing, and Deny and Pass deny everything.
func (e *ClusterEndpoint) Isolating() *ClusterEndpoint {
	out, spec := *e, *e.Spec
	spec.Ingress, spec.Egress = closed(spec.Ingress), closed(spec.Egress)
	out.Spec, out.Groups = &spec, nil
	return &out
}

// closed returns the rule that is left if all rules of a direction are closed, if any.
func closed(rules []v1alpha1.Rule) []v1alpha1.Rule {
	for _, r := range rules {
		if r.Action != v1alpha1.ActionAccept {
			return []v1alpha1.Rule{{Name: r.Name, Action: v1alpha1.ActionDeny, RuleIndexes: r.RuleIndexes}}
		}
	}
	return nil
}

// clusterRules renders rules in their order. One rule becomes several with its action: one for its numbers, and one for each
// number of a port name, whose peers are the pods that have it.
func (r *renderer) clusterRules(path string, rules []clusterRule, out *rendered) (list []v1alpha1.Rule) {
	for i := range rules {
		in := &rules[i]
		first, collisions := len(list), out.collisions
		rule := v1alpha1.Rule{Name: in.name, Action: in.action, RuleIndexes: []int32{in.index}, Ports: in.ports.api()}
		switch {
		case in.peers[0].everyone:
			list = append(list, rule)
		case in.ports.everything || len(in.ports.ranges) > 0:
			list = append(list, inChunks(rule, r.clusterPeers(in.peers, out))...)
		}
		for _, name := range in.names {
			named := r.namedPeers(fmt.Sprintf("%s[%d]", path, in.index), in.peers, name, out)
			if len(named) == 0 {
				out.problem(v1alpha1.ReasonUnresolvedNamedPort, "%s[%d].protocols: no pod among the peers has a port %q", path, in.index, name)
			}
			for _, n := range named {
				rule.Ports = (&portSet{ranges: []policy.PortRange{{Protocol: n.protocol, First: n.number, Last: n.number}}}).api()
				list = append(list, inChunks(rule, n.peers)...)
			}
		}
		if out.collisions > collisions && in.action != v1alpha1.ActionAccept { // closed, because a part of it is missing
			list = append(list[:first], v1alpha1.Rule{Name: in.name, Action: v1alpha1.ActionDeny, RuleIndexes: []int32{in.index}})
		}
	}
	return list
}

// inChunks makes as many rules as the peers need.
func inChunks(rule v1alpha1.Rule, peers []v1alpha1.Peer) (out []v1alpha1.Rule) {
	slices.SortFunc(peers, comparePeers)
	for chunk := range slices.Chunk(peers, v1alpha1.MaxPeersPerRule) {
		rule.Peers = chunk
		out = append(out, rule)
	}
	return out
}

// clusterPeers renders peers as groups, names and CIDRs.
func (r *renderer) clusterPeers(peers []peer, out *rendered) (list []v1alpha1.Peer) {
	for _, p := range peers {
		switch {
		case p.pods != nil:
			list = append(list, r.group(p.pods, nil, out)...)
		case p.names != nil:
			list = append(list, v1alpha1.Peer{DomainNames: p.names})
		default:
			list = append(list, p.block.peers()...)
		}
	}
	return list
}

// namedPeers are the pods among some peers that give a number to a port name.
type namedPeers struct {
	protocol policy.Protocol
	number   uint16
	peers    []v1alpha1.Peer
}

func (r *renderer) namedPeers(path string, peers []peer, name string, out *rendered) (list []namedPeers) {
	for _, protocol := range namedPortProtocols {
		byNumber := map[uint16][]v1alpha1.Peer{}
		for _, p := range peers {
			set := p.namedSet()
			if set == nil {
				continue
			}
			numbers, leftOut := r.numbers(set, portName{protocol, name}).most(r.mostNumbers)
			if leftOut > 0 {
				out.problem(v1alpha1.ReasonUnresolvedNamedPort,
					"%s.protocols: the pods of the peers give %d numbers to a %s, and %d of them are left out: at most %d of one namespace and %d in all",
					path, len(numbers)+leftOut, portName{protocol, name}, leftOut, numbersOfNamespace, r.mostNumbers)
			}
			for _, n := range numbers {
				byNumber[n] = append(byNumber[n], r.group(set, &policy.NamedPort{Protocol: protocol, Name: name, Port: n}, out)...)
			}
		}
		for _, n := range slices.Sorted(maps.Keys(byNumber)) {
			list = append(list, namedPeers{protocol, n, byNumber[n]})
		}
	}
	return list
}

// namedSet returns the pods among a peer whose named ports count: the pods that it selects, or those with an address in its
// block; nil for nodes and for DNS names, which name no ports.
func (p *peer) namedSet() *podSet {
	switch {
	case p.names != nil:
		return nil
	case p.pods == nil:
		return &podSet{namespaces: &selector{}, within: &p.block}
	case p.pods.nodes:
		return nil
	}
	return p.pods
}
