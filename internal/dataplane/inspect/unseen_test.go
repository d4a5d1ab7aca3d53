package inspect_test

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/node"
)

// A pod's macvlan interface and its port of a bridge are found; what it makes on its own interface and its second veth are seen.
func TestReadUnseen(t *testing.T) {
	n := netnstest.NewRouter(t)
	pod, other := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.AddInterface(pod, "v4if0", netip.MustParseAddr("169.254.172.5"), netip.MustParseAddr("169.254.172.1"))
	port := n.AddPort(pod, n.AddBridge("cni1"), "net1")
	n.MoveTo(pod, &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "net2", ParentIndex: other.Host.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	eth0, err := pod.Link.LinkByName("eth0")
	check(t, err)
	check(t, pod.Link.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "inner", ParentIndex: eth0.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE}))

	var got map[node.NetNS][]node.Link
	n.Do(func() error {
		got, err = inspect.ReadUnseen()
		return err
	})
	at := readInterfaces(n).Namespaces[uint32(pod.Host.Attrs().Index)]
	want := map[node.NetNS][]node.Link{at: {{Name: "net2", Kind: "macvlan"}, {Name: port.Attrs().Name, Kind: "bridge port"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("unseen %v, want %v", got, want)
	}
}
