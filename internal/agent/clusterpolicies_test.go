package agent

import (
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// The program judges traffic to the node itself only while a cluster policy selects one of the node's pods.
func TestTrafficToTheNodeIsJudgedWhileAClusterPolicyNeedsIt(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		judges := func() bool {
			r.kernel.mu.Lock()
			defer r.kernel.mu.Unlock()
			return r.kernel.judgesLocal
		}
		r.sleep(time.Second)
		if judges() {
			t.Error("the program judges traffic to the node without a cluster policy")
		}
		cpe := &v1alpha1.ClusterPolicyEndpoint{
			ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "1", Generation: 1},
			Spec: v1alpha1.ClusterPolicyEndpointSpec{
				PolicyRef: v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "c"}, Tier: v1alpha1.TierAdmin,
				Egress: []v1alpha1.Rule{{Action: v1alpha1.ActionDeny}},
			},
		}
		r.add(cpe)
		r.sleep(time.Second)
		f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("192.0.2.1"), Protocol: policy.TCP, Port: 80}
		d, _ := r.agent.writer.want.LookupOwn(policy.Egress, f)
		if !judges() || d.Action != policy.Deny {
			t.Errorf("the program judges traffic to the node: %t, and the maps %v it", judges(), d.Action)
		}
		i, err := r.pods.FakeInformerFor(r.Context(), cpe)
		if err != nil {
			t.Fatal(err)
		}
		i.Delete(cpe)
		r.sleep(2 * time.Second)
		if judges() {
			t.Error("the program goes on judging traffic to the node")
		}
	})
}
