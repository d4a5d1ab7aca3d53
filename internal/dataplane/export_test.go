package dataplane

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/events"
)

// Patiently is how writes to maps are tried.
var Patiently = patiently

// SpecOf is the program with its maps.
func SpecOf(o Options) (*ebpf.CollectionSpec, error) { return specOf(o.withDefaults()) }

// RevokedKeys are the keys of the records that each hold off a flow's server, the most precise one first.
func RevokedKeys(f conntrack.Flow, pods ...netip.Addr) []bpf.FilterRevokedKey {
	return keysOf(&f, func(a bpf.FilterAddress) bool { return slices.Contains(pods, decodeAddr(a)) })
}

// ExpireNames makes what was learned have expired long ago.
func (d *Dataplane) ExpireNames(t testing.TB) {
	t.Helper()
	rewriteAll[bpf.FilterAddress](t, d.objs.Learned, func(v *bpf.FilterLearnedAddress) {
		for i := range v.Slots {
			v.Slots[i] &= 1<<32 - 1
			if v.Slots[i] != 0 {
				v.Slots[i] |= 1 << 32
			}
		}
	})
	rewriteAll[bpf.FilterPlaceKey](t, d.objs.Places, func(v *bpf.FilterPlace) { v.Until = 1 })
	rewriteAll[bpf.FilterPlaceKey](t, d.objs.Names, func(v *bpf.FilterName) { v.Until = 1 })
}

func rewriteAll[K bpf.FilterAddress | bpf.FilterPlaceKey, V any](t testing.TB, m *ebpf.Map, change func(*V)) {
	t.Helper()
	var key K
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		change(&value)
		if err := m.Update(&key, &value, ebpf.UpdateExist); err != nil {
			t.Fatal(err)
		}
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
}

// Program is the loaded program, to be run on packets that no wire carried.
func (d *Dataplane) Program() *ebpf.Program { return d.objs.Kidoban }

// Maps are the loaded maps, to be damaged.
func (d *Dataplane) Maps() *bpf.FilterMaps { return &d.objs.FilterMaps }

// Change has the generations that New makes from now on until the test ends be of another build.
func Change(t testing.TB, change func(*ebpf.CollectionSpec)) {
	t.Helper()
	loadSpec = func() (*ebpf.CollectionSpec, error) {
		spec, err := bpf.LoadFilter()
		if err == nil {
			change(spec)
		}
		return spec, err
	}
	t.Cleanup(func() { loadSpec = bpf.LoadFilter })
}

// EncodeChanges is the form in which Apply writes what the compiler says.
func EncodeChanges(c compiler.Changes) Changes { return encodeChanges(&c) }

// NewContents are those of maps that have nothing.
func NewContents() *Contents {
	return &Contents{
		Pods: map[bpf.FilterAddress]bpf.FilterPod{}, Addresses: map[bpf.FilterAddress]uint32{}, Networks: map[bpf.FilterNetworkKey]uint32{},
		Rows: map[bpf.FilterRowKey]bpf.FilterRow{}, Ports: map[bpf.FilterPortKey]bpf.FilterDecision{}, Interfaces: map[uint32]bpf.FilterInterface{},
		Domains: map[bpf.FilterDomainKey]bpf.FilterDomain{}, Resolvers: map[bpf.FilterResolverKey]uint32{},
	}
}

// PutNetwork puts an entry as the kernel's trie does.
func (c *Contents) PutNetwork(k bpf.FilterNetworkKey, class uint32) {
	_ = c.networks(nothing).put(k, class)
}

// PutPort puts an entry as the kernel's trie does.
func (c *Contents) PutPort(k bpf.FilterPortKey, d bpf.FilterDecision) {
	_ = c.ports(nothing).put(k, d)
}

func nothing() error { return nil }

func (c *Contents) networks(after func() error) plain[bpf.FilterNetworkKey, uint32] {
	return plain[bpf.FilterNetworkKey, uint32]{c.Networks, canonicalNetwork, after}
}

func (c *Contents) ports(after func() error) plain[bpf.FilterPortKey, bpf.FilterDecision] {
	return plain[bpf.FilterPortKey, bpf.FilterDecision]{c.Ports, canonicalPort, after}
}

// Write makes the changes on contents as on the kernel's maps, and calls after behind each write. An error of
// its ends it.
func (c *Contents) Write(changes Changes, after func() error) error {
	return changes.write(target{
		pods:       plain[bpf.FilterAddress, bpf.FilterPod]{c.Pods, nil, after},
		addresses:  plain[bpf.FilterAddress, uint32]{c.Addresses, nil, after},
		networks:   c.networks(after),
		rows:       plain[bpf.FilterRowKey, bpf.FilterRow]{c.Rows, nil, after},
		ports:      c.ports(after),
		interfaces: plain[uint32, bpf.FilterInterface]{c.Interfaces, nil, after},
		domains:    plain[bpf.FilterDomainKey, bpf.FilterDomain]{c.Domains, canonicalDomain, after},
		resolvers:  plain[bpf.FilterResolverKey, uint32]{c.Resolvers, nil, after},
	})
}

type plain[K, V comparable] struct {
	m         map[K]V
	canonical func(K) K // of a trie: keys with the same one are one node
	after     func() error
}

func (p plain[K, V]) put(k K, v V) error {
	p.remove(k)
	p.m[k] = v
	return p.after()
}

func (p plain[K, V]) delete(k K) error {
	p.remove(k)
	return p.after()
}

func (p plain[K, V]) remove(k K) {
	if p.canonical == nil {
		delete(p.m, k)
		return
	}
	maps.DeleteFunc(p.m, func(other K, _ V) bool { return p.canonical(other) == p.canonical(k) })
}

// FailClosedWhile is FailClosed that calls between after each batch of entries that it has read.
func (d *Dataplane) FailClosedWhile(want *compiler.Maps, between func() error) (int, error) {
	return d.failClosed(want, between)
}

// SmallBatches makes Sync call between after so many entries until the test ends.
func SmallBatches(t testing.TB, n int) {
	t.Helper()
	dump, diff, repair := dumpBatch, diffBatch, repairBatch
	dumpBatch, diffBatch, repairBatch = n, n, n
	t.Cleanup(func() { dumpBatch, diffBatch, repairBatch = dump, diff, repair })
}

// Revoke holds off the servers of flows, and leaves conntrack alone.
func (d *Dataplane) Revoke(flows []conntrack.Flow, hold time.Duration) error {
	now, err := events.Now()
	if err != nil {
		return err
	}
	return d.revoke(flows, now, hold)
}
