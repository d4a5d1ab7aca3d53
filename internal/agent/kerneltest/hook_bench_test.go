package kerneltest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// BenchmarkPodHook is how long the container runtime waits for a new pod's policies, with 500,000 addresses in the maps: while the agent is
// idle, and while it compares all maps without a pause.
func BenchmarkPodHook(b *testing.B) {
	const addresses, hooks, running = 500_000, 2000, 50
	measure := func(interval time.Duration) time.Duration {
		n := startEvery(b, dataplane.Sizes{}, interval)
		n.pod(0)
		slice := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "all-0"}}
		slice.Spec.Groups = []v1alpha1.GroupPart{{Name: "all", Slices: []string{slice.Name}}}
		slice.Spec.Classes = []v1alpha1.AddressClass{{Groups: []int32{0}, Count: addresses}}
		for i := range addresses {
			slice.Spec.Addresses = append(slice.Spec.Addresses, v1alpha1.CIDR(fmt.Sprintf("11.%d.%d.%d/32", i>>16, i>>8&255, i&255)))
		}
		informer(b, n.watches, slice).Add(policy.ReadSlice(slice))
		n.policy(policyFor("all", metav1.LabelSelector{}, v1alpha1.Peer{Group: &v1alpha1.GroupReference{Name: "all"}}))
		pods := n.inKernel("pods")
		n.await("the policy is in force", func() bool { return n.isolated(pods, 0) != 0 && n.ready() })

		plugin := n.agent.Plugin()
		var took []time.Duration
		for i := range hooks {
			now := sandbox(1 + i)
			begin := time.Now()
			check(b, plugin.RunPodSandbox(b.Context(), now))
			took = append(took, time.Since(begin))
			if n.isolated(pods, 1+i) == 0 {
				b.Fatal("a pod starts that is not isolated")
			}
			if i >= running {
				check(b, plugin.StopPodSandbox(b.Context(), sandbox(1+i-running)))
			}
		}
		slices.Sort(took)
		b.Logf("check interval %v: p50 %v, p99 %v, longest %v; %v entries of drift", interval, took[hooks/2], took[hooks*99/100], took[hooks-1],
			n.metric("kidoban_agent_drift_entries_total"))
		n.stop()
		return took[hooks*99/100]
	}
	for b.Loop() {
		idle, busy := measure(time.Hour), measure(time.Millisecond)
		b.ReportMetric(float64(idle.Microseconds())/1000, "ms-p99-idle")
		b.ReportMetric(float64(busy.Microseconds())/1000, "ms-p99-comparing")
		b.ReportMetric(float64(busy)/float64(idle), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

func sandbox(i int) *api.PodSandbox {
	name := fmt.Sprint("pod-", i)
	return &api.PodSandbox{
		Namespace: "shop", Name: name, Uid: name, Id: name, Pid: 7, Ips: []string{address(i).String()}, Labels: map[string]string{"pod": fmt.Sprint(i)},
		Linux: &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/run/netns/" + name}}},
	}
}
