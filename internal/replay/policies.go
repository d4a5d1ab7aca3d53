package replay

import (
	"maps"
	"net/netip"
	"slices"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// Policies are all policies of a cluster at one time.
type Policies struct {
	NetworkPolicies []networkingv1.NetworkPolicy `json:"networkPolicies,omitempty"`
	ClusterPolicies []cnp.ClusterNetworkPolicy   `json:"clusterNetworkPolicies,omitempty"`
	EnforceAudited  bool                         `json:"-"` // as if no policy were audited
	byNamespace     map[string][]networkingv1.NetworkPolicy
}

// With is the policies, with others added. Those of the same name are replaced.
func (p Policies) With(others Policies) Policies {
	p.NetworkPolicies = slices.DeleteFunc(slices.Clone(p.NetworkPolicies), func(old networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(others.NetworkPolicies, func(np networkingv1.NetworkPolicy) bool { return old.Namespace == np.Namespace && old.Name == np.Name })
	})
	p.ClusterPolicies = slices.DeleteFunc(slices.Clone(p.ClusterPolicies), func(old cnp.ClusterNetworkPolicy) bool {
		return slices.ContainsFunc(others.ClusterPolicies, func(c cnp.ClusterNetworkPolicy) bool { return old.Name == c.Name })
	})
	p.NetworkPolicies = append(p.NetworkPolicies, others.NetworkPolicies...)
	p.ClusterPolicies = append(p.ClusterPolicies, others.ClusterPolicies...)
	return p
}

// HasAudited reports whether a label puts one of the policies under audit.
func (p *Policies) HasAudited() bool {
	return slices.ContainsFunc(p.NetworkPolicies, func(np networkingv1.NetworkPolicy) bool { return policy.IsLabelledAudit(np.Labels) }) ||
		slices.ContainsFunc(p.ClusterPolicies, func(c cnp.ClusterNetworkPolicy) bool { return policy.IsLabelledAudit(c.Labels) })
}

// index returns the policies that decide, with those of each namespace at hand.
func (p Policies) index() *Policies {
	decides := func(labels map[string]string) bool { return p.EnforceAudited || !policy.IsLabelledAudit(labels) }
	out := &Policies{EnforceAudited: p.EnforceAudited, byNamespace: map[string][]networkingv1.NetworkPolicy{}}
	for i := range p.NetworkPolicies {
		if np := &p.NetworkPolicies[i]; decides(np.Labels) {
			out.NetworkPolicies = append(out.NetworkPolicies, *np)
			out.byNamespace[np.Namespace] = append(out.byNamespace[np.Namespace], *np)
		}
	}
	for i := range p.ClusterPolicies {
		if decides(p.ClusterPolicies[i].Labels) {
			out.ClusterPolicies = append(out.ClusterPolicies, p.ClusterPolicies[i])
		}
	}
	return out
}

// sameIn reports whether two indexed sets decide alike about pods of a namespace. It may report false although they do.
func (p *Policies) sameIn(namespace string, q *Policies) bool {
	return equality.Semantic.DeepEqual(contents(p.byNamespace[namespace]), contents(q.byNamespace[namespace]))
}

// content is what decides of a NetworkPolicy. Names are by rule, those of an ApplicationNetworkPolicy.
type content struct {
	Spec  networkingv1.NetworkPolicySpec
	Names [][]string
}

// contents of a namespace's policies by name.
func contents(policies []networkingv1.NetworkPolicy) map[string]content {
	out := map[string]content{}
	for i := range policies {
		is := content{Spec: policies[i].Spec}
		for rule := range is.Spec.Egress {
			is.Names = append(is.Names, application.DomainNames(&policies[i], rule))
		}
		out[policies[i].Name] = is
	}
	return out
}

// sameCluster reports whether two indexed sets have the same ClusterNetworkPolicies.
func (p *Policies) sameCluster(q *Policies) bool {
	specs := func(policies []cnp.ClusterNetworkPolicy) map[string]cnp.ClusterNetworkPolicySpec {
		out := map[string]cnp.ClusterNetworkPolicySpec{}
		for i := range policies {
			out[policies[i].Name] = policies[i].Spec
		}
		return out
	}
	return equality.Semantic.DeepEqual(specs(p.ClusterPolicies), specs(q.ClusterPolicies))
}

// features are what policies can tell ends of flows apart by.
type features struct {
	labels, namespaceLabels []string
	blocks                  []netip.Prefix
	// names are patterns of domain names in canonical form.
	names []string
	// starts are the first addresses of the ranges into which blocks cut the address space, of IPv4 and IPv6.
	starts [2][]netip.Addr
	// namedPorts and nodes: some rule has a named port, or selects nodes.
	namedPorts, nodes bool
}

// featuresOf sets of policies, and of nodes, whose addresses count as blocks.
func featuresOf(nodes []corev1.Node, sets ...*Policies) *features {
	c := &collector{labels: map[string]bool{}, namespaceLabels: map[string]bool{}, blocks: map[netip.Prefix]bool{}, names: map[string]bool{}}
	for _, s := range sets {
		for i := range s.NetworkPolicies {
			c.networkPolicy(&s.NetworkPolicies[i])
		}
		for i := range s.ClusterPolicies {
			c.clusterPolicy(&s.ClusterPolicies[i])
		}
	}
	for i := range nodes {
		for _, a := range addressesOf(&nodes[i]) {
			c.blocks[netip.PrefixFrom(a, a.BitLen())] = true
		}
	}
	c.out.labels = slices.Sorted(maps.Keys(c.labels))
	c.out.namespaceLabels = slices.Sorted(maps.Keys(c.namespaceLabels))
	c.out.names = slices.Sorted(maps.Keys(c.names))
	c.out.blocks = slices.SortedFunc(maps.Keys(c.blocks), netip.Prefix.Compare)
	c.out.findStarts()
	return &c.out
}

// addressesOf a node that are IP addresses.
func addressesOf(n *corev1.Node) (out []netip.Addr) {
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

func (f *features) findStarts() {
	starts := map[netip.Addr]bool{netip.AddrFrom4([4]byte{1}): true, netip.MustParseAddr("2000::"): true}
	for _, b := range f.blocks {
		starts[b.Addr()] = true
		if next := netipx.PrefixLastIP(b).Next(); next.IsValid() {
			starts[next] = true
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(starts), netip.Addr.Compare) {
		f.starts[familyOf(a)] = append(f.starts[familyOf(a)], a)
	}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// collector gathers features.
type collector struct {
	out                     features
	labels, namespaceLabels map[string]bool
	blocks                  map[netip.Prefix]bool
	names                   map[string]bool
}

func keysOf(s *metav1.LabelSelector, into map[string]bool) {
	if s == nil {
		return
	}
	for key := range s.MatchLabels {
		into[key] = true
	}
	for _, e := range s.MatchExpressions {
		into[e.Key] = true
	}
}

func (c *collector) block(text string) {
	_, n, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 128 && addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	c.blocks[netip.PrefixFrom(addr, bits).Masked()] = true
}

func (c *collector) networkPolicy(np *networkingv1.NetworkPolicy) {
	keysOf(&np.Spec.PodSelector, c.labels)
	for rule := range np.Spec.Egress {
		for _, n := range application.DomainNames(np, rule) {
			if name, err := policy.CanonicalDomainName(n); err == nil {
				c.names[name] = true
			}
		}
	}
	for _, d := range policy.Directions {
		for _, r := range netpol.Rules(d, np) {
			for _, p := range r.Peers {
				keysOf(p.PodSelector, c.labels)
				keysOf(p.NamespaceSelector, c.namespaceLabels)
				if p.IPBlock != nil {
					c.block(p.IPBlock.CIDR)
					for _, e := range p.IPBlock.Except {
						c.block(e)
					}
				}
			}
			for _, p := range r.Ports {
				c.out.namedPorts = c.out.namedPorts || p.Port != nil && p.Port.StrVal != ""
			}
		}
	}
}

func (c *collector) clusterPolicy(p *cnp.ClusterNetworkPolicy) {
	keysOf(p.Spec.Subject.Namespaces, c.namespaceLabels)
	c.namespacedPod(p.Spec.Subject.Pods)
	for _, r := range p.Spec.Ingress {
		for _, peer := range r.From {
			keysOf(peer.Namespaces, c.namespaceLabels)
			c.namespacedPod(peer.Pods)
		}
		c.protocols(r.Protocols)
	}
	for _, r := range p.Spec.Egress {
		for _, peer := range r.To {
			keysOf(peer.Namespaces, c.namespaceLabels)
			c.namespacedPod(peer.Pods)
			c.out.nodes = c.out.nodes || peer.Nodes != nil
			for _, n := range peer.Networks {
				c.block(string(n))
			}
			for _, n := range peer.DomainNames {
				if name, err := policy.CanonicalDomainName(string(n)); err == nil {
					c.names[name] = true
				}
			}
		}
		c.protocols(r.Protocols)
	}
}

func (c *collector) namespacedPod(p *cnp.NamespacedPod) {
	if p != nil {
		keysOf(&p.NamespaceSelector, c.namespaceLabels)
		keysOf(&p.PodSelector, c.labels)
	}
}

func (c *collector) protocols(list []cnp.ClusterNetworkPolicyProtocol) {
	for _, p := range list {
		c.out.namedPorts = c.out.namedPorts || p.DestinationNamedPort != ""
	}
}
