package dataplane_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	stdsync "sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

func nothing() error { return nil }

// strange puts entries among the contents that no Tables could express. Like the kernel's tries, it has one entry only
// of those whose keys differ behind the prefix alone.
func strange(r *rand.Rand, c *dataplane.Contents) {
	c.PutNetwork(bpf.FilterNetworkKey{Prefixlen: uint32(r.IntN(96)), Addr: mapped("10.0.0.1")}, 1)
	c.PutPort(bpf.FilterPortKey{Prefixlen: uint32(r.IntN(48)), PortList: 1}, bpf.FilterDecision{Action: 7})
	c.PutPort(bpf.FilterPortKey{Prefixlen: 64, PortList: 1, Pad: 9}, bpf.FilterDecision{})
	c.Rows[bpf.FilterRowKey{Set: 1}] = bpf.FilterRow{DefaultDecision: bpf.FilterDecision{Action: 9}}
	c.Interfaces[uint32(r.IntN(3))] = bpf.FilterInterface{Kind: 1 << 20}
}

func randomInterfaces(r *rand.Rand, t *compiler.Maps) {
	t.Interfaces = map[uint32]compiler.Interface{}
	for i := range uint32(6) {
		if r.IntN(2) == 0 {
			t.Interfaces[i] = compiler.Interface{Kind: compiler.InterfaceKind(1 + r.IntN(2)), Flags: compiler.PodFlags(r.IntN(2))}
		}
	}
	for addr, p := range t.Pods {
		p.IfIndex = r.Uint32N(6)
		t.Pods[addr] = p
	}
}

// onWire is what the maps hold of tables: nothing of addresses that no packet has, and always 0.0.0.0/0.
func onWire(t *compiler.Maps) *compiler.Maps {
	u := *t
	u.Pods, u.Addresses, u.Networks = maps.Clone(t.Pods), maps.Clone(t.Addresses), maps.Clone(t.Networks)
	maps.DeleteFunc(u.Pods, func(a netip.Addr, _ compiler.Pod) bool { return a.Is4In6() })
	maps.DeleteFunc(u.Addresses, func(a netip.Addr, _ compiler.ClassID) bool { return a.Is4In6() })
	maps.DeleteFunc(u.Networks, func(p netip.Prefix, _ compiler.ClassID) bool { return p.Addr().Is4In6() && p.Bits() >= 96 })
	all := netip.MustParsePrefix("0.0.0.0/0")
	u.Networks[all] = t.Networks[all]
	return &u
}

func sameTables(a, b *compiler.Maps) bool {
	return maps.Equal(a.Pods, b.Pods) && maps.Equal(a.Addresses, b.Addresses) && maps.Equal(a.Networks, b.Networks) &&
		maps.Equal(a.Rows, b.Rows) && maps.Equal(a.Ports, b.Ports) && maps.Equal(a.Interfaces, b.Interfaces)
}

// Whatever the maps hold, the changes make them hold what they should, also if some of the writes fail and
// Diff is asked again.
func TestDiffMakesAnyContentsEqual(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	stop := errors.New("stop")
	have := dataplane.NewContents()
	for range 500 {
		want := randomTables(r)
		randomInterfaces(r, want)
		if r.IntN(2) == 0 {
			strange(r, have)
		}
		for {
			left := r.IntN(100)
			err := have.Write(dataplane.Diff(have, want), func() error {
				if left--; left == 0 {
					return stop
				}
				return nil
			})
			if err == nil {
				break
			}
		}
		if got, want := have.Decode(), onWire(want); !sameTables(got, want) {
			t.Fatalf("got\n%+v, want\n%+v", got, want)
		}
		check(t, have.Write(dataplane.Diff(have, want), func() error { return errors.New("a write although all is right") }))
	}
}

// snapshot is what some flows are decided by, and how.
type snapshot [2]compiler.Decision

func decideAll(t *compiler.Maps, flows []policy.Flow) []snapshot {
	out := make([]snapshot, len(flows))
	for i, f := range flows {
		for _, d := range policy.Directions {
			out[i][d], _ = t.Lookup(d, f)
		}
	}
	return out
}

