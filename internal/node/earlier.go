package node

import (
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// Unselected returns the namespaces, sorted, of the pods that an earlier agent isolated in a direction in which no policy selects them now.
// isolated is by address and direction.
func (n *Node) Unselected(isolated map[netip.Addr][2]bool) []string {
	var out []string
	for key, p := range n.pods {
		var selected [2]bool
		for _, e := range n.endpointsOf(key, p) {
			for _, d := range policy.Directions {
				selected[d] = selected[d] || e.active.policy.Isolates[d]
			}
		}
		for _, addr := range p.addresses {
			was := isolated[addr]
			if was[policy.Ingress] && !selected[policy.Ingress] || was[policy.Egress] && !selected[policy.Egress] {
				out = append(out, key.Namespace)
				break
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// PolicyUIDs are those of the policies of which the node has seen a PolicyEndpoint or ClusterPolicyEndpoint.
func (n *Node) PolicyUIDs() map[string]bool {
	out := map[string]bool{}
	for _, e := range n.policies {
		for _, v := range []*version{e.active, e.waiting} {
			if v != nil {
				out[v.policy.ID.UID] = true
			}
		}
	}
	return out
}
