package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// BenchmarkAnswers is of a question to a resolver with its answer, real packets: an answer that teaches nothing, and one with 10 new addresses, with
// few and with many names in policies.
func BenchmarkAnswers(b *testing.B) {
	for _, names := range []int{100, 50_000} {
		for _, records := range []int{0, 10} {
			b.Run(fmt.Sprintf("names=%d/new=%d", names, records), func(b *testing.B) { answers(b, names, records) })
		}
	}
}

// namesOfAPod are the names in the policies of one pod, for which there is a budget.
const namesOfAPod = 20_000

// answers measures so many exchanges an iteration.
func answers(b *testing.B, names, records int) {
	const exchanges = 30
	opts := withNames
	opts.Sizes.Domains = 1 << 17
	n := newNameNode(b, opts)
	n.allow(named([]string{"api.example.com"}))
	for i := 1; i < names; i += namesOfAPod {
		var list []string
		for k := range min(namesOfAPod, names-i) {
			list = append(list, fmt.Sprintf("n%d.example.org", i+k))
		}
		key := fmt.Sprintf("pod-%d", i)
		n.compiler.SetPod(key, compiler.PodSpec{
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 10, 0, byte(i / namesOfAPod)})}, Policies: []*policy.Policy{isolate(policy.Egress, named(list))},
		})
	}
	check(b, n.d.Apply(n.compiler.Commit()))
	c, err := n.client.Dial("udp", netip.AddrPortFrom(n.resolver.V4, 53), netnstest.Patience)
	check(b, err)
	defer func() { _ = c.Close() }()
	stats, err := ebpf.EnableStats(0) // BPF_STATS_RUN_TIME
	check(b, err)
	defer func() { _ = stats.Close() }()

	next, took := uint32(0), 0.0
	for b.Loop() {
		n.takeLearned()
		takeAll(b, n.d.Maps().Places, func(bpf.FilterPlaceKey) {})
		before := runtime(b, n.d.Program())
		for i := range exchanges {
			var fresh []record
			for range records {
				next++
				a := [4]byte{}
				binary.BigEndian.PutUint32(a[:], 11<<24|next)
				fresh = append(fresh, addressRecord(netip.AddrFrom4(a), 300))
			}
			n.zone.answerWith(fresh...)
			askOver(b, c, uint16(i), "api.example.com", typeA)
		}
		took += runtime(b, n.d.Program()) - before
		if learned := len(n.takeLearned()); learned != records*exchanges {
			b.Fatalf("learned %d addresses, want %d", learned, records*exchanges)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took/float64(b.N*exchanges), "ns/exchange")
}

// BenchmarkFirstPacketByName is of a first packet that a rule allows by address, without and with names in the policy, and of one that a name allows.
func BenchmarkFirstPacketByName(b *testing.B) {
	n := newNameNode(b, withNames)
	other := n.AddPod("10.9.0.5", "fd09::5")
	n.set(other, isolate(policy.Egress, with(pods(n.target))))
	n.allow(named([]string{"api.example.com"}), with(pods(other)))
	n.zone.set("api.example.com", n.target.V4)
	n.ask(false, "api.example.com")
	empty := emptyProgram(b)
	for _, tc := range []struct {
		name     string
		from, to netip.Addr
	}{
		{"no names", other.V4, n.target.V4},
		{"beside names", n.client.V4, other.V4},
		{"by name", n.client.V4, n.target.V4},
	} {
		p := packet{Flow: flow(tc.from.String(), tc.to.String(), policy.TCP, 80)}
		b.Run(tc.name, func(b *testing.B) {
			var mine, base float64
			for b.Loop() {
				mine += nsPerRun(b, n.d.Program(), p.ip())
				base += nsPerRun(b, empty, p.ip())
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric((mine-base)/float64(b.N), "over-empty-ns/packet")
		})
	}
}

// BenchmarkMemoryOfNames is of the maps that hold what is learned, with room for 100,000 addresses: they have all of their memory from the start.
func BenchmarkMemoryOfNames(b *testing.B) {
	opts := dataplane.Options{Names: dataplane.NameOptions{On: true}, Sizes: dataplane.Sizes{Learned: 100_000}}
	for b.Loop() {
		d := newDataplane(b, opts)
		total := uint64(0)
		for _, m := range []*ebpf.Map{d.Maps().Learned, d.Maps().Places, d.Maps().Names, d.Maps().Asked} {
			info, err := m.Info()
			check(b, err)
			bytes, ok := info.Memlock()
			if !ok {
				b.Fatal("the kernel does not report a map's memory")
			}
			total += bytes
		}
		b.ReportMetric(float64(total)/(1<<20), "MiB")
	}
	b.ReportMetric(0, "ns/op")
}
