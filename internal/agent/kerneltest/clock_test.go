//go:build ownclock

package kerneltest

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// What the agent does after a while, or again and again, it does by a clock that does not jump.
func TestTheClockJumps(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	n.pod(0)
	pods := n.inKernel("pods")
	for _, by := range []time.Duration{24 * time.Hour, -72 * time.Hour, 10 * 365 * 24 * time.Hour, -time.Minute} {
		drift := n.metric("kidoban_agent_drift_entries_total")
		liveFlows(t, 1, 3)
		netnstest.JumpClock(t, by)
		deny := policyFor("deny", metav1.LabelSelector{})
		n.policy(deny)
		n.await("the policy is in force", func() bool { return n.isolated(pods, 0) != 0 })
		n.await("live flows are cut", func() bool { return flowCount(t) == 0 })

		key, open := address(0).As16(), bpf.FilterPod{}
		set := n.isolated(pods, 0)
		check(t, pods.Put(&key, &open))
		n.await("damage is healed", func() bool { return n.isolated(pods, 0) == set })
		n.await("it is counted once", func() bool { return n.metric("kidoban_agent_drift_entries_total") == drift+1 })
		if !n.ready() {
			t.Errorf("after %v: the agent is not ready", by)
		}
		informer(t, n.watches, deny).Delete(policy.ReadEndpoint(deny, "shop"))
		n.await("the pod is open again", func() bool { return n.isolated(pods, 0) == 0 })
	}
}
