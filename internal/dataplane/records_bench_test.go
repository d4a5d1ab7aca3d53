package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// versus measures two programs on a packet in turns, and reports both and their ratio.
func versus(b *testing.B, p packet, base, other *dataplane.Dataplane, baseName, otherName string) {
	b.Helper()
	var one, two float64
	for b.Loop() {
		one += nsPerRun(b, base.Program(), p.ip())
		two += nsPerRun(b, other.Program(), p.ip())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(one/float64(b.N), baseName+"-ns/packet")
	b.ReportMetric(two/float64(b.N), otherName+"-ns/packet")
	b.ReportMetric(two/one, otherName+"÷"+baseName)
}

// BenchmarkRecords is of the program alone on first packets of one kind, without records and with them.
// (BenchmarkPackets has what they are of the packet's way through the node.)
func BenchmarkRecords(b *testing.B) {
	off, on := newDataplane(b, dataplane.Options{}), newDataplane(b, dataplane.Options{Records: true, EventRate: 50})
	maps := peers(100)
	maps.Pods[netip.MustParseAddr("10.0.0.2")] = compiler.Pod{}
	sync(b, off, maps)
	sync(b, on, maps)
	for name, p := range map[string]packet{
		"accepted":     {Flow: flow("11.0.0.0", "10.0.0.1", policy.TCP, 80)},
		"denied":       {Flow: flow("12.0.0.0", "10.0.0.1", policy.TCP, 80)},
		"not-isolated": {Flow: flow("11.0.0.0", "10.0.0.2", policy.TCP, 80)},
		"no-pod":       {Flow: flow("11.0.0.0", "10.0.0.3", policy.TCP, 80)},
	} {
		b.Run(name, func(b *testing.B) { versus(b, p, off, on, "off", "on") })
	}
}

// BenchmarkAudited is of first packets to a pod without audited policies, on a node on which no pod has any and on
// one on which all others have them.
func BenchmarkAudited(b *testing.B) {
	without, with := newDataplane(b, dataplane.Options{}), newDataplane(b, dataplane.Options{})
	sync(b, without, peers(100))
	maps := peers(100)
	for i := range 100 {
		maps.Pods[netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})] = compiler.Pod{AuditSets: [2]compiler.SetID{policy.Ingress: 1}}
	}
	sync(b, with, maps)
	for name, p := range map[string]packet{
		"accepted":     {Flow: flow("11.0.0.0", "10.0.0.1", policy.TCP, 80)},
		"denied":       {Flow: flow("12.0.0.0", "10.0.0.1", policy.TCP, 80)},
		"not-isolated": {Flow: flow("11.0.0.0", "10.0.0.2", policy.TCP, 80)},
	} {
		b.Run(name, func(b *testing.B) { versus(b, p, without, with, "without", "with") })
	}
}
