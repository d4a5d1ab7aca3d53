package node

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// clusterEndpoint is one of the Admin tier for pods labelled app=web in namespaces labelled team=shop.
func clusterEndpoint(rules ...v1alpha1.Rule) *v1alpha1.ClusterPolicyEndpoint {
	return &v1alpha1.ClusterPolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "1"},
		Spec: v1alpha1.ClusterPolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "c"},
			Tier:      v1alpha1.TierAdmin,
			Subject: v1alpha1.Subject{
				NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"team": "shop"}},
				PodSelector:       metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			},
			Ingress: rules,
		},
	}
}

func (s story) cluster(cpe *v1alpha1.ClusterPolicyEndpoint) {
	s.Helper()
	if err := s.SetClusterPolicyEndpoint(start, cpe); err != nil {
		s.Fatal(err)
	}
}

func withAction(r v1alpha1.Rule, a v1alpha1.Action) v1alpha1.Rule {
	r.Action = a
	return r
}

func TestAClusterPolicySelectsPodsByTheLabelsOfTheirNamespace(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.pod("db", "10.0.0.2")
	s.cluster(clusterEndpoint(v1alpha1.Rule{Action: v1alpha1.ActionDeny}))
	s.allowed("10.0.0.9", "10.0.0.1", 80) // the namespace has no label
	s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.9", "10.0.0.2", 80)
	s.pod("web", "10.0.0.1", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "other"} })
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "10.0.0.1")
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.SetNamespace(start, "shop", map[string]string{"team": "other"}, false)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.DeleteClusterPolicyEndpoint(start, "c")
	s.removeDeleted(start.Add(DeletionPatience))
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}

func TestAClusterPolicyIsInForceWhenItsGroupsAreComplete(t *testing.T) {
	s := newStory(t)
	s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
	s.pod("web", "10.0.0.1")
	s.endpoint("deny", everyPod)
	s.cluster(clusterEndpoint(withAction(fromSharedGroup("g"), v1alpha1.ActionAccept)))
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.slice(shared, "g", 0, 1, "10.0.0.9/32")
	s.allowed("10.0.0.9", "10.0.0.1", 80) // the Admin tier decides before NetworkPolicies
	s.denied("10.0.0.8", "10.0.0.1", 80)
	reports := s.PolicyReports()
	if len(reports) != 2 {
		t.Errorf("reports %v", reports)
	}
	policies := s.DescribePolicies()
	if len(policies) != 2 || policies[0].Kind != "ClusterNetworkPolicy" || policies[0].Pods != 1 {
		t.Errorf("policies %+v", policies)
	}
}

func TestRulesOfAClusterPolicyThatCannotBeReadAreClosed(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*v1alpha1.ClusterPolicyEndpointSpec)
		nine    bool // whether 10.0.0.9 is allowed, by an Accept for its group before the rule in question
		eight   bool
		isFault bool
	}{
		"readable":              {func(*v1alpha1.ClusterPolicyEndpointSpec) {}, true, true, false},
		"a field of a Deny":     {func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.UnknownFields = []string{"ingress[1].newer"} }, true, false, true},
		"a field of an Accept":  {func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.UnknownFields = []string{"ingress[0].newer"} }, true, true, true},
		"a field outside rules": {func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.UnknownFields = []string{"newer"} }, false, false, true},
		"an action":             {func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Ingress[1].Action = "Reject" }, true, false, true},
		"names of an Accept": {func(s *v1alpha1.ClusterPolicyEndpointSpec) {
			s.Ingress[0].Peers = []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"a.b"}}}
		}, true, true, true},
		"a peer of a Pass without fields": {func(s *v1alpha1.ClusterPolicyEndpointSpec) {
			s.Ingress[1] = v1alpha1.Rule{Action: v1alpha1.ActionPass, Peers: []v1alpha1.Peer{{}}}
		}, true, false, true},
		"another tier": {func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Tier = "Platform" }, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
			s.pod("web", "10.0.0.1")
			s.slice(shared, "g", 0, 1, "10.0.0.9/32")
			s.slice(shared, "h", 0, 1, "10.0.0.7/32")
			cpe := clusterEndpoint(withAction(fromSharedGroup("g"), v1alpha1.ActionAccept), withAction(fromSharedGroup("h"), v1alpha1.ActionDeny))
			tc.change(&cpe.Spec)
			if err := s.SetClusterPolicyEndpoint(start, cpe); (err != nil) != tc.isFault {
				t.Errorf("error %v", err)
			}
			for addr, want := range map[string]bool{"10.0.0.9": tc.nine, "10.0.0.8": tc.eight} {
				if want {
					s.allowed(addr, "10.0.0.1", 80)
				} else {
					s.denied(addr, "10.0.0.1", 80)
				}
			}
		})
	}
}

func TestNoPodIsCompiledBeforeTheClusterPoliciesAreHere(t *testing.T) {
	s := story{t, New(Options{SharedNamespace: shared, ClusterPolicies: true})}
	s.namespaces["shop"] = newNamespace()
	s.NamespaceSynced(start, "shop")
	s.NamespaceSynced(start, shared)
	s.pod("web", "10.0.0.1")
	s.Commit()
	if s.Synced() || len(s.Maps().Pods) > 0 {
		t.Error("the pod is in the maps")
	}
	s.ClusterSynced(start)
	s.Commit()
	if !s.Synced() || len(s.Maps().Pods) == 0 {
		t.Error("the pod is not in the maps")
	}
}

func TestAPassOfTheBaselineTierEndsIt(t *testing.T) {
	s := newStory(t)
	s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
	s.pod("web", "10.0.0.1")
	for name, action := range map[string]v1alpha1.Action{"a": v1alpha1.ActionPass, "b": v1alpha1.ActionDeny} {
		cpe := clusterEndpoint(v1alpha1.Rule{Action: action})
		cpe.Name, cpe.Spec.PolicyRef.Name, cpe.Spec.Tier = name, name, v1alpha1.TierBaseline
		s.cluster(cpe)
	}
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}

// After a Pass of the Baseline tier, the mode decides: about everything but the traffic to the own node, which no mode denies.
func TestAPassOfTheBaselineTierLeavesTheModeToDecide(t *testing.T) {
	for _, mode := range []Mode{Standard, Guarded, Strict} {
		s := newStory(t)
		s.opts.Mode = mode
		s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
		s.pod("web", "10.0.0.1")
		cpe := clusterEndpoint(v1alpha1.Rule{Action: v1alpha1.ActionPass, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 80}}}, v1alpha1.Rule{Action: v1alpha1.ActionAccept})
		cpe.Spec.Tier, cpe.Spec.Egress = v1alpha1.TierBaseline, []v1alpha1.Rule{{Action: v1alpha1.ActionPass}}
		s.cluster(cpe)
		s.allowed("10.0.0.9", "10.0.0.1", 81)
		if mode == Strict {
			s.denied("10.0.0.9", "10.0.0.1", 80)
		} else {
			s.allowed("10.0.0.9", "10.0.0.1", 80)
		}
		if !s.reachesOwnNode("10.0.0.1", 80) {
			t.Errorf("%s: a Pass of the Baseline tier denies traffic to the own node", mode)
		}
	}
}
