package main

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// groupSelector is the selector in a slice, parsed by Kubernetes' code and not by the resolver's.
type groupSelector struct {
	namespace  string          // of the group, for one of a namespace's own pods
	namespaces labels.Selector // nil for one of a namespace's own pods
	pods       labels.Selector
}

func parseGroupSelector(namespace string, s *v1alpha1.GroupSelector) (groupSelector, error) {
	return parseSelectors(namespace, s.NamespaceSelector, s.PodSelector)
}

func parseSelectors(namespace string, namespaces, pods *metav1.LabelSelector) (groupSelector, error) {
	out := groupSelector{namespace: namespace, pods: labels.Everything()}
	var err error
	if namespaces != nil {
		if out.namespaces, err = metav1.LabelSelectorAsSelector(namespaces); err != nil {
			return out, err
		}
	}
	if pods != nil {
		out.pods, err = metav1.LabelSelectorAsSelector(pods)
	}
	return out, err
}

// String is equal for selectors with the same text.
func (s groupSelector) String() string {
	if s.namespaces == nil {
		return s.namespace + "/" + s.pods.String()
	}
	return "{" + s.namespaces.String() + "}/" + s.pods.String()
}

// selects reports whether a pod with these labels is in the group. (All pods of a load have the same named
// ports.)
func (s groupSelector) selects(namespace int, podLabels map[string]string) bool {
	if s.namespaces == nil && s.namespace != namespaceName(namespace) {
		return false
	}
	if s.namespaces != nil && !s.namespaces.Matches(labels.Set(namespaceLabels(namespace))) {
		return false
	}
	return s.pods.Matches(labels.Set(podLabels))
}

// peerSelectors lists the selectors of a policy's peers.
func peerSelectors(np *networkingv1.NetworkPolicy) ([]groupSelector, error) {
	var peers []networkingv1.NetworkPolicyPeer
	for _, r := range np.Spec.Ingress {
		peers = append(peers, r.From...)
	}
	for _, r := range np.Spec.Egress {
		peers = append(peers, r.To...)
	}
	var out []groupSelector
	for _, p := range peers {
		if p.IPBlock != nil {
			continue
		}
		s, err := parseSelectors(np.Namespace, p.NamespaceSelector, p.PodSelector)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// sharing describes how much the policies of a load have in common.
type sharing struct {
	policiesPerPod float64 // that a pod is a peer of, on average
	mostUsed       int     // policies that use the most used selector
}

// measureSharing evaluates every policy on some of the pods.
func measureSharing(policies []*networkingv1.NetworkPolicy, pods []pod) (sharing, error) {
	const sample = 200
	var out sharing
	users := map[string]int{}
	var selectors [][]groupSelector
	for _, np := range policies {
		list, err := peerSelectors(np)
		if err != nil {
			return out, err
		}
		selectors = append(selectors, list)
		seen := map[string]bool{}
		for _, s := range list {
			if key := s.String(); !seen[key] {
				seen[key] = true
				users[key]++
				out.mostUsed = max(out.mostUsed, users[key])
			}
		}
	}
	step := max(1, len(pods)/sample)
	asked, peers := 0, 0
	for i := step / 2; i < len(pods); i += step {
		asked++
		for _, list := range selectors {
			for _, s := range list {
				if s.selects(pods[i].namespace, pods[i].labels) {
					peers++
					break
				}
			}
		}
	}
	out.policiesPerPod = float64(peers) / float64(asked)
	return out, nil
}
