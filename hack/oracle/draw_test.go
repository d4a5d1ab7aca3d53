package oracle

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// The edge cases that the comparison is about must go on being drawn, whatever is done to the dice.
func TestTheDiceDrawTheEdges(t *testing.T) {
	const scenarios, atLeast = 1500, 20
	seen := map[string]int{}
	note := func(what string, is bool) {
		seen[what] += 0 // so that it is looked at
		if is {
			seen[what]++
		}
	}
	for i := range uint64(scenarios) {
		d := newDice(99, i)
		s := d.history(d.objects())
		c := s.Cluster()
		noteHistory(note, s)
		for i := range c.Pods {
			notePod(note, &c.Pods[i])
		}
		for i := range c.Policies {
			notePolicy(note, &c.Policies[i])
		}
		for i := range c.ClusterPolicies {
			noteClusterPolicy(note, &c.ClusterPolicies[i])
			for j := range i {
				note("cluster policies of equal priority", c.ClusterPolicies[i].Spec.Priority == c.ClusterPolicies[j].Spec.Priority && c.ClusterPolicies[i].Spec.Tier == c.ClusterPolicies[j].Spec.Tier)
			}
		}
		own := ownNodeOf(c)
		flows := newFlows(d, c)
		for range 20 {
			f := flows.flow()
			source, destination := c.PodAt(f.Source), c.PodAt(f.Destination)
			note("flow between pods", source != nil && destination != nil && source != destination)
			note("flow to itself", source != nil && source == destination)
			note("flow from outside", source == nil && destination != nil)
			note("flow to outside", source != nil && destination == nil)
			note("flow of IPv6", f.Source.Is6())
			for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, policy.ICMPv6, 0, 47, 255} {
				note("flow of "+p.String(), f.Protocol == p)
			}
			for _, d := range policy.Directions {
				_, is := own.of(d, f)
				note("flow with the own node, "+d.String(), is)
			}
			note("flow to TCP port 0", f.Protocol == policy.TCP && f.Port == 0)
		}
	}
	for what, n := range seen {
		if n < atLeast {
			t.Errorf("%s: drawn %d times in %d scenarios", what, n, scenarios)
		}
	}
}

func noteHistory(note func(string, bool), s *Scenario) {
	had := map[string]string{} // which pod had an address last
	before := map[string]*Event{}
	for i := range s.Events {
		e := &s.Events[i]
		for _, do := range []Action{Set, Delete, Stop, Start, Sync, Deliver, Relist, Restart, Late, RunSandbox} {
			note("event: "+string(do), e.Do == do)
		}
		old := before[e.key()]
		before[e.key()] = e
		switch again := old != nil && old.Do == Set && e.Do == Set; {
		case e.Pod != nil:
			for _, a := range policy.PodAddresses(e.Pod) {
				last, taken := had[a.String()]
				note("address that was another pod's", taken && last != e.key() && e.Do == Set && policy.IsPeer(e.Pod))
				had[a.String()] = e.key()
			}
			note("pod whose addresses change", again && !slices.Equal(old.Pod.Status.PodIPs, e.Pod.Status.PodIPs))
			note("pod that ends", again && policy.IsPeer(old.Pod) && !policy.IsPeer(e.Pod))
		case e.Namespace != nil:
			note("namespace whose labels change", again)
			note("namespace made again", old != nil && old.Do == Delete && e.Do == Set)
		case e.Policy != nil:
			note("policy that is edited", again && old.Policy.UID == e.Policy.UID)
			note("policy made again, its deletion unseen", again && old.Policy.UID != e.Policy.UID)
			_, unread := e.Policy.Spec.PodSelector.MatchLabels["no key"]
			note("policy whose edit cannot be honoured", again && unread && old.Policy.UID == e.Policy.UID)
			note("policy made again", old != nil && old.Do == Delete && e.Do == Set)
		case e.ClusterPolicy != nil:
			note("cluster policy that is edited", again && old.ClusterPolicy.UID == e.ClusterPolicy.UID)
			note("cluster policy made again", old != nil && old.Do == Delete && e.Do == Set)
			note("cluster policy made again, its deletion unseen", again && old.ClusterPolicy.UID != e.ClusterPolicy.UID)
		case e.Node != nil:
			note("node whose labels or addresses change", again)
			note("node made again", old != nil && old.Do == Delete && e.Do == Set)
		}
	}
}

func notePod(note func(string, bool), p *corev1.Pod) {
	note("pod of the host network", p.Spec.HostNetwork)
	note("pod without an address", len(p.Status.PodIPs) == 0)
	note("pod that is dual-stack", len(p.Status.PodIPs) == 2)
	note("pod that terminates", p.DeletionTimestamp != nil)
	note("pod that has ended", p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded)
	note("pod that is pending with an address", p.Status.Phase == corev1.PodPending && len(p.Status.PodIPs) > 0)
	ports := policy.ContainerPorts(p)
	for i, a := range ports {
		for _, b := range ports[:i] {
			note("one name, two numbers", a.Name == b.Name && a.Protocol == b.Protocol)
			note("one name, two protocols", a.Name == b.Name && a.Protocol != b.Protocol)
			note("two names, one port", a.Name != b.Name && a.Protocol == b.Protocol && a.Port == b.Port)
		}
	}
	for _, c := range p.Spec.InitContainers {
		note("sidecar with ports", c.RestartPolicy != nil && len(c.Ports) > 0)
		note("init container with ports", c.RestartPolicy == nil && len(c.Ports) > 0)
	}
}

