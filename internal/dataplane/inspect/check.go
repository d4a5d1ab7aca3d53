package inspect

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Warning describes a condition under which some traffic bypasses the dataplane, and the way out.
type Warning string

// Check reports what this node lacks for the dataplane, in the calling thread's network namespace, and
// changes nothing. load tries the program itself. The error joins all that is missing, each with the way out.
func Check(bpffs string, load func() error) error {
	// Without these every other answer would be "operation not permitted".
	if err := checkCapabilities(); err != nil {
		return err
	}
	return errors.Join(
		checkBPFFS(bpffs),
		checkKernel(load),
		checkConntrackNetlink(),
		checkKubeProxy(),
	)
}

func checkCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{
		{unix.CAP_NET_ADMIN, "NET_ADMIN"},
		{unix.CAP_PERFMON, "PERFMON"},
		{unix.CAP_BPF, "BPF"},
	} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("capabilities are missing: %s: add them to securityContext.capabilities.add of the agent's container",
			strings.Join(missing, ", "))
	}
	return nil
}

func checkBPFFS(path string) error {
	const wayOut = "mount it on the node with \"mount -t bpf bpf /sys/fs/bpf\" and give it to the agent's container as a hostPath volume"
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("no BPF file system at %s: %w: %s", path, err, wayOut)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("no BPF file system at %s: something else is mounted there: %s", path, wayOut)
	}
	return nil
}

// checkKernel tries the features that the program needs, the newest of Linux 6.6, and then the program
// itself.
func checkKernel(load func() error) error {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("this kernel (%s) has no type information at /sys/kernel/btf/vmlinux: use one built with CONFIG_DEBUG_INFO_BTF: %w", release(), err)
	}
	if err := features.HaveProgramType(ebpf.Netfilter); err != nil {
		return fmt.Errorf("this kernel (%s) has no BPF programs for netfilter: use Linux 6.6 or newer built with CONFIG_NETFILTER_BPF_LINK: %w", release(), err)
	}
	if err := features.HaveMapType(ebpf.RingBuf); err != nil {
		return fmt.Errorf("this kernel (%s) has no BPF ring buffer: use Linux 6.6 or newer: %w", release(), err)
	}
	if err := load(); err != nil {
		return fmt.Errorf("this kernel (%s) rejects the program: use Linux 6.6 or newer with CONFIG_NF_CONNTRACK: %w", release(), err)
	}
	return nil
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func checkConntrackNetlink() error {
	if _, err := netlink.ConntrackTableList(netlink.ConntrackExpectTable, unix.AF_INET); err != nil {
		return fmt.Errorf("conntrack's entries cannot be read: load the module nf_conntrack_netlink on the node: %w", err)
	}
	return nil
}

// checkKubeProxy rejects a node whose Services are not DNAT: IPVS receives their packets as the node's own
// and sends them out again, past the forward hook.
func checkKubeProxy() error {
	if _, err := netlink.LinkByName("kube-ipvs0"); err == nil {
		return errors.New("kube-proxy runs in IPVS mode here (link kube-ipvs0), in which traffic to Services cannot be judged: " +
			"set its mode to nftables or iptables, and delete the link if it is left over")
	}
	return nil
}

// Warnings looks for traffic that bypasses the dataplane, in the calling thread's network namespace. Bridges
// come and go with pods, and other software sets sysctls: call it now and then.
func Warnings() []Warning {
	var out []Warning
	if err := checkKubeProxy(); err != nil {
		out = append(out, Warning(err.Error()))
	}
	if hasIPVSServices() {
		out = append(out, "IPVS has virtual services on this node: traffic to pods through them is not judged")
	}
	if acceptsSourceRoutes() {
		out = append(out, "net.ipv4.conf.all.accept_source_route is not 0: a packet with a source route is judged by the node's address, and goes on to a pod's; set it to 0 on the node")
	}
	if isLenient() {
		out = append(out, "net.netfilter.nf_conntrack_tcp_be_liberal is 1: TCP segments outside of the window count to a connection, so a pod can put some into another's; set it to 0 on the node")
	}
	out = append(out, advertisementWarnings()...)
	return append(out, bridgeWarnings()...)
}

// isLenient reports whether conntrack takes TCP segments that lie outside of the window for a connection's.
func isLenient() bool {
	value, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
	return err == nil && strings.TrimSpace(string(value)) == "1"
}

// advertisementWarnings finds interfaces of pods by which the node accepts router advertisements.
func advertisementWarnings() []Warning {
	interfaces, err := ReadInterfaces()
	if err != nil {
		return []Warning{Warning(fmt.Sprintf("interfaces cannot be read, so accept_ra cannot be checked: %v", err))}
	}
	links, err := steady(netlink.LinkList)
	if err != nil {
		return []Warning{Warning(fmt.Sprintf("links cannot be listed, so accept_ra cannot be checked: %v", err))}
	}
	var names []string
	for _, l := range links {
		index := uint32(l.Attrs().Index)
		ofPods := l.Type() == "bridge" && !slices.Contains(interfaces.Uplinks, index) || interfaces.Routed[index] != nil
		if ofPods && acceptsAdvertisements(l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return []Warning{Warning(fmt.Sprintf("the node accepts router advertisements by %d interfaces of pods, the first of them %s: a pod can give the node routes; "+
		"set net.ipv6.conf.<interface>.accept_ra to 0", len(names), names[0]))}
}

// acceptsAdvertisements follows ipv6_accept_ra of the kernel: 1 counts for hosts, and 2 for routers too.
func acceptsAdvertisements(name string) bool {
	read := func(key string) string {
		value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/" + key)
		if err != nil {
			return "" // without IPv6 there is no such file
		}
		return strings.TrimSpace(string(value))
	}
	accept := read("accept_ra")
	return accept == "2" || accept == "1" && read("forwarding") == "0"
}

// acceptsSourceRoutes reports whether the kernel writes another destination into packets behind the forward
// hook (ip_forward_options).
func acceptsSourceRoutes() bool {
	value, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/accept_source_route") // interfaces need both, and have it by default
	return err == nil && strings.TrimSpace(string(value)) != "0"
}

func hasIPVSServices() bool {
	services, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil {
		return false // without the module there is no such file
	}
	for line := range strings.Lines(string(services)) {
		switch protocol, _, _ := strings.Cut(line, " "); protocol {
		case "TCP", "UDP", "SCTP", "FWM":
			return true
		}
	}
	return false
}

// bridgeWarnings finds bridges that connect pods past the forward hook.
func bridgeWarnings() []Warning {
	links, err := steady(netlink.LinkList)
	if err != nil {
		return []Warning{Warning(fmt.Sprintf("links cannot be listed, so bridges cannot be checked: %v", err))}
	}
	bridges := map[int]string{}
	for _, l := range links {
		if l.Type() == "bridge" {
			bridges[l.Attrs().Index] = l.Attrs().Name
		}
	}
	for _, l := range links {
		bridge := bridges[l.Attrs().MasterIndex]
		if l.Type() != "veth" || bridge == "" {
			continue
		}
		var out []Warning
		for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
			value, err := os.ReadFile("/proc/sys/net/bridge/" + key)
			if err != nil || strings.TrimSpace(string(value)) != "1" {
				out = append(out, Warning(fmt.Sprintf("bridge %s connects pods and net.bridge.%s is not 1: traffic between pods of this node is not judged; "+
					"load br_netfilter and set it to 1 on the node", bridge, key)))
			}
		}
		return out
	}
	return nil
}
