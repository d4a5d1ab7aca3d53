package kerneltest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/dataplane"
)

// liveFlows puts flows into conntrack, from clients outside to each pod.
func liveFlows(b testing.TB, pods, flows int) {
	b.Helper()
	for i := range flows {
		var client [4]byte
		binary.BigEndian.PutUint32(client[:], 11<<24+uint32(i))
		pod := address(i % pods).AsSlice()
		f := &netlink.ConntrackFlow{
			FamilyType: unix.AF_INET,
			Forward:    netlink.IPTuple{SrcIP: client[:], DstIP: pod, SrcPort: 40000, DstPort: 80, Protocol: unix.IPPROTO_UDP},
			Reverse:    netlink.IPTuple{SrcIP: pod, DstIP: client[:], SrcPort: 80, DstPort: 40000, Protocol: unix.IPPROTO_UDP},
			TimeOut:    600,
		}
		check(b, netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, f))
	}
}

// flowCount is the number of live flows.
func flowCount(t testing.TB) int {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	check(t, err)
	return len(flows)
}

// swept makes a change of what pods may do, and returns when the agent has looked at live flows twice since, so that
// nothing of it is left to do.
func (n *node) swept(change func()) {
	n.t.Helper()
	const name = "kidoban_agent_sweep_seconds"
	before := n.samples(name)
	change()
	for deadline := time.Now().Add(patience); n.samples(name) < before+2; time.Sleep(5 * time.Millisecond) { // to ask is to gather all metrics
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %v: a second look at live flows", patience)
		}
	}
}

// BenchmarkChange is the time from a PolicyEndpoint's event to new flows being decided by it and the old ones being cut, with 110 pods and
// 10,000 live flows: of one pod, and of all of them. The latter is what the agent's own histogram says.
func BenchmarkChange(b *testing.B) {
	for _, all := range []bool{false, true} {
		b.Run(map[bool]string{false: "pods=1", true: "pods=110"}[all], func(b *testing.B) {
			const podCount, flows = 110, 10_000
			n := start(b, dataplane.Sizes{})
			for i := range podCount {
				n.pod(i)
			}
			selector := metav1.LabelSelector{MatchLabels: map[string]string{"pod": "7"}}
			if all {
				selector = metav1.LabelSelector{}
			}
			pods := n.inKernel("pods")
			deny, open := policyFor("p", selector), policyFor("p", selector, v1alpha1.Peer{CIDR: "0.0.0.0/0"})
			var decided time.Duration
			cut := 0.0
			rounds := 0
			for b.Loop() {
				n.swept(func() {
					n.policy(open)
					n.await("the pod is open again", func() bool { return n.isolated(pods, 7) != 0 && n.ready() })
				})
				liveFlows(b, podCount, flows)
				was, already := n.isolated(pods, 7), n.metric("kidoban_agent_cut_flows_total")
				want := already + (flows-7+podCount-1)/podCount // pod 7's
				if all {
					want = already + flows
				}
				before := n.metric("kidoban_agent_revocation_seconds")
				n.swept(func() {
					begin := time.Now()
					n.policy(deny)
					for n.isolated(pods, 7) == was {
					}
					decided += time.Since(begin)
					rounds++
				})
				cut += n.metric("kidoban_agent_revocation_seconds") - before
				if got := n.metric("kidoban_agent_cut_flows_total"); got != want {
					b.Fatalf("%v flows are cut, want %v", got-already, want-already)
				}
			}
			b.ReportMetric(float64(decided.Microseconds())/1000/float64(rounds), "ms-decided")
			b.ReportMetric(1000*cut/float64(rounds), "ms-cut")
			b.ReportMetric(0, "ns/op")
		})
	}
}
