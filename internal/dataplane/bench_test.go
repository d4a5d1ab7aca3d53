package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// emptyProgram accepts everything: what any program on the hook costs at least.
func emptyProgram(b *testing.B) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	check(b, err)
	b.Cleanup(func() { _ = p.Close() })
	return p
}

// nsPerRun is the kernel's own measure of many runs on one IPv4 packet.
func nsPerRun(b *testing.B, p *ebpf.Program, ip []byte) float64 {
	b.Helper()
	const repeat = 100_000
	_, took, err := p.Benchmark(ip, repeat, nil)
	check(b, err)
	return float64(took.Nanoseconds())
}

// peers are so many addresses of one class, the only ones that may reach the pod 10.0.0.1.
func peers(n int) *compiler.Maps {
	t := isolated(0, netip.MustParseAddr("10.0.0.1"))
	delete(t.Rows, compiler.RowKey{Set: 1})
	t.Rows[compiler.RowKey{Set: 1, Class: 1}] = compiler.Row{PortList: 1, Default: compiler.DefaultDeny}
	t.Addresses = map[netip.Addr]compiler.ClassID{}
	for i := range n {
		a := [4]byte{0: 11}
		binary.BigEndian.PutUint32(a[:], 11<<24|uint32(i))
		t.Addresses[netip.AddrFrom4(a)] = 1
	}
	return t
}

// BenchmarkFirstPacket is of a packet that no flow of conntrack's is known for: parsed, looked up, counted.
func BenchmarkFirstPacket(b *testing.B) {
	empty := emptyProgram(b)
	for _, n := range []int{1, 100, 10_000, 100_000} {
		d := newDataplane(b, dataplane.Options{})
		sync(b, d, peers(n))
		for name, p := range map[string]packet{
			"accepted": {Flow: flow("11.0.0.0", "10.0.0.1", policy.TCP, 80)},
			"denied":   {Flow: flow("12.0.0.0", "10.0.0.1", policy.TCP, 80)},
			"open":     {Flow: flow("11.0.0.0", "10.0.0.2", policy.TCP, 80)},
		} {
			b.Run(fmt.Sprintf("%s/peers=%d", name, n), func(b *testing.B) {
				var mine, base float64
				for b.Loop() {
					mine += nsPerRun(b, d.Program(), p.ip())
					base += nsPerRun(b, empty, p.ip())
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(mine/float64(b.N), "ns/packet")
				b.ReportMetric(base/float64(b.N), "empty-ns/packet")
				b.ReportMetric((mine-base)/float64(b.N), "over-empty-ns/packet")
			})
		}
	}
}

// BenchmarkEstablished is of real packets of one flow, each of which passes ours and two empty programs on
// the same hook, one before it and one after it: who comes first waits for the packet's cache lines. The
// kernel's bookkeeping adds the same to each. Learning names is off, on without a policy that has any, and on with one.
func BenchmarkEstablished(b *testing.B) {
	b.Run("names=off", func(b *testing.B) { established(b, dataplane.Options{}) })
	b.Run("names=unused", func(b *testing.B) { established(b, withNames) })
	b.Run("names=used", func(b *testing.B) { established(b, withNames, named([]string{"api.example.com"})) })
}

// established measures packets of one flow of a client to which rules about egress apply.
func established(b *testing.B, opts dataplane.Options, rules ...policy.Rule) {
	n := newNode(b, opts)
	client, server := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	server.Echo("udp", 80)
	n.set(server, isolate(policy.Ingress, with(pods(client))))
	if len(rules) > 0 {
		n.set(client, isolate(policy.Egress, append(rules, with(pods(server)))...))
	}
	empty := map[int32]*ebpf.Program{-90: emptyProgram(b), -20: emptyProgram(b)}
	for priority, program := range empty {
		n.Do(func() error {
			l, err := link.AttachNetfilter(link.NetfilterOptions{
				Program: program, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetForward, Priority: priority,
			})
			if err == nil {
				b.Cleanup(func() { _ = l.Close() })
			}
			return err
		})
	}
	c, err := client.Dial("udp", netip.AddrPortFrom(server.V4, 80), netnstest.Patience)
	check(b, err)
	defer func() { _ = c.Close() }()
	check(b, netnstest.Exchange(c, 64, netnstest.Patience))

	stats, err := ebpf.EnableStats(0) // BPF_STATS_RUN_TIME
	check(b, err)
	defer func() { _ = stats.Close() }()
	runtimes := func() (mine, base float64) {
		return runtime(b, n.d.Program()), (runtime(b, empty[-90]) + runtime(b, empty[-20])) / 2
	}
	mineBefore, baseBefore := runtimes()
	for b.Loop() {
		check(b, netnstest.Exchange(c, 64, netnstest.Patience))
	}
	mine, base := runtimes()
	packets := float64(2 * b.N)
	b.ReportMetric((mine-mineBefore)/packets, "ns/packet")
	b.ReportMetric((base-baseBefore)/packets, "empty-ns/packet")
	b.ReportMetric((mine-mineBefore-base+baseBefore)/packets, "over-empty-ns/packet")
}

func runtime(b *testing.B, p *ebpf.Program) float64 {
	b.Helper()
	s, err := p.Stats()
	check(b, err)
	return float64(s.Runtime.Nanoseconds())
}

// BenchmarkAddAddress is of one address that joins a class: one write.
func BenchmarkAddAddress(b *testing.B) {
	d := newDataplane(b, dataplane.Options{})
	sync(b, d, peers(10_000))
	i := uint32(0)
	for b.Loop() {
		a := [4]byte{}
		binary.BigEndian.PutUint32(a[:], 12<<24|i%100_000)
		i++
		check(b, d.Apply(compiler.Changes{Addresses: []compiler.Write[netip.Addr, compiler.ClassID]{{Key: netip.AddrFrom4(a), Value: 1}}}))
	}
}

// BenchmarkSync is of an audit that finds nothing to repair.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			d := newDataplane(b, dataplane.Options{})
			want := peers(n)
			sync(b, d, want)
			for b.Loop() {
				sync(b, d, want)
			}
		})
	}
}
