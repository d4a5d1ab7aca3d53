//go:build vlan

// With the tag "vlan" for kernels that have VLAN devices, and with the Amazon VPC CNI's plugin: make test-kernels.
package dataplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	internalnode "github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

const (
	vpcPlugin  = "/opt/cni/bin/routed-eni-cni-plugin"
	ipamSocket = "/var/run/aws-node/ipamd.sock"
	fabricAddr = "10.9.252.254"
)

// branch is an interface of a security group's pod.
type branch struct {
	vlan   int
	pod    *netnstest.Pod
	result json.RawMessage // of the plugin's ADD
}

func (b branch) mac() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 1, byte(b.vlan)} }

func (b branch) name() string { return fmt.Sprintf("sg-%d", b.vlan) }

// ipam answers the plugin as the IPAM daemon does for pods with security groups (rpc/rpc.proto of github.com/aws/amazon-vpc-cni-k8s). Its
// messages are encoded by hand: their package would bring AWS's libraries.
type ipam struct {
	trunk    int // index
	branches map[string]*branch
}

// Name is that of the encoding on the wire.
func (ipam) Name() string { return "proto" }

// Marshal returns an encoded reply.
func (ipam) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

// Unmarshal keeps an encoded request.
func (ipam) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}

func (s ipam) addNetwork(request []byte) ([]byte, error) {
	for len(request) > 0 {
		number, kind, n := protowire.ConsumeTag(request)
		value, m := protowire.ConsumeBytes(request[max(n, 0):])
		if n > 0 && number == 1 && kind == protowire.BytesType && m > 0 {
			return s.reply(string(value))
		}
		size := protowire.ConsumeFieldValue(number, kind, request[max(n, 0):])
		if n < 0 || size < 0 {
			break
		}
		request = request[n+size:]
	}
	return nil, fmt.Errorf("the request names no pod")
}

func (s ipam) reply(pod string) ([]byte, error) {
	b := s.branches[pod]
	if b == nil {
		return nil, fmt.Errorf("no pod %s", pod)
	}
	text := func(to []byte, number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
	}
	integer := func(to []byte, number protowire.Number, value int) []byte {
		return protowire.AppendVarint(protowire.AppendTag(to, number, protowire.VarintType), uint64(value))
	}
	out := integer(nil, 1, 1)                                   // Success
	out = text(out, 2, string(text(nil, 1, b.pod.V4.String()))) // IPAllocationMetadata.IPv4Addr
	out = integer(out, 7, b.vlan)                               // PodVlanId
	out = text(out, 8, b.mac().String())                        // PodENIMAC
	out = text(out, 9, fabricAddr)                              // PodENISubnetGW
	return integer(out, 10, s.trunk), nil                       // ParentIfIndex
}

func (s ipam) handle(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var request []byte
	if err := decode(&request); err != nil {
		return nil, err
	}
	out, err := s.addNetwork(request)
	return &out, err
}

// serve answers on the socket until the test ends.
func (s ipam) serve(t *testing.T) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(ipamSocket), 0o755))
	l, err := net.Listen("unix", ipamSocket)
	check(t, err)
	server := grpc.NewServer(grpc.ForceServerCodec(s))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "rpc.CNIBackend", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "AddNetwork", Handler: s.handle}},
	}, nil)
	go func() { _ = server.Serve(l) }() // ends with the test
	t.Cleanup(server.Stop)
}

// callPlugin calls the VPC CNI's plugin on the node, as the container runtime does.
func (n *node) callPlugin(command, mode string, b *branch) []byte {
	n.t.Helper()
	config := map[string]any{
		"cniVersion": "0.4.0", "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "1500", "podSGEnforcingMode": mode,
		"pluginLogFile": "/tmp/plugin.log", "pluginLogLevel": "DEBUG",
	}
	if b.result != nil {
		config["prevResult"] = b.result
	}
	stdin, err := json.Marshal(config)
	check(n.t, err)
	var out []byte
	n.Do(func() error {
		cmd := exec.Command(vpcPlugin)
		cmd.Env = []string{
			"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + b.name(), "CNI_NETNS=" + b.pod.Path(), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_INFRA_CONTAINER_ID=" + b.name() + ";K8S_POD_NAME=" + b.name(),
		}
		cmd.Stdin = strings.NewReader(string(stdin))
		var err error
		if out, err = cmd.Output(); err != nil {
			log, _ := os.ReadFile("/tmp/plugin.log")
			err = fmt.Errorf("%s: %w: %s\n%s", command, err, out, log)
		}
		return err
	})
	return out
}

