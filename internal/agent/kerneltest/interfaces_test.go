package kerneltest

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// The running agent follows a pod's interface, whatever becomes of it: which one is the pod's own says whose packets may come out of it.
func TestAPodsInterfaceChanges(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	n.pod(0)
	n.policy(policyFor("deny", metav1.LabelSelector{}))
	pods := n.inKernel("pods")
	behind := func(index int) func() bool {
		return func() bool {
			key := address(0).As16()
			var value bpf.FilterPod
			check(t, pods.Lookup(&key, &value))
			return value.Sets[policy.Ingress] != 0 && value.Ifindex == uint32(index)
		}
	}
	n.await("the pod is isolated", func() bool { return n.isolated(pods, 0) != 0 })

	add := func(name string) netlink.Link {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
		check(t, netlink.LinkAdd(l))
		up, err := netlink.LinkByName(name)
		check(t, err)
		check(t, netlink.LinkSetUp(up))
		return up
	}
	route := func(l netlink.Link) *netlink.Route {
		return &netlink.Route{LinkIndex: l.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Dst: &net.IPNet{IP: address(0).AsSlice(), Mask: net.CIDRMask(32, 32)}}
	}
	first := add("eni0")
	check(t, netlink.RouteAdd(route(first)))
	n.await("the pod has an interface", behind(first.Attrs().Index))

	check(t, netlink.LinkSetDown(first)) // which takes its routes away, as a link must be for another name
	n.await("no route leads to it", behind(0))
	check(t, netlink.LinkSetName(first, "eni1"))
	check(t, netlink.LinkSetUp(first))
	check(t, netlink.RouteAdd(route(first)))
	n.await("it has another name", behind(first.Attrs().Index))

	check(t, netlink.LinkDel(first))
	n.await("it is gone", behind(0))
	again := add("eni1")
	check(t, netlink.RouteAdd(route(again)))
	n.await("it is another one of the same name", behind(again.Attrs().Index))

	other := add("eni2")
	check(t, netlink.RouteReplace(route(other)))
	n.await("the address moves", behind(other.Attrs().Index))
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni1"}}
	check(t, netlink.LinkAdd(bridge))
	check(t, netlink.LinkSetMaster(other, bridge))
	n.await("a port of a bridge is not a pod's own", behind(0))
	for _, l := range []netlink.Link{again, other, bridge} {
		check(t, netlink.LinkDel(l))
	}
}
