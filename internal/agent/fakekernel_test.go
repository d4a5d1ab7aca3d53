package agent

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// fakeKernel is a Kernel in memory. It fails on demand, and takes as long as a test wants.
type fakeKernel struct {
	mu       sync.Mutex
	maps     compiler.Maps
	failures map[string][]error // by method: the next calls fail so
	calls    map[string]int
	attached bool
	others   bool                   // programs of other agents are attached
	earlier  map[netip.Addr][2]bool // what they isolate
	read     chan struct{}          // if not nil: EarlierIsolation waits until it is closed
	detached int                    // links that another process has detached

	applyTakes time.Duration // for one Apply
	flowsTake  time.Duration // for one call of Flows
	chunk      time.Duration // for a part of Sync
	chunks     int           // parts of one Sync

	flows          []conntrack.Flow
	timeout        time.Duration                     // of conntrack
	holds          map[policy.Protocol]time.Duration // of the last flow that was cut
	own            map[netip.Addr]bool
	hits           map[dataplane.Hit]uint64
	interfaces     node.Interfaces
	unseen         map[node.NetNS][]node.Link
	changed        func() // of WatchInterfaces
	tunnels        inspect.Tunnels
	judgesLocal    bool
	readsOwn       bool
	learned        map[netip.Addr][]compiler.PatternID
	valid          map[netip.Addr][]compiler.PatternID
	misses         map[netip.Addr]dataplane.Miss
	names          []dataplane.LearnedName
	tunnelsSet     []inspect.Tunnels // by SetTunnels
	tunnelsChanged func()            // of WatchTunnels
	warnings       []inspect.Warning
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{
		maps: compiler.Maps{
			Pods: map[netip.Addr]compiler.Pod{}, Addresses: map[netip.Addr]compiler.ClassID{}, Networks: map[netip.Prefix]compiler.ClassID{},
			Rows: map[compiler.RowKey]compiler.Row{}, Ports: map[compiler.PortKey]compiler.Decision{}, Interfaces: map[uint32]compiler.Interface{},
			Domains: map[string]compiler.Domain{}, Resolvers: map[netip.AddrPort]struct{}{},
		},
		failures: map[string][]error{}, calls: map[string]int{}, hits: map[dataplane.Hit]uint64{},
		holds: map[policy.Protocol]time.Duration{},
	}
}

// fail makes the next calls of a method fail, one for each error. nil is a success between them.
func (k *fakeKernel) fail(method string, errs ...error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failures[method] = append(k.failures[method], errs...)
}

// call counts a call and returns the error that is due. The caller holds mu.
func (k *fakeKernel) call(method string) error {
	k.calls[method]++
	due := k.failures[method]
	if len(due) == 0 {
		return nil
	}
	k.failures[method] = due[1:]
	return due[0]
}

func (k *fakeKernel) called(method string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[method]
}

func (k *fakeKernel) Apply(c compiler.Changes) error {
	applyTakes, _, _ := k.pace()
	time.Sleep(applyTakes)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Apply"); err != nil {
		return err
	}
	for _, i := range c.GoneInterfaces {
		delete(k.maps.Interfaces, i)
	}
	apply(k.maps.Ports, c.Ports)
	apply(k.maps.Rows, c.Rows)
	apply(k.maps.Addresses, c.Addresses)
	apply(k.maps.Networks, c.Networks)
	for _, a := range c.GoneAddresses {
		delete(k.maps.Addresses, a)
	}
	apply(k.maps.Pods, c.Pods)
	apply(k.maps.Interfaces, c.Interfaces)
	apply(k.maps.Domains, c.Domains)
	apply(k.maps.Resolvers, c.Resolvers)
	for _, key := range c.StaleRows {
		delete(k.maps.Rows, key)
	}
	for _, key := range c.StalePorts {
		delete(k.maps.Ports, key)
	}
	return nil
}

func apply[K comparable, V any](to map[K]V, writes []compiler.Write[K, V]) {
	for _, w := range writes {
		if w.Delete {
			delete(to, w.Key)
		} else {
			to[w.Key] = w.Value
		}
	}
}

// setPace changes how long an Apply takes, and the parts of a Sync, while the kernel is in use.
func (k *fakeKernel) setPace(applyTakes time.Duration, chunks int, chunk time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.applyTakes, k.chunks, k.chunk = applyTakes, chunks, chunk
}

func (k *fakeKernel) pace() (applyTakes time.Duration, chunks int, chunk time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.applyTakes, k.chunks, k.chunk
}

func (k *fakeKernel) Sync(want *compiler.Maps, between func() error) (dataplane.Drift, error) {
	_, chunks, chunk := k.pace()
	for range chunks {
		time.Sleep(chunk)
		if between != nil {
			if err := between(); err != nil {
				return nil, err
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Sync"); err != nil {
		return nil, err
	}
	return dataplane.Drift{
		repair("pods", k.maps.Pods, want.Pods), repair("addresses", k.maps.Addresses, want.Addresses), repair("networks", k.maps.Networks, want.Networks),
		repair("rows", k.maps.Rows, want.Rows), repair("ports", k.maps.Ports, want.Ports), repair("interfaces", k.maps.Interfaces, want.Interfaces),
		repair("domains", k.maps.Domains, want.Domains), repair("resolvers", k.maps.Resolvers, want.Resolvers),
	}, nil
}

func repair[K, V comparable](name string, have, want map[K]V) dataplane.MapDrift {
	drift := dataplane.MapDrift{Map: name}
	for key, v := range want {
		got, ok := have[key]
		switch {
		case !ok:
			drift.Missing++
		case got != v:
			drift.Wrong++
		}
		have[key] = v
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			drift.Extra++
			delete(have, key)
		}
	}
	return drift
}

// FailClosed isolates every pod whose entry is not as it should be.
func (k *fakeKernel) FailClosed(want *compiler.Maps) (isolated int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("FailClosed"); err != nil {
		return 0, err
	}
	for addr, pod := range want.Pods {
		if k.maps.Pods[addr] != pod {
			pod.Sets = [2]compiler.SetID{dataplane.DenyAll, dataplane.DenyAll}
			k.maps.Pods[addr] = pod
			isolated++
		}
	}
	return isolated, nil
}

func (k *fakeKernel) Alone() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.others, k.call("Alone")
}