// After each single write every flow is decided as before the changes or as after them, by the same rule.
// Where groups and pods change at once it may be decided by the old policies with the new groups; by the new
// policies with the old groups it is not.
func TestNoWriteLeavesHalfAPolicy(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		w, have := newWorld(r), dataplane.NewContents()
		c := w.compiler
		for round := range 30 {
			flows := make([]policy.Flow, 20)
			for i := range flows {
				flows[i] = randomPacket(r).Flow
			}
			allowed := [][]snapshot{decideAll(c.Maps(), flows)}
			changes := []compiler.Changes{}
			commit := func() {
				changes = append(changes, c.Commit())
				allowed = append(allowed, decideAll(c.Maps(), flows))
			}
			change := func() {
				for range r.IntN(6) {
					addr := pick(r, someAddrs)
					member, err := addr.Prefix(pick(r, []int{8, 24, 31, 32, addr.BitLen(), addr.BitLen()}))
					check(t, err)
					w.changeMember(pick(r, groupKeys), member)
				}
				commit()
				w.changePod()
				commit()
			}
			between := func(i int) func() error {
				return func() error {
					now := decideAll(have.Decode(), flows)
					for j, f := range flows {
						if f.Source.Is4In6() || f.Destination.Is4In6() {
							continue
						}
						for _, d := range policy.Directions {
							if !slices.ContainsFunc(allowed[i:], func(s []snapshot) bool { return s[j][d] == now[j][d] }) {
								return fmt.Errorf("%v %+v: decided %+v in the middle", d, f, now[j][d])
							}
						}
					}
					return nil
				}
			}
			change()
			if r.IntN(2) == 0 {
				check(t, have.Write(dataplane.Diff(have, c.Maps()), between(0)))
			} else {
				for i := range changes {
					check(t, have.Write(dataplane.EncodeChanges(changes[i]), between(i)))
				}
			}
			if round%5 == 0 {
				allowed = allowed[len(allowed)-1:]
				check(t, have.Write(dataplane.EncodeChanges(c.Collect()), between(0)))
			}
			if d := dataplane.Diff(have, c.Maps()); round == 0 {
				// Only 0.0.0.0/0 may be missing, which a Dataplane has from the first.
				check(t, have.Write(d, between(len(allowed)-1)))
			}
		}
		check(t, have.Write(dataplane.Diff(have, c.Maps()), func() error { return errors.New("a write although all is right") }))
	}
}

// A write that fails lifts no interface's source check, whichever write it is: an interface stays one pod's own if
// it was and is to be. The next try may fail at the same place.
func TestAFailedWriteLiftsNoSourceCheck(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w, have := newWorld(r), dataplane.NewContents()
	c := w.compiler
	for range 12 {
		for range r.IntN(4) {
			w.changeMember(pick(r, groupKeys), netip.PrefixFrom(w.address(), 32))
		}
		w.changePod()
		applied := c.Commit()
		own := map[uint32]bool{}
		for i, was := range have.Interfaces {
			own[i] = was.Kind == uint32(compiler.PodInterface) && c.Maps().Interfaces[i].Kind == compiler.PodInterface
		}
		for _, changes := range []dataplane.Changes{dataplane.EncodeChanges(applied), dataplane.Diff(have, c.Maps())} {
			for failing := 1; ; failing += 1 + r.IntN(3) {
				tried, n := clone(have), 0
				err := tried.Write(changes, func() error {
					if n++; n == failing {
						return errors.New("the map is full")
					}
					return nil
				})
				for i := range own {
					if _, ok := tried.Interfaces[i]; own[i] && !ok {
						t.Fatalf("after %d writes interface %d has no source check", failing, i)
					}
				}
				if err == nil {
					break
				}
			}
		}
		check(t, have.Write(dataplane.Diff(have, c.Maps()), func() error { return nil }))
	}
}

func clone(c *dataplane.Contents) *dataplane.Contents {
	return &dataplane.Contents{
		Pods: maps.Clone(c.Pods), Addresses: maps.Clone(c.Addresses), Networks: maps.Clone(c.Networks),
		Rows: maps.Clone(c.Rows), Ports: maps.Clone(c.Ports), Interfaces: maps.Clone(c.Interfaces),
	}
}

// world changes pods and groups at random.
type world struct {
	r        *rand.Rand
	compiler *compiler.Compiler
	members  map[policy.GroupKey]map[netip.Prefix]bool
	version  int64
}

func newWorld(r *rand.Rand) *world {
	return &world{r: r, compiler: compiler.New(), members: map[policy.GroupKey]map[netip.Prefix]bool{}}
}

func (w *world) changeMember(key policy.GroupKey, p netip.Prefix) {
	if w.members[key] == nil {
		w.members[key] = map[netip.Prefix]bool{}
	}
	if w.members[key][p] {
		w.compiler.UpdateGroup(key, nil, []netip.Prefix{p})
	} else {
		w.compiler.UpdateGroup(key, []netip.Prefix{p}, nil)
	}
	w.members[key][p] = !w.members[key][p]
}

func (w *world) changePod() {
	addr := pick(w.r, someAddrs)
	var policies []*policy.Policy
	for range w.r.IntN(4) {
		w.version++
		policies = append(policies, randomPolicy(w.r, w.version))
	}
	slices.SortFunc(policies, policy.Compare)
	w.compiler.SetPod(addr.String(), compiler.PodSpec{Addresses: []netip.Addr{addr}, Policies: policies, Interfaces: []uint32{1 + w.r.Uint32N(3)}})
}

