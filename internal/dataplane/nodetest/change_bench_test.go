package nodetest

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

// swept makes a change of what pods may do, and returns when the agent has looked at live flows twice since, so that
// nothing of it is left to do.
func (n *node) swept(change func()) {
	n.t.Helper()
	const name = "kidoban_agent_sweep_seconds"
	before := n.samples(name)
	change()
	n.await("the second look at live flows", func() bool { return n.samples(name) >= before+2 })
}

// BenchmarkChange is the time from a PolicyEndpoint's event to new flows being judged by it and the old ones being cut, with 110 pods and
// 10,000 live flows: of one pod, and of all of them.
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
			closed, open := policyFor("p", selector), policyFor("p", selector, v1alpha1.Peer{CIDR: "0.0.0.0/0"})
			var judged, cut time.Duration
			rounds := 0
			for b.Loop() {
				b.StopTimer()
				n.swept(func() {
					n.tell(open)
					n.await("the pod is open again", func() bool { return n.isolated(pods, 7) != 0 && n.ready() })
				})
				liveFlows(b, podCount, flows)
				was, already := n.isolated(pods, 7), n.metric("kidoban_agent_cut_flows_total")
				want := already + flows/podCount
				if all {
					want = already + flows
				}
				n.swept(func() {
					b.StartTimer()
					begin := time.Now()
					n.tell(closed)
					for n.isolated(pods, 7) == was {
					}
					judged += time.Since(begin)
					n.await("the old flows are cut", func() bool { return n.metric("kidoban_agent_cut_flows_total") >= want })
					cut += time.Since(begin)
					rounds++
					b.StopTimer()
				})
				b.StartTimer()
			}
			b.ReportMetric(float64(judged.Microseconds())/1000/float64(rounds), "ms-judged")
			b.ReportMetric(float64(cut.Microseconds())/1000/float64(rounds), "ms-cut")
		})
	}
}
