package dataplane_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// A map that is full closes the pods whose policies do not fit, leaves the others as they are, and heals when
// there is room.
func TestFailClosed(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Sizes: dataplane.Sizes{Addresses: 4}})
	run := newRunner(t, d)
	c := compiler.New()
	set := func(addr string, policies ...*policy.Policy) {
		c.SetPod(addr, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Policies: policies})
	}
	group := func(name string) policy.Rule {
		return policy.Rule{EveryPort: true, Peers: policy.ListPeers(policy.Peer{Group: policy.GroupKey{Name: name}})}
	}
	from := func(d policy.Direction, name string) *policy.Policy {
		p := isolate(d, group(name))
		p.ID.Name = name
		return p
	}
	passes := func(want bool, source, destination string) {
		t.Helper()
		if got := run.passes(packet{Flow: flow(source, destination, policy.TCP, 80)}); got != want {
			t.Errorf("%s → %s passes: %v, want %v", source, destination, got, want)
		}
	}
	const client, old, open, fresh, reused, outgoing, audited = "10.1.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"

	c.UpdateGroup(policy.GroupKey{Name: "small"}, []netip.Prefix{netip.MustParsePrefix(client + "/32")}, nil)
	set(old, from(policy.Ingress, "small"))
	set(open)
	set(reused, from(policy.Ingress, "small"))
	check(t, d.Apply(c.Commit()))
	for _, pod := range []string{old, open, reused} {
		passes(true, client, pod)
	}
	passes(false, "10.1.0.2", old)

	var many []netip.Prefix
	for i := range 10 {
		many = append(many, netip.MustParsePrefix(fmt.Sprintf("10.2.0.%d/32", i)))
	}
	c.UpdateGroup(policy.GroupKey{Name: "large"}, many, nil)
	set(open, from(policy.Ingress, "large"))
	set(fresh, from(policy.Ingress, "large"))
	set(outgoing, from(policy.Egress, "small"))
	set(reused, from(policy.Ingress, "large"), from(policy.Egress, "large"))
	c.SetPod(audited, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(audited)}, AuditPolicies: []*policy.Policy{underAudit(from(policy.Ingress, "large"))}})
	var full *dataplane.MapFullError
	if err := d.Apply(c.Commit()); !errors.As(err, &full) || full.Map != "addresses" {
		t.Fatalf("error %v", err)
	}
	for range 2 {
		closed, err := d.FailClosed(c.Maps())
		check(t, err)
		if closed != 3 {
			t.Errorf("%d addresses are closed, want 3", closed)
		}
		passes(true, client, old)
		passes(false, "10.1.0.2", old)
		passes(false, client, open)
		passes(false, client, fresh)
		passes(false, "10.2.0.1", fresh)
		passes(false, client, reused)
		passes(false, reused, "10.3.0.1")
		passes(true, fresh, "10.3.0.1") // nothing isolates it in this direction
		passes(true, "10.3.0.1", outgoing)
		passes(true, outgoing, client) // all that its policy needs is there
		passes(false, outgoing, "10.2.0.0")
		passes(true, client, audited) // nothing isolates it, and what would is not reported
		if _, err := d.Sync(c.Maps(), nil); !errors.As(err, &full) {
			t.Errorf("Sync: error %v", err)
		}
	}

	c.UpdateGroup(policy.GroupKey{Name: "large"}, nil, many[1:])
	c.Commit()
	sync(t, d, c.Maps())
	if drift := sync(t, d, c.Maps()); drift.Total() != 0 {
		t.Errorf("after healing: %v", drift)
	}
	for _, pod := range []string{open, fresh, reused} {
		passes(true, "10.2.0.0", pod)
		passes(false, "10.2.0.1", pod)
	}
	passes(true, outgoing, client)
	passes(false, outgoing, "10.2.0.0")
}

