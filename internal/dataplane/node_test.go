package dataplane_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// node is a router with pods, and the dataplane in force on it.
type node struct {
	*netnstest.Namespace
	t        testing.TB
	opts     dataplane.Options
	d        *dataplane.Dataplane
	compiler *compiler.Compiler
}

func newNode(t testing.TB, opts dataplane.Options) *node {
	t.Helper()
	opts.BPFFS = netnstest.BPFFS(t)
	opts.Log = testr.NewWithInterface(t, testr.Options{})
	n := &node{Namespace: netnstest.NewRouter(t), t: t, opts: opts, compiler: compiler.New()}
	n.d = newDataplane(t, opts)
	n.Do(n.d.Attach)
	return n
}

// set puts a pod under these policies.
func (n *node) set(p *netnstest.Pod, policies ...*policy.Policy) {
	n.t.Helper()
	n.setPod(p, 0, policies)
}

func (n *node) audit(p *netnstest.Pod, policies ...*policy.Policy) {
	n.t.Helper()
	n.setPod(p, compiler.Audit, policies)
}

func (n *node) setPod(p *netnstest.Pod, flags compiler.PodFlags, policies []*policy.Policy) {
	n.t.Helper()
	n.setBehind(p, uint32(p.Host.Attrs().Index), flags, policies)
}

// setBehind puts a pod behind an interface that is its own, or behind none.
func (n *node) setBehind(p *netnstest.Pod, ifIndex uint32, flags compiler.PodFlags, policies []*policy.Policy) {
	n.t.Helper()
	spec := compiler.PodSpec{Addresses: []netip.Addr{p.V4, p.V6}, Policies: policies, Flags: flags}
	if ifIndex != 0 {
		spec.Interfaces = []uint32{ifIndex}
	}
	n.compiler.SetPod(p.V4.String(), spec)
	if err := n.d.Apply(n.compiler.Commit()); err != nil {
		n.t.Fatal(err)
	}
}

// nft loads a ruleset.
func (n *node) nft(ruleset string) {
	n.t.Helper()
	n.Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(ruleset)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}

// isolate is a policy that isolates in one direction, and accepts what the rules do.
func isolate(d policy.Direction, rules ...policy.Rule) *policy.Policy {
	p := &policy.Policy{Tier: policy.TierNetworkPolicy, ID: policy.ID{Kind: "NetworkPolicy", Namespace: "default", Name: "test"}}
	p.Isolates[d] = true
	p.Rules[d] = rules
	return p
}

// with accepts these ports, or all, from or to these pods.
func with(pods []*netnstest.Pod, ports ...policy.PortRange) policy.Rule {
	r := policy.Rule{Ports: ports, EveryPort: ports == nil}
	var peers []policy.Peer
	for _, p := range pods {
		for _, a := range []netip.Addr{p.V4, p.V6} {
			peers = append(peers, policy.Peer{CIDR: netip.PrefixFrom(a, a.BitLen())})
		}
	}
	r.Peers = policy.ListPeers(peers...)
	return r
}

func pods(p ...*netnstest.Pod) []*netnstest.Pod { return p }

func port(p policy.Protocol, first uint16, last ...uint16) policy.PortRange {
	return policy.PortRange{Protocol: p, First: first, Last: append(last, first)[0]}
}

func reaches(t testing.TB, from *netnstest.Pod, network string, to netip.Addr, port uint16) {
	t.Helper()
	if err := from.Ask(network, netip.AddrPortFrom(to, port), netnstest.Patience); err != nil {
		t.Errorf("%v does not reach %s %v:%d: %v", from.V4, network, to, port, err)
	}
}

func isKept(t testing.TB, from *netnstest.Pod, network string, to netip.Addr, port uint16) {
	t.Helper()
	if err := from.Ask(network, netip.AddrPortFrom(to, port), netnstest.Silence); err == nil {
		t.Errorf("%v reaches %s %v:%d", from.V4, network, to, port)
	}
}

// bothFamilies runs a test with the addresses of each.
func bothFamilies(t *testing.T, test func(t *testing.T, v6 bool)) {
	t.Run("IPv4", func(t *testing.T) { test(t, false) })
	t.Run("IPv6", func(t *testing.T) { test(t, true) })
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// pingRange lets this namespace's ping sockets be opened, whatever the distribution thinks of them.
func pingRange() error {
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o644)
}

func prefix(s string) *net.IPNet {
	p := netip.MustParsePrefix(s)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
