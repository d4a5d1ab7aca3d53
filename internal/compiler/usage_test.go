package compiler

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

func of(namespace string, p *policy.Policy) *policy.Policy {
	p.ID.Namespace = namespace
	return p
}

func TestUsage(t *testing.T) {
	everyone := onPort(policy.Rule{Peers: policy.ListPeers(but())}, tcp(80, 80), tcp(443, 443))
	three := onPort(policy.Rule{Peers: policy.ListPeers(policy.Peer{Group: g1})}, tcp(1, 1))
	except := onPort(policy.Rule{Peers: policy.ListPeers(but(nth(1), nth(2)))}, tcp(2, 2))
	c := New()
	c.UpdateGroup(g1, []netip.Prefix{nth(11), nth(12), nth(13)}, nil)
	pod := func(i int, p *policy.Policy) {
		c.SetPod(p.ID.Namespace+"/p", PodSpec{Addresses: []netip.Addr{podAt(i)}, Policies: []*policy.Policy{p}})
		c.Commit()
	}
	pod(1, of("good", ingress("p", everyone)))
	if got, want := c.Usage(), map[string]Usage{"good": {Networks: 1, Rows: 1, Ports: 2}}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// a group of another namespace splits the class of everywhere: the second row of good's policy is its doing
	pod(2, of("other", ingress("p", three)))
	if got, want := c.Usage(), map[string]Usage{"good": {Networks: 1, Rows: 1, Ports: 2}, "other": {Addresses: 3, Rows: 2, Ports: 1}}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// a third one leaves out two addresses, so that what is everywhere, in the group and in neither are one more class for good each
	pod(3, of("third", ingress("p", except)))
	c.Collect()
	c.Collect()
	got := c.Usage()
	if got["good"] != (Usage{Networks: 1, Rows: 1, Ports: 2}) || got["other"].Addresses != 3 || got["third"].Addresses != 2 || got["third"].Ports != 1 {
		t.Errorf("%v", got)
	}
	checkUsage(t, c)
}

// checkUsage: every entry is charged once.
func checkUsage(t *testing.T, c *Compiler) {
	t.Helper()
	var sum Usage
	for _, u := range c.Usage() {
		sum.Addresses, sum.Networks, sum.Rows, sum.Ports = sum.Addresses+u.Addresses, sum.Networks+u.Networks, sum.Rows+u.Rows, sum.Ports+u.Ports
	}
	m := c.Maps()
	if sum != (Usage{len(m.Addresses), len(m.Networks), len(m.Rows), len(m.Ports)}) {
		t.Errorf("%+v are charged of %d addresses, %d networks, %d rows, %d ports", sum, len(m.Addresses), len(m.Networks), len(m.Rows), len(m.Ports))
	}
}
