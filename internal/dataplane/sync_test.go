package dataplane_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// two of everything, with nothing to do with each other.
func twoOfEverything() compiler.Changes {
	var c compiler.Changes
	for i := range 2 {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		c.Ports = append(c.Ports, compiler.Write[compiler.PortKey, compiler.Decision]{Key: compiler.PortKey{PortList: 1, Protocol: policy.TCP, Port: uint16(i), Bits: 16}})
		c.Rows = append(c.Rows, compiler.Write[compiler.RowKey, compiler.Row]{Key: compiler.RowKey{Set: 1, Class: compiler.ClassID(i)}})
		c.Addresses = append(c.Addresses, compiler.Write[netip.Addr, compiler.ClassID]{Key: addr, Value: 1})
		c.Networks = append(c.Networks, compiler.Write[netip.Prefix, compiler.ClassID]{Key: netip.PrefixFrom(addr, 32), Value: 1})
		c.Pods = append(c.Pods, compiler.Write[netip.Addr, compiler.Pod]{Key: addr})
	}
	return c
}

// A map that is full stops the changes before anything refers to what is not there.
func TestApplyStopsAtAFullMap(t *testing.T) {
	order := []string{"ports", "rows", "addresses", "networks", "pods"}
	for i, full := range order {
		t.Run(full, func(t *testing.T) {
			sizes := map[string]uint32{}
			for _, m := range order {
				sizes[m] = 10
			}
			sizes[full] = 1
			if full == "networks" {
				sizes[full] = 2 // 0.0.0.0/0 is always there
			}
			d := newDataplane(t, dataplane.Options{Sizes: dataplane.Sizes{
				Ports: sizes["ports"], Rows: sizes["rows"], Addresses: sizes["addresses"], Networks: sizes["networks"], Pods: sizes["pods"],
			}})
			err := d.Apply(twoOfEverything())
			var mapFull *dataplane.MapFullError
			if !errors.As(err, &mapFull) || *mapFull != (dataplane.MapFullError{Map: full, Max: sizes[full]}) {
				t.Fatalf("error %v", err)
			}
			entries := map[string]uint32{}
			for _, u := range d.Usage() {
				entries[u.Map] = u.Entries
			}
			entries["networks"]-- // 0.0.0.0/0
			for j, m := range order {
				if want := []uint32{2, 1, 0}[cmp.Compare(j, i)+1]; entries[m] != want {
					t.Errorf("%s has %d entries, want %d", m, entries[m], want)
				}
			}
		})
	}
}

func TestApplyIsIdempotent(t *testing.T) {
	d := newDataplane(t, dataplane.Options{})
	changes := twoOfEverything()
	changes.GoneAddresses = []netip.Addr{changes.Addresses[0].Key, netip.MustParseAddr("10.99.0.1")}
	changes.Networks = append(changes.Networks, compiler.Write[netip.Prefix, compiler.ClassID]{Key: netip.MustParsePrefix("10.99.0.0/16"), Delete: true})
	changes.StaleRows = []compiler.RowKey{changes.Rows[0].Key, {Set: 99}}
	changes.StalePorts = []compiler.PortKey{changes.Ports[0].Key, {PortList: 99}}
	for range 2 {
		if err := d.Apply(changes); err != nil {
			t.Fatal(err)
		}
		want := "[{pods 2 16384} {addresses 1 524288} {networks 3 1048576} {rows 1 524288} {ports 1 1048576} {interfaces 0 16384} {domains 0 16384} {resolvers 0 4096}]"
		if got := fmt.Sprint(d.Usage()); got != want {
			t.Errorf("usage\n%v, want\n%v", got, want)
		}
	}
}

