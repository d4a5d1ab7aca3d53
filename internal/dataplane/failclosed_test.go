package dataplane_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// A map that is full closes the pods whose policies do not fit, leaves the others as they are, and heals when there is room.
func TestFailClosed(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Sizes: dataplane.Sizes{Addresses: 4}})
	run := newRunner(t, d)
	c := compiler.New()
	set := func(addr string, policies ...*policy.Policy) {
		c.SetPod(addr, compiler.PodSpec{Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Policies: policies})
	}
	group := func(name string) policy.Rule {
		return policy.Rule{EveryPort: true, Peers: []policy.Peer{{Group: policy.GroupKey{Name: name}}}}
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
	const client, old, open, fresh, reused, outgoing = "10.1.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"

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
	var full *dataplane.MapFullError
	if err := d.Apply(c.Commit()); !errors.As(err, &full) || full.Map != "addresses" {
		t.Fatalf("error %v", err)
	}
	for range 2 {
		closed, err := d.FailClosed(c.Tables().Pods, func(a netip.Addr) bool { return a.String() == reused })
		check(t, err)
		if closed != 4 {
			t.Errorf("%d addresses are closed, want 4", closed)
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
		passes(false, outgoing, client)
		if _, err := d.Sync(c.Tables()); !errors.As(err, &full) {
			t.Errorf("Sync: error %v", err)
		}
	}

	c.UpdateGroup(policy.GroupKey{Name: "large"}, nil, many[1:])
	c.Commit()
	sync(t, d, c.Tables())
	if drift := sync(t, d, c.Tables()); drift.Total() != 0 {
		t.Errorf("after healing: %v", drift)
	}
	for _, pod := range []string{open, fresh, reused} {
		passes(true, "10.2.0.0", pod)
		passes(false, "10.2.0.1", pod)
	}
	passes(true, outgoing, client)
	passes(false, outgoing, "10.2.0.0")
}