// A generation that is new has nothing to delete. Pods whose policies fit come under them, whichever map is full.
func TestFailClosedInANewGeneration(t *testing.T) {
	const client, small, large = "10.1.0.1", "10.0.0.1", "10.0.0.2"
	c := compiler.New()
	from := func(ports ...policy.PortRange) *policy.Policy {
		peer := policy.Peer{CIDR: netip.MustParsePrefix(client + "/32")}
		return isolate(policy.Ingress, policy.Rule{EveryPort: ports == nil, Ports: ports, Peers: policy.ListPeers(peer)})
	}
	var ports []policy.PortRange
	for i := range uint16(20) {
		ports = append(ports, port(policy.TCP, 80+2*i))
	}
	c.SetPod(small, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(small)}, Policies: []*policy.Policy{from()}})
	c.SetPod(large, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(large)}, Policies: []*policy.Policy{from(ports...)}})
	c.Commit()

	d := newDataplane(t, dataplane.Options{Sizes: dataplane.Sizes{Ports: 10}})
	var full *dataplane.MapFullError
	if _, err := d.Sync(c.Maps(), nil); !errors.As(err, &full) || full.Map != "ports" {
		t.Fatalf("Sync: error %v", err)
	}
	if denied, err := d.FailClosed(c.Maps()); err != nil || denied != 1 {
		t.Errorf("%d addresses are denied everything, error %v", denied, err)
	}
	run := newRunner(t, d)
	for _, tc := range []struct {
		source, destination string
		passes              bool
	}{{client, small, true}, {"10.1.0.9", small, false}, {client, large, false}} {
		if got := run.passes(packet{Flow: flow(tc.source, tc.destination, policy.TCP, 80)}); got != tc.passes {
			t.Errorf("%s → %s passes: %v, want %v", tc.source, tc.destination, got, tc.passes)
		}
	}
}

// What Apply writes while the maps are read is what a pod comes under, or is denied without.
func TestFailClosedDuringChanges(t *testing.T) {
	dataplane.SmallBatches(t, 1)
	pod, row := netip.MustParseAddr("10.0.0.1"), compiler.RowKey{Set: 1}
	deny := compiler.Row{Default: compiler.Decision{Action: policy.Deny}}
	want := &compiler.Maps{
		Pods: map[netip.Addr]compiler.Pod{pod: {Sets: [2]compiler.SetID{1}}},
		Rows: map[compiler.RowKey]compiler.Row{row: {}},
	}
	put := func(r compiler.Row) compiler.Changes {
		return compiler.Changes{Rows: []compiler.Write[compiler.RowKey, compiler.Row]{{Key: row, Value: r}}}
	}
	for name, tc := range map[string]struct {
		before, meanwhile compiler.Changes
		denied            int
	}{
		"a row goes":     {put(compiler.Row{}), compiler.Changes{StaleRows: []compiler.RowKey{row}}, 1},
		"a row comes":    {compiler.Changes{}, put(compiler.Row{}), 0},
		"a row is wrong": {put(compiler.Row{}), put(deny), 1},
		"a row is right": {put(deny), put(compiler.Row{}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDataplane(t, dataplane.Options{})
			check(t, d.Apply(tc.before))
			denied, err := d.FailClosedWhile(want, func() error { return d.Apply(tc.meanwhile) })
			if err != nil || denied != tc.denied {
				t.Errorf("%d addresses are denied everything, want %d; error %v", denied, tc.denied, err)
			}
		})
	}
}

// An address that is to be refused, and that there is no room for, closes the pods that refuse it; not those
// that just would not accept it.
func TestADenyThatDoesNotFit(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Sizes: dataplane.Sizes{Addresses: 2}})
	run := newRunner(t, d)
	c := compiler.New()
	group := func(name string, action policy.Action) policy.Rule {
		return policy.Rule{Action: action, EveryPort: true, Peers: policy.ListPeers(policy.Peer{Group: policy.GroupKey{Name: name}})}
	}
	admin := isolate(policy.Ingress, group("bad", policy.Deny))
	admin.Tier, admin.ID.Kind = policy.TierAdmin, "ClusterNetworkPolicy"
	const bad1, bad2, bad3, peer, denying, accepting = "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.3.0.1", "10.0.0.1", "10.0.0.2"
	add := func(group string, addr string) {
		c.UpdateGroup(policy.GroupKey{Name: group}, []netip.Prefix{netip.MustParsePrefix(addr + "/32")}, nil)
	}
	passes := func(want bool, source, destination string) {
		t.Helper()
		if got := run.passes(packet{Flow: flow(source, destination, policy.TCP, 80)}); got != want {
			t.Errorf("%s → %s passes: %v, want %v", source, destination, got, want)
		}
	}
	add("bad", bad1)
	add("bad", bad2)
	c.SetPod(denying, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(denying)}, Policies: []*policy.Policy{
		admin, isolate(policy.Ingress, policy.Rule{Everyone: true, EveryPort: true}),
	}})
	c.SetPod(accepting, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(accepting)}, Policies: []*policy.Policy{isolate(policy.Ingress, group("bad", policy.Allow))}})
	check(t, d.Apply(c.Commit()))
	passes(false, bad1, denying)
	passes(true, peer, denying)

	add("bad", bad3)
	var full *dataplane.MapFullError
	if err := d.Apply(c.Commit()); !errors.As(err, &full) {
		t.Fatalf("error %v", err)
	}
	passes(true, bad3, denying) // until FailClosed
	closed, err := d.FailClosed(c.Maps())
	check(t, err)
	if closed != 1 {
		t.Errorf("%d addresses are closed, want 1", closed)
	}
	passes(false, bad3, denying)
	passes(false, peer, denying)
	passes(true, bad1, accepting)
	passes(false, bad3, accepting)

	c.UpdateGroup(policy.GroupKey{Name: "bad"}, nil, []netip.Prefix{netip.MustParsePrefix(bad1 + "/32")})
	c.Commit()
	sync(t, d, c.Maps())
	passes(false, bad3, denying)
	passes(true, peer, denying)
	passes(true, bad3, accepting)
	passes(false, bad1, accepting)
}