func (k *fakeKernel) EarlierIsolation() (map[netip.Addr][2]bool, error) {
	if k.read != nil {
		<-k.read
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.earlier, k.call("EarlierIsolation")
}

func (k *fakeKernel) Attach() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Attach"); err != nil {
		return err
	}
	k.attached, k.others = true, false
	return nil
}

func (k *fakeKernel) Heal() (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Heal"); err != nil {
		return 0, err
	}
	detached := k.detached
	k.detached = 0
	return detached, nil
}

func (k *fakeKernel) Flows(addrs ...netip.Addr) iter.Seq2[[]conntrack.Flow, error] {
	return func(yield func([]conntrack.Flow, error) bool) {
		k.mu.Lock()
		takes := k.flowsTake
		k.mu.Unlock()
		time.Sleep(takes)
		k.mu.Lock()
		err := k.call("Flows")
		flows := slices.DeleteFunc(slices.Clone(k.flows), func(f conntrack.Flow) bool {
			return !slices.Contains(addrs, f.Original.Source.Addr()) && !slices.Contains(addrs, f.Reply.Source.Addr())
		})
		k.mu.Unlock()
		if err != nil {
			yield(nil, err)
		} else if len(flows) > 0 {
			yield(flows, nil)
		}
	}
}

func (k *fakeKernel) EstablishedTimeout() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.timeout
}

func (k *fakeKernel) Cut(flows []conntrack.Flow, hold time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("Cut"); err != nil {
		return err
	}
	for _, f := range flows {
		k.holds[f.Protocol] = hold
	}
	k.flows = slices.DeleteFunc(k.flows, func(f conntrack.Flow) bool {
		return slices.ContainsFunc(flows, func(g conntrack.Flow) bool { return f.Original == g.Original })
	})
	return nil
}

func (k *fakeKernel) NodeAddresses() (map[netip.Addr]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.own, k.call("NodeAddresses")
}

func (k *fakeKernel) LearnsNames() bool { return true }

func (k *fakeKernel) Patterns() (map[string]compiler.PatternID, compiler.PatternID) { return nil, 0 }

func (k *fakeKernel) PatternsOf(addr netip.Addr) []compiler.PatternID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.learned[addr]
}

func (k *fakeKernel) ValidPatternsOf(addr netip.Addr) []compiler.PatternID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.valid[addr]
}

func (k *fakeKernel) MissOf(addr netip.Addr) (dataplane.Miss, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	miss, ok := k.misses[addr]
	return miss, ok
}

func (k *fakeKernel) LearnedNames() ([]dataplane.LearnedName, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.names, k.call("LearnedNames")
}

func (k *fakeKernel) SetReadsOwn(reads bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readsOwn = reads
	return nil
}

func (k *fakeKernel) ForgetNames() error { return nil }

func (k *fakeKernel) Usage() []dataplane.MapUsage { return nil }

func (k *fakeKernel) Counters() (dataplane.Counters, error) { return dataplane.Counters{}, nil }

func (k *fakeKernel) RuleHits() (map[dataplane.Hit]uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.hits), k.call("RuleHits")
}

func (k *fakeKernel) ForgetHits(h dataplane.Hit) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.hits, h)
	return k.call("ForgetHits")
}

func (k *fakeKernel) ReadInterfaces() (node.Interfaces, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.interfaces, k.call("ReadInterfaces")
}

func (k *fakeKernel) ReadUnseen() (map[node.NetNS][]node.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unseen, k.call("ReadUnseen")
}

func (k *fakeKernel) WatchInterfaces(ctx context.Context, changed func()) error {
	k.mu.Lock()
	k.changed = changed
	err := k.call("WatchInterfaces")
	k.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (k *fakeKernel) ReadTunnels() (*inspect.Tunnels, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	tunnels := k.tunnels
	return &tunnels, k.call("ReadTunnels")
}

func (k *fakeKernel) WatchTunnels(ctx context.Context, changed func()) error {
	k.mu.Lock()
	k.tunnelsChanged = changed
	err := k.call("WatchTunnels")
	k.mu.Unlock()
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (k *fakeKernel) SetJudgesLocal(judges bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("SetJudgesLocal"); err != nil {
		return err
	}
	k.judgesLocal = judges
	return nil
}

func (k *fakeKernel) SetTunnels(t *inspect.Tunnels) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("SetTunnels"); err != nil {
		return err
	}
	k.tunnelsSet = append(k.tunnelsSet, *t)
	return nil
}

func (k *fakeKernel) Warnings() []inspect.Warning {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.warnings
}

func (k *fakeKernel) CheckMaps() error { return nil }

func (k *fakeKernel) CheckLinks() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.detached > 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// live are the flows that conntrack has.
func (k *fakeKernel) live() []conntrack.Flow {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.flows)
}

// set is the set of a pod's address in one direction; 0: it is not isolated.
func (k *fakeKernel) set(ip string, d policy.Direction) compiler.SetID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.maps.Pods[netip.MustParseAddr(ip)].Sets[d]
}
