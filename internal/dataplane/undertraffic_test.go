package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// traffic goes on while something else happens. Each packet that may pass must, and none that may not.
type traffic struct {
	t        testing.TB
	ctx      context.Context
	cancel   context.CancelFunc
	running  gosync.WaitGroup
	counters []*atomic.Int64
}

func newTraffic(t testing.TB) *traffic {
	tr := &traffic{t: t}
	tr.ctx, tr.cancel = context.WithCancel(context.Background())
	t.Cleanup(func() { tr.cancel(); tr.running.Wait() })
	return tr
}

func (tr *traffic) repeat(what string, f func() error) {
	count := &atomic.Int64{}
	tr.counters = append(tr.counters, count)
	tr.running.Go(func() {
		for tr.ctx.Err() == nil {
			if err := f(); err != nil {
				tr.t.Errorf("%s: after %d that went right: %v", what, count.Load(), err)
				return
			}
			count.Add(1)
		}
	})
}

// passes has messages go there and back over one live TCP connection, and over ever new flows of UDP, which
// sends nothing twice: one lost packet is an error.
func (tr *traffic) passes(from *netnstest.Pod, to netip.AddrPort) {
	tr.t.Helper()
	live, err := from.Dial("tcp", to, netnstest.Patience)
	check(tr.t, err)
	tr.t.Cleanup(func() { _ = live.Close() })
	tr.repeat(fmt.Sprint("a live connection to ", to), func() error { return netnstest.Exchange(live, 64, netnstest.Patience) })
	tr.repeat(fmt.Sprint("new flows to ", to), func() error { return from.Ask("udp", to, netnstest.Patience) })
}

// isRefused tries ever new flows.
func (tr *traffic) isRefused(from *netnstest.Pod, to netip.AddrPort) {
	tr.repeat(fmt.Sprint("refused flows to ", to), func() error {
		if err := from.Ask("udp", to, netnstest.Silence/10); err == nil {
			return errors.New("answered")
		}
		return nil
	})
}

// goesOn waits until each kind of traffic has been right some times more.
func (tr *traffic) goesOn() {
	tr.t.Helper()
	for _, c := range tr.counters {
		for until := c.Load() + 3; c.Load() < until && !tr.t.Failed(); {
			select {
			case <-tr.ctx.Done():
				return
			default:
				time.Sleep(time.Millisecond)
			}
		}
	}
}

func (tr *traffic) stop() {
	tr.t.Helper()
	tr.goesOn()
	tr.cancel()
	tr.running.Wait()
	sum := int64(0)
	for _, c := range tr.counters {
		sum += c.Load()
	}
	tr.t.Logf("%d times right", sum)
}

// threePods are a pod that is reached, one that may reach it and one that may not, with traffic between them
// in both families.
func threePods(n *node) *traffic {
	a, b, c := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	b.Echo("tcp", 80)
	b.Echo("udp", 80)
	n.set(a)
	n.set(b, isolate(policy.Ingress, with(pods(a))))
	n.set(c)
	tr := newTraffic(n.t)
	for _, v6 := range []bool{false, true} {
		to := netip.AddrPortFrom(b.Addr(v6), 80)
		tr.passes(a, to)
		tr.isRefused(c, to)
	}
	return tr
}

func TestTakeOverUnderTraffic(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	tr := threePods(n)
	for range 10 {
		n.restart()
		n.wellPinned()
	}
	tr.stop()
}

// To another build and back: its program is another one, a map has another form, and so have the constants.
func TestUpgradeAndDowngradeUnderTraffic(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	tr := threePods(n)
	tag := func() string {
		info, err := n.d.Program().Info()
		check(t, err)
		return info.Tag
	}
	released := n.opts
	first := tag()
	for range 3 {
		dataplane.Change(t, func(spec *ebpf.CollectionSpec) {
			p := spec.Programs["kidoban"]
			p.Name = "kidoban_next"
			first := p.Instructions[0] // bears the program's name
			more := asm.Mov.Imm(asm.R0, 0).WithMetadata(first.Metadata)
			p.Instructions = append(asm.Instructions{more, first.WithMetadata(asm.Metadata{})}, p.Instructions[1:]...)
			spec.Maps[bpf.FilterMapRevoked].Type = ebpf.LRUHash
			spec.Maps[bpf.FilterMapRevoked].Flags = 0
		})
		n.opts.Events, n.opts.CountHits, n.opts.Sizes.Addresses = dataplane.EventsAll, true, 1000
		n.restart()
		if tag() == first {
			t.Fatal("it is the same program")
		}
		tr.goesOn()
		dataplane.Change(t, func(*ebpf.CollectionSpec) {})
		n.opts = released
		n.restart()
		if tag() != first {
			t.Fatal("it is not the program that it was")
		}
		tr.goesOn()
	}
	n.wellPinned()
	tr.stop()
}

