package dataplane_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// A packet with a source route goes to the node, whose kernel writes its last destination into it behind the
// hook. A kernel does so only if a setting asks for it, which the agent reports.
func TestSourceRoutes(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	lo, err := n.Link.LinkByName("lo")
	check(t, err)
	n.AddAddress(lo, "10.9.9.9/32")
	n.set(a)
	n.set(b, isolate(policy.Ingress))
	in := inbox(t, b, 53)
	// Loose source route, 7 bytes, the first hop; the kernel puts the socket's own destination behind it
	// (include/uapi/linux/ip.h).
	send := func() {
		c, err := a.Dial("udp", netip.AddrPortFrom(b.V4, 53), netnstest.Patience)
		check(t, err)
		defer func() { _ = c.Close() }()
		raw, err := c.(*net.UDPConn).SyscallConn()
		check(t, err)
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, "\x83\x07\x04\x0a\x09\x09\x09\x01")
		})
		check(t, errors.Join(err, failed))
		_, err = c.Write([]byte("routed"))
		check(t, err)
	}
	warned := func() (w bool) {
		n.Do(func() error {
			for _, warning := range inspect.Warnings() {
				w = w || strings.Contains(string(warning), "accept_source_route")
			}
			return nil
		})
		return w
	}
	send()
	if arrives(t, in, a.V4, netnstest.Silence) || warned() {
		t.Error("a packet with a source route passed, or is said to")
	}
	n.Sysctl("ipv4/conf/all/accept_source_route", "1")
	n.Sysctl("ipv4/conf/"+a.Host.Attrs().Name+"/accept_source_route", "1")
	b.Sysctl("ipv4/conf/all/accept_source_route", "1")
	b.Sysctl("ipv4/conf/eth0/accept_source_route", "1")
	send()
	if !arrives(t, in, a.V4, netnstest.Patience) {
		t.Error("a packet with a source route was refused, and is warned of for nothing")
	}
	if !warned() {
		t.Error("it is not said that packets with a source route pass")
	}
}
