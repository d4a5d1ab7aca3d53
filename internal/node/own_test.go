package node

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// reachesOwnNode reports what the maps decide about a pod's traffic to its own node.
func (s story) reachesOwnNode(ip string, port uint16) bool {
	s.Commit()
	f := policy.Flow{Source: netip.MustParseAddr(ip), Destination: netip.MustParseAddr("192.0.2.1"), Protocol: policy.TCP, Port: port}
	d, _ := s.Maps().LookupOwn(policy.Egress, f)
	return d.Action == policy.Allow
}

func TestOnlyClusterPoliciesJudgeAPodsTrafficToItsOwnNode(t *testing.T) {
	s := newStory(t)
	s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
	s.pod("web", "10.0.0.1")
	s.endpoint("deny", everyPod)
	if s.Commit(); s.JudgesOwn() || !s.reachesOwnNode("10.0.0.1", 80) {
		t.Error("a NetworkPolicy judges traffic to the own node")
	}
	port := []v1alpha1.Port{{Protocol: "TCP", Port: 80}}
	cpe := clusterEndpoint()
	cpe.Spec.Egress = []v1alpha1.Rule{{Action: v1alpha1.ActionDeny, Ports: port}}
	s.cluster(cpe)
	if !s.JudgesOwn() || s.reachesOwnNode("10.0.0.1", 80) || !s.reachesOwnNode("10.0.0.1", 81) {
		t.Error("the Admin tier does not judge traffic to the own node")
	}
	baseline := clusterEndpoint()
	baseline.Name, baseline.Spec.Tier, baseline.Spec.Egress = "b", v1alpha1.TierBaseline, []v1alpha1.Rule{{Action: v1alpha1.ActionDeny}}
	s.cluster(baseline)
	if s.reachesOwnNode("10.0.0.1", 81) {
		t.Error("the Baseline tier does not judge traffic to the own node")
	}
	pe := &v1alpha1.PolicyEndpoint{}
	pe.Namespace, pe.Name, pe.Spec.PolicyTypes = "shop", "egress", []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	if err := s.SetPolicyEndpoint(start, pe); err != nil {
		t.Fatal(err)
	}
	if s.reachesOwnNode("10.0.0.1", 80) || !s.reachesOwnNode("10.0.0.1", 81) {
		t.Error("the Baseline tier judges a pod that a NetworkPolicy isolates")
	}
	s.DeleteClusterPolicyEndpoint(start, "c")
	s.DeleteClusterPolicyEndpoint(start, "b")
	s.removeDeleted(start.Add(DeletionPatience))
	s.Commit()
	if _, has := s.Maps().Pods[compiler.OwnAddress(netip.MustParseAddr("10.0.0.1"))]; has || s.JudgesOwn() {
		t.Error("an entry is left")
	}
}