// damaged are tables in which some entries are missing, others wrong, and some too much.
func damaged(r *rand.Rand, t *compiler.Maps) *compiler.Maps {
	other := randomTables(r)
	u := &compiler.Maps{
		Pods: maps.Clone(t.Pods), Addresses: maps.Clone(t.Addresses), Networks: maps.Clone(t.Networks), Rows: maps.Clone(t.Rows), Ports: maps.Clone(t.Ports),
	}
	damage(r, u.Addresses, other.Addresses)
	damage(r, u.Networks, other.Networks)
	damage(r, u.Rows, other.Rows)
	damage(r, u.Ports, other.Ports)
	return u
}

func damage[K comparable, V any](r *rand.Rand, m, other map[K]V) {
	if r.IntN(2) == 0 {
		return
	}
	maps.DeleteFunc(m, func(K, V) bool { return r.IntN(10) == 0 })
	for k, v := range other {
		if r.IntN(10) == 0 {
			m[k] = v
		}
	}
}

// What Compare calls the same is the same for every flow, and what it does not call open accepts nothing
// more.
func TestCompareIsRight(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	differ, tight, open := 0, 0, 0
	for range 500 {
		want := randomTables(r)
		have := damaged(r, want)
		compared := want.Compare(have)
		for set := compiler.SetID(1); set <= 4; set++ {
			switch {
			case compared.Open[set]:
				open++
			case compared.Differ[set]:
				tight++
			default:
				differ++
			}
			for range 50 {
				p := randomPacket(r)
				if p.Source.Is4In6() {
					continue
				}
				entry := compiler.Pod{Sets: [2]compiler.SetID{set, set}}
				want.Pods = map[netip.Addr]compiler.Pod{p.Destination: entry}
				have.Pods = want.Pods
				v, _ := want.Lookup(policy.Ingress, p.Flow)
				w, _ := have.Lookup(policy.Ingress, p.Flow)
				if !compared.Differ[set] && v != w {
					t.Fatalf("set %d is called the same: %+v is judged %+v, want %+v; have %+v, want %+v", set, p.Flow, w, v, have, want)
				}
				if !compared.Open[set] && w.Action == policy.Allow && v.Action == policy.Deny {
					t.Fatalf("set %d is not called open: %+v is accepted; have %+v, want %+v", set, p.Flow, have, want)
				}
			}
		}
	}
	if differ < 20 || tight < 20 || open < 20 {
		t.Errorf("sets that are the same: %d, that refuse more: %d, that may accept more: %d", differ, tight, open)
	}
}

// Pods that are gone keep no room that others need, neither their entries nor what they were judged by.
func TestSyncMakesRoomWherePodsAreGone(t *testing.T) {
	for full, sizes := range map[string]dataplane.Sizes{"pods": {Pods: 2}, "rows": {Rows: 2}, "ports": {Ports: 2}} {
		t.Run(full, func(t *testing.T) {
			d := newDataplane(t, dataplane.Options{Sizes: sizes})
			tables := func(first int) *compiler.Maps {
				want := &compiler.Maps{Pods: map[netip.Addr]compiler.Pod{}, Rows: map[compiler.RowKey]compiler.Row{}, Ports: map[compiler.PortKey]compiler.Decision{}}
				for i := first; i < first+2; i++ {
					want.Pods[netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})] = compiler.Pod{Sets: [2]compiler.SetID{compiler.SetID(i)}}
					want.Rows[compiler.RowKey{Set: compiler.SetID(i)}] = compiler.Row{PortList: compiler.PortListID(i), Default: compiler.DefaultDeny}
					want.Ports[compiler.PortKey{PortList: compiler.PortListID(i), Protocol: policy.TCP, Port: 80, Bits: 16}] = compiler.Decision{}
				}
				return want
			}
			sync(t, d, tables(1))
			sync(t, d, tables(3))
			if drift := sync(t, d, tables(3)); drift.Total() != 0 {
				t.Errorf("a second Sync finds %v", drift)
			}
		})
	}
}