// address is one of 100.
func (w *world) address() netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(w.r.IntN(100))}) }

// A Sync goes on while changes are applied: it counts none of them as drift and reverts none, whatever it has
// read before.
func TestSyncBesideApply(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dataplane.SmallBatches(t, 20)
	d, w := newDataplane(t, dataplane.Options{}), newWorld(r)
	c := w.compiler
	change := func() error {
		w.changePod()
		for range 10 {
			w.changeMember(pick(r, groupKeys), netip.PrefixFrom(w.address(), 32))
		}
		if err := d.Apply(c.Commit()); err != nil {
			return err
		}
		return d.Apply(c.Collect())
	}
	for range 100 {
		check(t, change())
	}

	for range 20 {
		drift, err := d.Sync(c.Maps(), change)
		check(t, err)
		if drift.Total() != 0 {
			t.Fatalf("drift %v", drift)
		}
	}
	if drift := sync(t, d, c.Maps()); drift.Total() != 0 {
		t.Errorf("in the end: drift %v", drift)
	}
	for i, n := range []int{len(c.Maps().Pods), len(c.Maps().Addresses)} {
		if u := d.Usage()[i]; u.Entries < uint32(n)-2 || u.Entries > uint32(n) { // some addresses are not on the wire
			t.Errorf("usage %v of %d entries", u, n)
		}
	}

	// What another process damages is repaired meanwhile, unless a change writes it first.
	for range 20 {
		m := d.Maps()
		for range 20 {
			key := mapped(w.address().String())
			if r.IntN(2) == 0 {
				_ = m.Addresses.Delete(key)
			} else {
				check(t, m.Addresses.Put(key, uint32(7)))
			}
		}
		_, err := d.Sync(c.Maps(), change)
		check(t, err)
		if drift := sync(t, d, c.Maps()); drift.Total() != 0 {
			t.Fatalf("after the repair: drift %v", drift)
		}
	}
}

// Apply and Sync are called from two goroutines, as by the race detector's taste.
func TestApplyFromAnotherGoroutine(t *testing.T) {
	d := newDataplane(t, dataplane.Options{})
	want := &compiler.Maps{Addresses: map[netip.Addr]compiler.ClassID{}}
	for i := range 5000 {
		want.Addresses[netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})] = 1
	}
	sync(t, d, want)
	pods := map[netip.Addr]compiler.Pod{}
	stop := make(chan struct{})
	var applying stdsync.WaitGroup
	applying.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			addr := netip.AddrFrom4([4]byte{10, 3, 0, byte(i)})
			pods[addr] = compiler.Pod{Sets: [2]compiler.SetID{compiler.SetID(i)}}
			if err := d.Apply(compiler.Changes{Pods: []compiler.Write[netip.Addr, compiler.Pod]{{Key: addr, Value: pods[addr]}}}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 30 {
		// The pods are not among what it wants: those that it finds go, unless they were written since.
		if _, err := d.Sync(want, nil); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	applying.Wait()
	whole := *want
	whole.Pods = pods
	sync(t, d, &whole)
	if drift := sync(t, d, &whole); drift.Total() != 0 {
		t.Errorf("drift %v", drift)
	}
}

// An Apply waits for one batch of a Sync at most, be it reading, comparing or writing.
func TestBetweenEndsASync(t *testing.T) {
	d := newDataplane(t, dataplane.Options{})
	want := &compiler.Maps{Addresses: map[netip.Addr]compiler.ClassID{}}
	for i := range 10_000 {
		want.Addresses[netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})] = 1
	}
	calls := 0
	_, err := d.Sync(want, func() error {
		calls++
		return d.Apply(compiler.Changes{Pods: []compiler.Write[netip.Addr, compiler.Pod]{{Key: netip.MustParseAddr("10.3.0.1")}}})
	})
	check(t, err)
	if calls < 10_000/1024+10_000/256 { // compared and written
		t.Errorf("between was called %d times", calls)
	}
	ended := errors.New("ended")
	for after := range 50 {
		left := after
		_, err := d.Sync(&compiler.Maps{}, func() error {
			if left--; left < 0 {
				return ended
			}
			return nil
		})
		if err == nil {
			break // all that was wanted no more was deleted, some at a time
		}
		if !errors.Is(err, ended) {
			t.Fatalf("after %d calls: error %v", after, err)
		}
	}
	sync(t, d, want)
	if drift := sync(t, d, want); drift.Total() != 0 {
		t.Errorf("drift %v", drift)
	}
}