func notePolicy(note func(string, bool), np *networkingv1.NetworkPolicy) {
	spec := &np.Spec
	note("policy with a name of 253", len(np.Name) == 253)
	note("policyTypes absent", spec.PolicyTypes == nil)
	note("policyTypes empty", spec.PolicyTypes != nil && len(spec.PolicyTypes) == 0)
	note("policyTypes one, rules of the other", len(spec.PolicyTypes) == 1 && spec.PolicyTypes[0] == "Ingress" && len(spec.Egress) > 0)
	note("ingress nil", spec.Ingress == nil)
	note("ingress empty", spec.Ingress != nil && len(spec.Ingress) == 0)
	noteSelector(note, "podSelector", &spec.PodSelector)
	for _, r := range spec.Ingress {
		note("from nil", r.From == nil)
		note("from empty", r.From != nil && len(r.From) == 0)
		note("ports nil", r.Ports == nil)
		note("ports empty", r.Ports != nil && len(r.Ports) == 0)
		note("ports many", len(r.Ports) > 24)
		note("peers many", len(r.From) > 48)
	}
	blocks := map[string]int{}
	c := &reference.Cluster{NetworkPolicies: reference.NetworkPolicies{Policies: []networkingv1.NetworkPolicy{*np}}}
	eachPeer(c, func(p *networkingv1.NetworkPolicyPeer) {
		noteSelector(note, "podSelector of a peer", p.PodSelector)
		noteSelector(note, "namespaceSelector", p.NamespaceSelector)
		note("both selectors", p.PodSelector != nil && p.NamespaceSelector != nil)
		if p.IPBlock == nil {
			return
		}
		cidr, err := parseCIDR(p.IPBlock.CIDR)
		if err != nil {
			note("a block that cannot be read", true)
		}
		blocks[cidr.String()]++
		note("one block in two rules", blocks[cidr.String()] == 2)
		note("block of everything", cidr.Bits() == 0)
		note("block of one address", cidr.IsSingleIP())
		note("block of IPv6", cidr.Addr().Is6())
		note("block in an old form", cidr.String() != p.IPBlock.CIDR)
		note("excepts many", len(p.IPBlock.Except) > 16)
		noteExcepts(note, p.IPBlock.Except)
	})
	for i := range spec.Egress {
		eachPort(&networkingv1.NetworkPolicySpec{Egress: spec.Egress[i : i+1]}, func(p *networkingv1.NetworkPolicyPort) {
			named := p.Port != nil && p.Port.StrVal != ""
			note("port of a protocol, all of them", p.Protocol != nil && p.Port == nil)
			note("port without a protocol", p.Protocol == nil && p.Port != nil)
			note("port with neither", p.Protocol == nil && p.Port == nil)
			note("range of ports", p.EndPort != nil && *p.EndPort > p.Port.IntVal)
			note("named port of egress", named)
			note("named port of egress to everyone", named && len(spec.Egress[i].To) == 0)
		})
	}
	eachPort(&networkingv1.NetworkPolicySpec{Ingress: spec.Ingress}, func(p *networkingv1.NetworkPolicyPort) {
		note("named port of ingress", p.Port != nil && p.Port.StrVal != "")
	})
}

func noteClusterPolicy(note func(string, bool), p *cnp.ClusterNetworkPolicy) {
	for _, tier := range []cnp.Tier{cnp.AdminTier, cnp.BaselineTier} {
		for _, action := range []cnp.ClusterNetworkPolicyRuleAction{"Accept", "Deny", "Pass"} {
			name := fmt.Sprint(tier, " ", action)
			for _, r := range p.Spec.Ingress {
				is := p.Spec.Tier == tier && r.Action == action
				note(name+" of ingress", is)
				note(name+" of ingress, unknown peer", is && r.From[0] == (cnp.ClusterNetworkPolicyIngressPeer{}))
			}
			for _, r := range p.Spec.Egress {
				is := p.Spec.Tier == tier && r.Action == action
				note(name+" of egress to nodes", is && r.To[0].Nodes != nil)
				note(name+" of egress to networks", is && len(r.To[0].Networks) > 0)
				named := slices.ContainsFunc(r.Protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool { return p.DestinationNamedPort != "" })
				note(name+" of egress with a named port", is && named)
			}
		}
	}
}

func noteExcepts(note func(string, bool), excepts []string) {
	for i, e := range excepts {
		for _, f := range excepts[:i] {
			p, _ := parseCIDR(e)
			q, _ := parseCIDR(f)
			note("one except twice", p == q)
			note("one except in another", p != q && p.Overlaps(q))
		}
	}
}

func noteSelector(note func(string, bool), which string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	note(which+" empty", len(s.MatchLabels)+len(s.MatchExpressions) == 0)
	for _, op := range []metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"} {
		is := slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Operator == op })
		note(which+" with "+string(op), is)
	}
	note(which+" with an absent key", slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == "absent" }))
}