func TestDamagedPinsUnderTraffic(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	tr := threePods(n)
	for round := range 6 {
		dirs, files := n.pins()
		for i, name := range files {
			if i%2 == round%2 { // the links' too: the process that lives holds them
				check(t, os.Remove(filepath.Join(dirs[0], name)))
			}
		}
		if round%2 == 0 {
			n.Do(n.d.Attach)
		} else {
			n.restart()
		}
		n.wellPinned()
		tr.goesOn()
	}
	tr.stop()
}

// What there is no room for closes the pod that it is about, and bothers no other.
func TestAFullMapUnderTraffic(t *testing.T) {
	n := newNode(t, dataplane.Options{Sizes: dataplane.Sizes{Addresses: 8}})
	tr := threePods(n)
	e := n.AddPod("10.9.0.5", "fd09::5")
	e.Echo("udp", 80)
	n.set(e)
	from := n.AddPod("10.9.0.6", "fd09::6")
	n.set(from)
	for range 3 {
		reaches(t, from, "udp", e.V4, 80)
		var many []policy.Peer
		for i := range 20 {
			addr := netip.AddrFrom4([4]byte{10, 77, 0, byte(i)})
			many = append(many, policy.Peer{CIDR: netip.PrefixFrom(addr, 32)})
		}
		n.compiler.SetPod(e.V4.String(), compiler.PodSpec{Addresses: addrs(e), Policies: []*policy.Policy{isolate(policy.Ingress, policy.Rule{EveryPort: true, Peers: policy.ListPeers(many...)})}})
		var full *dataplane.MapFullError
		if err := n.d.Apply(n.compiler.Commit()); !errors.As(err, &full) {
			t.Fatalf("error %v", err)
		}
		if _, err := n.d.Sync(n.compiler.Maps(), nil); !errors.As(err, &full) {
			t.Fatalf("error %v", err)
		}
		_, err := n.d.FailClosed(n.compiler.Maps())
		check(t, err)
		isKept(t, from, "udp", e.V4, 80)
		tr.goesOn()
		n.compiler.SetPod(e.V4.String(), compiler.PodSpec{Addresses: addrs(e)})
		n.compiler.Commit()
		n.compiler.Collect()
		n.compiler.Collect()
		sync(t, n.d, n.compiler.Maps())
	}
	tr.stop()
}

// Pods come and go, and the next one has the last one's address, or interface, or both, under other policies.
// It is judged by its own from the moment that they are in force, and the traffic beside it goes on.
func TestReuseUnderTraffic(t *testing.T) {
	n := newNode(t, dataplane.Options{Guard: dataplane.GuardOn})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	outside := n.AddPod("198.51.100.1", "2001:db8::1")
	n.uplinks(outside)
	tr := threePods(n)
	friend, stranger := n.AddPod("10.9.1.1", "fd09:1::1"), n.AddPod("10.9.1.2", "fd09:1::2")
	n.set(friend)
	n.set(stranger)
	inFriend := inbox(t, friend, 99)
	index := 0
	for round := range 8 {
		v4, v6 := fmt.Sprintf("10.9.2.%d", round/2%2), fmt.Sprintf("fd09:2::%d", 1+round/2%2)
		pod := n.AddPodAt(index, v4, v6)
		n.Sysctl("ipv4/conf/"+pod.Host.Attrs().Name+"/rp_filter", "0")
		if index == 0 {
			index = pod.Host.Attrs().Index
		}
		pod.Echo("udp", 80)
		isV6 := round%2 == 1
		isKept(t, friend, "udp", pod.Addr(isV6), 80) // it is not known yet
		admitted, refused := friend, stranger
		if round%4 > 1 {
			admitted, refused = stranger, friend
		}
		n.set(pod, isolate(policy.Ingress, with(pods(admitted))))
		reaches(t, admitted, "udp", pod.Addr(isV6), 80)
		isKept(t, refused, "udp", pod.Addr(isV6), 80)
		sendAs(t, pod, pod.Addr(isV6), netip.AddrPortFrom(friend.Addr(isV6), 99))
		if !arrives(t, inFriend, pod.Addr(isV6), netnstest.Patience) {
			t.Error("an honest packet was refused")
		}
		before := map[bool]netip.Addr{false: netip.MustParseAddr(fmt.Sprintf("10.9.2.%d", 1-round/2%2)), true: netip.MustParseAddr(fmt.Sprintf("fd09:2::%d", 2-round/2%2))}[isV6]
		sendAs(t, pod, before, netip.AddrPortFrom(friend.Addr(isV6), 99))
		if arrives(t, inFriend, before, netnstest.Silence) {
			t.Error("a packet with the address of the interface's last pod passed")
		}
		n.forget(pod)
		n.RemovePod(pod)
	}
	tr.goesOn()
	tr.stop()
}
