package dataplane_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// The kernel gives the memory of an entry that is replaced to the next one that is written, also while a
// packet is judged by it. A packet of one pod, or peer, must not be judged as another's that changes at the
// same time. Some packets are held up while they are judged, as an interrupt or another guest of the machine
// would: what one of them reads may be given to another pod and be given back before it looks again.
func TestNoPacketIsJudgedAsAnothers(t *testing.T) {
	accept, deny := compiler.Row{Default: compiler.Decision{Action: policy.Allow}}, compiler.Row{Default: compiler.Decision{Action: policy.Deny}}
	const pod, other, peer, stranger = "10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2"
	for name, test := range map[string]struct {
		rows   map[compiler.RowKey]compiler.Row
		change func(round uint32) compiler.Changes
	}{
		"pods": {
			map[compiler.RowKey]compiler.Row{{Set: 1}: accept, {Set: 2}: accept, {Set: 3}: deny, {Set: 4}: deny},
			func(round uint32) compiler.Changes {
				return compiler.Changes{Pods: []compiler.Write[netip.Addr, compiler.Pod]{
					{Key: netip.MustParseAddr(pod), Value: compiler.Pod{Sets: [2]compiler.SetID{compiler.SetID(1 + round%2)}}},
					{Key: netip.MustParseAddr(other), Value: compiler.Pod{Sets: [2]compiler.SetID{compiler.SetID(3 + round%2)}}},
				}}
			},
		},
		"addresses": {
			map[compiler.RowKey]compiler.Row{{Set: 1, Class: 1}: accept, {Set: 1, Class: 2}: accept, {Set: 1, Class: 3}: deny, {Set: 1, Class: 4}: deny},
			func(round uint32) compiler.Changes {
				return compiler.Changes{Addresses: []compiler.Write[netip.Addr, compiler.ClassID]{
					{Key: netip.MustParseAddr(peer), Value: compiler.ClassID(1 + round%2)},
					{Key: netip.MustParseAddr(stranger), Value: compiler.ClassID(3 + round%2)},
				}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dataplane.Change(t, func(spec *ebpf.CollectionSpec) {
				check(t, spec.Variables[bpf.FilterVarHeldUpOneIn].Set(uint32(64)))
			})
			d := newDataplane(t, dataplane.Options{})
			sync(t, d, &compiler.Maps{
				Pods:      map[netip.Addr]compiler.Pod{netip.MustParseAddr(pod): {Sets: [2]compiler.SetID{1}}},
				Addresses: map[netip.Addr]compiler.ClassID{netip.MustParseAddr(peer): 1},
				Rows:      test.rows,
			})
			changes := newTraffic(t)
			round := uint32(0)
			changes.repeat("changes", func() error {
				round++
				return d.Apply(test.change(round))
			})
			changes.goesOn()
			run := newRunner(t, d)
			packets := run.options(packet{Flow: flow(peer, pod, policy.TCP, 80)})
			packets.Repeat = 10_000
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				_, err := run.program.Run(packets)
				check(t, err)
			}
			changes.stop()
			if n := denied(t, d)[events.ReasonDefault]; n > 0 {
				t.Errorf("%d packets were denied", n)
			}
		})
	}
}
