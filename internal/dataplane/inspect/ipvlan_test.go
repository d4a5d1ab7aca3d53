//go:build vlan

// With the tag "vlan" for kernels that have these devices: make test-kernels.
package inspect_test

import (
	"reflect"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/node"
)

// A pod's ipvlan interface of the node's uplink is found, in the modes that the plugin ipvlan has.
func TestReadUnseenIPVLAN(t *testing.T) {
	for _, mode := range []netlink.IPVlanMode{netlink.IPVLAN_MODE_L2, netlink.IPVLAN_MODE_L3, netlink.IPVLAN_MODE_L3S} {
		n := netnstest.NewRouter(t)
		uplink, pod := n.AddPod("10.9.254.1", "fd09:fe::1"), n.AddPod("10.9.0.1", "fd09::1")
		n.MoveTo(pod, &netlink.IPVlan{LinkAttrs: netlink.LinkAttrs{Name: "net1", ParentIndex: uplink.Host.Attrs().Index}, Mode: mode})
		var got map[node.NetNS][]node.Link
		n.Do(func() (err error) {
			got, err = inspect.ReadUnseen()
			return err
		})
		at := readInterfaces(n).Namespaces[uint32(pod.Host.Attrs().Index)]
		if want := map[node.NetNS][]node.Link{at: {{Name: "net1", Kind: "ipvlan"}}}; !reflect.DeepEqual(got, want) {
			t.Errorf("mode %d: unseen %v, want %v", mode, got, want)
		}
	}
}
