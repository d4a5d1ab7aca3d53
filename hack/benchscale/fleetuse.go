package main

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// fleetUse says which agents use which groups, from the load itself: by Kubernetes' selectors, and without
// the code under test.
type fleetUse struct {
	subjects []subject
	groups   map[string]groupSelector // by its text
	// nodes that use a group, with the number of subjects of their pods that make them
	nodes map[string]map[string]int
}

// subject is whom a policy isolates, and the groups of its peers.
type subject struct {
	pods  groupSelector
	peers []string
	// isolates reports that a NetworkPolicy isolates ingress. Then no packet reaches the Baseline tier, and agents leave out its groups.
	isolates, baseline bool
}

func newFleetUse(policies []*networkingv1.NetworkPolicy, clusterPolicies []*cnp.ClusterNetworkPolicy) (*fleetUse, error) {
	u := &fleetUse{groups: map[string]groupSelector{}, nodes: map[string]map[string]int{}}
	add := func(s subject, peers []groupSelector) {
		seen := map[string]bool{}
		for _, p := range peers {
			if text := p.String(); !seen[text] {
				seen[text] = true
				u.groups[text] = p
				s.peers = append(s.peers, text)
			}
		}
		u.subjects = append(u.subjects, s)
	}
	for _, np := range policies {
		pods, err := parseSelectors(np.Namespace, nil, &np.Spec.PodSelector)
		if err != nil {
			return nil, err
		}
		peers, err := peerSelectors(np)
		if err != nil {
			return nil, err
		}
		add(subject{pods: pods, isolates: slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)}, peers)
	}
	for _, np := range clusterPolicies {
		namespaces, podSelector := np.Spec.Subject.Namespaces, np.Spec.Subject.Pods
		var pods groupSelector
		var err error
		if podSelector != nil {
			pods, err = parseSelectors("", &podSelector.NamespaceSelector, &podSelector.PodSelector)
		} else {
			pods, err = parseSelectors("", namespaces, nil)
		}
		if err != nil {
			return nil, err
		}
		peers, err := clusterPeers(np)
		if err != nil {
			return nil, err
		}
		add(subject{pods: pods, baseline: np.Spec.Tier == cnp.BaselineTier}, peers) // a load's Baseline policies have ingress rules only
	}
	return u, nil
}

// count adds n to the use of groups by a pod's node.
func (u *fleetUse) count(p *pod, n int) {
	var of []*subject
	isolated := false
	for i := range u.subjects {
		if s := &u.subjects[i]; s.pods.selects(p.namespace, p.labels) {
			of = append(of, s)
			isolated = isolated || s.isolates
		}
	}
	for _, s := range of {
		if s.baseline && isolated {
			continue
		}
		for _, g := range s.peers {
			if u.nodes[g] == nil {
				u.nodes[g] = map[string]int{}
			}
			if u.nodes[g][p.node] += n; u.nodes[g][p.node] == 0 {
				delete(u.nodes[g], p.node)
			}
		}
	}
}

// concerned returns the nodes that use a group which a pod enters or leaves. before and after are the pod on
// either side of the change.
func (u *fleetUse) concerned(before, after *pod) map[string]bool {
	out := map[string]bool{}
	for text, g := range u.groups {
		was, is := before != nil && g.selects(before.namespace, before.labels), after != nil && g.selects(after.namespace, after.labels)
		if was == is {
			continue
		}
		for node := range u.nodes[text] {
			out[node] = true
		}
	}
	return out
}

// addresses returns the members of all groups that each node uses.
func (u *fleetUse) addresses(pods []pod) map[string]map[netip.Addr]bool {
	out := map[string]map[netip.Addr]bool{}
	for text, g := range u.groups {
		if len(u.nodes[text]) == 0 {
			continue
		}
		for i := range pods {
			p := &pods[i]
			if !g.selects(p.namespace, p.labels) {
				continue
			}
			for node := range u.nodes[text] {
				if out[node] == nil {
					out[node] = map[netip.Addr]bool{}
				}
				out[node][p.address] = true
			}
		}
	}
	return out
}