// addBranch makes a pod's interface by the plugin, and the fabric's end of its VLAN.
func (n *node) addBranch(mode string, fabric *netnstest.Pod, b *branch) {
	n.t.Helper()
	b.result = n.callPlugin("ADD", mode, b)
	var result struct{ Interfaces []struct{ Name string } }
	check(n.t, json.Unmarshal(b.result, &result))
	var err error
	b.pod.Host, err = n.Link.LinkByName(result.Interfaces[0].Name)
	check(n.t, err)

	eth0, err := fabric.Link.LinkByName("eth0")
	check(n.t, err)
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("vlan%d", b.vlan), ParentIndex: eth0.Attrs().Index}, VlanId: b.vlan}
	check(n.t, fabric.Link.LinkAdd(vlan))
	check(n.t, fabric.Link.LinkSetUp(vlan))
	fabric.AddAddress(vlan, fabricAddr+"/32")
	for _, key := range []string{"send_redirects", "rp_filter"} {
		fabric.Sysctl("ipv4/conf/"+vlan.Name+"/"+key, "0")
	}
	check(n.t, fabric.Link.RouteAdd(&netlink.Route{LinkIndex: vlan.Index, Dst: prefix(single(b.pod.V4)), Scope: netlink.SCOPE_LINK}))
	// A VPC knows which interface has an address.
	check(n.t, fabric.Link.NeighSet(&netlink.Neigh{
		LinkIndex: vlan.Index, IP: b.pod.V4.AsSlice(), HardwareAddr: b.mac(), State: netlink.NUD_PERMANENT,
	}))
}

// The plugin of the Amazon VPC CNI itself gives pods with security groups their interfaces and VLAN devices, in both
// modes. Policies hold, also for packets that leave the node by one pod's VLAN and come back by another's.
func TestBranchInterfacesOfTheVPCPlugin(t *testing.T) {
	for _, mode := range []string{"standard", "strict"} {
		t.Run(mode, func(t *testing.T) {
			n, _, _ := newVPCNode(t)
			n.Sysctl("ipv4/conf/all/rp_filter", "0")
			fabric := n.AddPod("10.9.252.1", "fd09:fc::1")
			fabric.Forward()
			fabric.Sysctl("ipv4/conf/all/send_redirects", "0")
			fabric.Sysctl("ipv4/conf/all/rp_filter", "0")
			server := ipam{trunk: fabric.Host.Attrs().Index, branches: map[string]*branch{}}
			var all []*branch
			for i := 1; i <= 3; i++ {
				b := &branch{vlan: i, pod: &netnstest.Pod{Namespace: netnstest.New(t),
					V4: netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), V6: netip.MustParseAddr(fmt.Sprintf("fd09::%d", i))}}
				all = append(all, b)
				server.branches[b.name()] = b
			}
			server.serve(t)
			for _, b := range all {
				n.addBranch(mode, fabric, b)
				b.pod.Echo("tcp", 80)
				b.pod.Echo("udp", 80)
			}
			n.checkBranches(t, all)
			a, b, c := all[0].pod, all[1].pod, all[2].pod
			n.set(a)
			n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80), port(policy.UDP, 80))), isolate(policy.Egress))
			n.set(c)
			before := forwarded(t, fabric)
			for _, network := range []string{"tcp", "udp"} {
				reaches(t, a, network, b.V4, 80)
				isKept(t, c, network, b.V4, 80)
				isKept(t, b, network, c.V4, 80)
				reaches(t, c, network, a.V4, 80)
			}
			if left := forwarded(t, fabric) > before; left != (mode == "strict") {
				t.Errorf("packets left the node and came back: %v", left)
			}

			for _, b := range all {
				n.callPlugin("DEL", mode, b)
			}
			links, err := n.Link.LinkList()
			check(t, err)
			for _, l := range links {
				if l.Type() == "vlan" {
					t.Errorf("%s is left", l.Attrs().Name)
				}
			}
		})
	}
}

// checkBranches compares what the agent finds of the pods with what the plugin made, and takes its uplinks.
func (n *node) checkBranches(t *testing.T, all []*branch) {
	t.Helper()
	var found internalnode.Interfaces
	n.Do(func() (err error) {
		found, err = inspect.ReadInterfaces()
		return err
	})
	for _, b := range all {
		if got := found.Routed[uint32(b.pod.Host.Attrs().Index)]; !slices.Contains(got, b.pod.V4) {
			t.Errorf("%s: routed %v, want %s", b.pod.Host.Attrs().Name, got, b.pod.V4)
		}
		vlan, err := n.Link.LinkByName(fmt.Sprintf("vlan.eth.%d", b.vlan))
		check(t, err)
		if !slices.Contains(found.Uplinks, uint32(vlan.Attrs().Index)) {
			t.Errorf("%s is no uplink: %v", vlan.Attrs().Name, found.Uplinks)
		}
	}
	n.compiler.SetUplinks(found.Uplinks)
	check(t, n.d.Apply(n.compiler.Commit()))
}