func TestSyncHealsAndCounts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := newDataplane(t, dataplane.Options{})
	changes := twoOfEverything()
	want := &compiler.Maps{
		Pods:      map[netip.Addr]compiler.Pod{changes.Pods[0].Key: {}, changes.Pods[1].Key: {}},
		Addresses: map[netip.Addr]compiler.ClassID{changes.Addresses[0].Key: 1, changes.Addresses[1].Key: 1},
		Networks:  map[netip.Prefix]compiler.ClassID{changes.Networks[0].Key: 1, changes.Networks[1].Key: 1},
		Rows:      map[compiler.RowKey]compiler.Row{changes.Rows[0].Key: {}, changes.Rows[1].Key: {}},
		Ports:     map[compiler.PortKey]compiler.Decision{changes.Ports[0].Key: {}, changes.Ports[1].Key: {}},
	}
	if drift := sync(t, d, want); drift.Total() != 10 {
		t.Errorf("filling: drift %v", drift)
	}
	if drift := sync(t, d, want); drift.Total() != 0 {
		t.Errorf("again: drift %v", drift)
	}

	m := d.Maps()
	check(t, m.Addresses.Put(mapped("10.0.0.0"), uint32(7)))                                                         // wrong
	check(t, m.Addresses.Put(mapped("10.0.9.9"), uint32(7)))                                                         // extra
	check(t, m.Addresses.Delete(mapped("10.0.0.1")))                                                                 // missing
	check(t, m.Networks.Delete(bpf.FilterNetworkKey{Prefixlen: 96, Addr: mapped("0.0.0.0")}))                        // missing, and stands always
	check(t, m.Networks.Put(bpf.FilterNetworkKey{Prefixlen: 0}, uint32(7)))                                          // extra: ::/0
	check(t, m.Networks.Put(bpf.FilterNetworkKey{Prefixlen: 90, Addr: mapped("0.0.0.0")}, uint32(7)))                // extra, no prefix of ours
	check(t, m.Pods.Put(mapped("10.0.0.0"), bpf.FilterPod{Sets: [4]uint32{1, 2}}))                                   // wrong
	check(t, m.Rows.Put(bpf.FilterRowKey{Set: 1, Class: 1}, bpf.FilterRow{PortList: 3}))                             // wrong
	check(t, m.Ports.Put(bpf.FilterPortKey{Prefixlen: 48, PortList: 9, Protocol: 6}, bpf.FilterDecision{Action: 1})) // extra
	check(t, m.Ports.Put(bpf.FilterPortKey{Prefixlen: 3, PortList: 1, Protocol: 17}, bpf.FilterDecision{Action: 1})) // extra, no prefix of ours

	drift := sync(t, d, want)
	if got := fmt.Sprint(drift); got != "[{pods 0 1 0} {addresses 1 1 1} {networks 1 0 2} {rows 0 1 0} {ports 0 0 2} {interfaces 0 0 0} {domains 0 0 0} {resolvers 0 0 0}]" {
		t.Errorf("drift %v", got)
	}
	if drift := sync(t, d, want); drift.Total() != 0 {
		t.Errorf("after healing: drift %v", drift)
	}

	// These stand in place of right keys: bits behind the prefix do not count.
	network := bpf.FilterNetworkKey{Prefixlen: 96 + 16, Addr: mapped("10.5.0.0")}
	ports := bpf.FilterPortKey{Prefixlen: 64 - 8, PortList: 2, Protocol: 6}
	want.Networks[netip.MustParsePrefix("10.5.0.0/16")] = 5
	want.Ports[compiler.PortKey{PortList: 2, Protocol: policy.TCP}] = compiler.Decision{Rule: 5}
	sync(t, d, want)
	strayNetwork, strayPorts := network, ports
	strayNetwork.Addr, strayPorts.Port = mapped("10.5.6.7"), 7
	check(t, m.Networks.Put(strayNetwork, uint32(7)))
	check(t, m.Ports.Put(strayPorts, bpf.FilterDecision{Rule: 7}))
	sync(t, d, want)
	var class uint32
	var decision bpf.FilterDecision
	if err := errors.Join(m.Networks.Lookup(network, &class), m.Ports.Lookup(ports, &decision)); err != nil || class != 5 || decision.Rule != 5 {
		t.Errorf("in place of stray keys: class %d, rule %d, %v", class, decision.Rule, err)
	}
	if drift := sync(t, d, want); drift.Total() != 0 {
		t.Errorf("after stray keys: drift %v", drift)
	}

	for range 100 {
		sync(t, d, randomTables(r))
		tables := randomTables(r)
		sync(t, d, tables)
		if drift := sync(t, d, tables); drift.Total() != 0 {
			t.Fatalf("random tables: drift %v", drift)
		}
		for i, n := range []int{len(tables.Pods), len(tables.Addresses), -1, len(tables.Rows), len(tables.Ports)} {
			if u := d.Usage()[i]; n >= 0 && u.Entries != uint32(n) {
				t.Fatalf("usage %v of %d entries", u, n)
			}
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
