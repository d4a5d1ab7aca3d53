package leftovers

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

func run(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", command)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		panic(fmt.Errorf("%s: %w\n%s", command, err, out))
	}
	return string(out)
}

// in a namespace, where not the test's own goroutine runs: what fails in it panics with an error.
func in(n *netnstest.Namespace, f func() error) {
	n.Do(func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				failed, ok := r.(error)
				if !ok {
					panic(r)
				}
				err = failed
			}
		}()
		return f()
	})
}

// Others' things, some of which look like Calico's at a glance.
const others = `
ip link add eth9 type veth peer name eth8
ip link set eth9 up; ip link set eth8 up
ip addr add 192.0.2.1/24 dev eth9
ip link add calixyz type bridge
ip link add calico0 type bridge
ip route add 198.51.100.0/24 via 192.0.2.2 dev eth9 proto static
ip route add 198.51.101.0/24 via 192.0.2.2 dev eth9 proto bird
ip route add blackhole 203.0.113.0/24
ipset create blocked hash:net
ipset add blocked 203.0.113.0/25
ipset create local-cali hash:ip
nft 'table inet calico-is-not-this { chain c { type filter hook input priority 0; tcp dport 22 accept; }; }'
for iptables in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
	$iptables -N KUBE-FORWARD
	$iptables -A KUBE-FORWARD -m comment --comment "kubernetes forwarding" -j ACCEPT
	$iptables -A FORWARD -m comment --comment "about cali: nothing" -j KUBE-FORWARD
	$iptables -t nat -A POSTROUTING -m mark --mark 0x4000 -j MASQUERADE
	$iptables -A INPUT -p tcp --dport 22 -j ACCEPT
	$iptables -N calico-dhcp-dnsmasq
	$iptables -A INPUT -j calico-dhcp-dnsmasq
done
iptables-nft -A FORWARD -m set --match-set blocked src -j DROP
iptables-legacy -A FORWARD -m set --match-set blocked src -j DROP
`

// What Calico leaves: as its node agent writes it in each of its modes.
const calicos = `
ipset create cali40s:kR4lSfoRaVHhbJsOtOVGVHh hash:net
ipset create cali40masq-ipam-pools hash:net
ipset create cali60s:kR4lSfoRaVHhbJsOtOVGVHh hash:net family inet6
for iptables in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
	set=cali40s:kR4lSfoRaVHhbJsOtOVGVHh; [[ $iptables == ip6* ]] && set=cali60s:kR4lSfoRaVHhbJsOtOVGVHh
	$iptables -N cali-FORWARD
	$iptables -N cali-from-wl-dispatch
	$iptables -N cali-fw-cali0123456789a
	$iptables -N cali-pi-_-allow
	$iptables -I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
	$iptables -A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
	$iptables -A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
	$iptables -A INPUT -j cali-from-wl-dispatch
	$iptables -A cali-FORWARD -m comment --comment "cali:vjrMJCRpqwy5oRoX" -j MARK --set-xmark 0/0xe0000
	$iptables -A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
	$iptables -A cali-from-wl-dispatch -i cali0123456789a -g cali-fw-cali0123456789a
	$iptables -A cali-fw-cali0123456789a -m set --match-set $set src -j cali-pi-_-allow
	$iptables -A cali-fw-cali0123456789a -m comment --comment "cali:x" -m comment --comment "Drop if no policies passed packet" -j DROP
	$iptables -t nat -N cali-POSTROUTING
	$iptables -t nat -I POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
done
iptables-nft -t nat -A cali-POSTROUTING -m set --match-set cali40masq-ipam-pools src -j MASQUERADE
nft 'table ip calico { set s { type ipv4_addr; }; chain filter-FORWARD { type filter hook forward priority 0; }; chain filter-cali-FORWARD { ip saddr @s drop; }; }; add rule ip calico filter-FORWARD jump filter-cali-FORWARD'
nft 'table ip6 calico { chain filter-FORWARD { type filter hook forward priority 0; }; }'
ip link add vxlan.calico type vxlan id 4096 dstport 4789
ip link set vxlan.calico up
ip route add 10.244.7.0/26 dev vxlan.calico proto 80
ip route add blackhole 10.244.1.0/26 proto 80
ip route add 10.244.1.5/32 via 192.0.2.2 dev eth9 proto 80 onlink
ip route add blackhole 10.244.3.0/26 proto bird
ip link add cali0123456789a type veth peer name bpfout.cali
`

// counters of rules differ from run to run.
var counters = regexp.MustCompile(`packets \d+ bytes \d+|\[\d+:\d+\]|# (Generated|Completed).*`)

func snapshot(t *testing.T) string {
	out := run(t, `
for p in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do echo "== $p"; $p; done
nft list ruleset; ipset list -n | sort; ipset save blocked || true; ip route; ip -6 route; ip -o link | awk '{print $2}'; ip -o -4 addr | awk '{print $2, $4}'`)
	return counters.ReplaceAllString(out, "")
}

func names(list []Leftover) (removed, kept []string) {
	for i := range list {
		if list[i].Kept != "" {
			kept = append(kept, list[i].String())
		} else {
			removed = append(removed, list[i].String())
		}
	}
	return removed, kept
}

func TestCleanTakesWhatIsCalicosAndNothingElse(t *testing.T) {
	node := &Node{Root: t.TempDir(), Pools: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	n := netnstest.New(t)
	in(n, func() error {
		run(t, others)
		before := snapshot(t)
		run(t, calicos)
		run(t, "ip link set cali0123456789a up; ip link set bpfout.cali up")
		list, err := node.Find()
		if err != nil {
			return err
		}
		removed, kept := names(list)
		for _, want := range []string{
			"nftables table ip calico", "nftables table ip6 calico",
			"rule cali:wUHhoiAYhphO9Mso in FORWARD (nft, ip filter)", "rule cali:S93hcgKJrXEqnTfs in FORWARD (nft, ip filter)", "rule cali:mp77cMpurHhyjLrM in FORWARD (nft, ip6 filter)",
			"rule -j cali-from-wl-dispatch in INPUT (nft, ip filter)", "chain cali-pi-_-allow (nft, ip filter)", "chain cali-POSTROUTING (nft, ip6 nat)",
			"rule cali:wUHhoiAYhphO9Mso in FORWARD (iptables-legacy-save, filter)", "rule -j cali-from-wl-dispatch in INPUT (ip6tables-legacy-save, filter)",
			"chain cali-POSTROUTING (iptables-legacy-save, nat)",
			"ipset cali40masq-ipam-pools (hash:net)", "ipset cali60s:kR4lSfoRaVHhbJsOtOVGVHh (hash:net)",
			"route 10.244.7.0/26 dev vxlan.calico", "route 10.244.1.0/26 blackhole", "route 10.244.1.5/32 dev eth9", "route 10.244.3.0/26 blackhole proto bird",
			"link vxlan.calico (vxlan)", "link cali0123456789a (veth)", "link bpfout.cali (veth)",
		} {
			if !slices.Contains(removed, want) {
				t.Errorf("not found: %s", want)
			}
		}
		for _, name := range slices.Concat(removed, kept) {
			if strings.Contains(name, "blocked") || strings.Contains(name, "KUBE") || strings.Contains(name, "dhcp") || strings.Contains(name, "calixyz") || strings.Contains(name, "calico0") || strings.Contains(name, "198.51.") {
				t.Errorf("found, and not Calico's: %s", name)
			}
		}
		if len(kept) > 0 {
			t.Errorf("kept: %v", kept)
		}
		if err := Remove(list); err != nil {
			return err
		}
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("not what it was before Calico came:\n%s", diff)
		}
		again, err := node.Find()
		if err == nil && len(again) > 0 {
			err = fmt.Errorf("found after it was removed: %v", again)
		}
		return err
	})
}

func TestWhatMayBeOthersIsKept(t *testing.T) {
	node := &Node{Root: t.TempDir()}
	n, pod := netnstest.New(t), netnstest.New(t)
	var inside *os.File
	in(pod, func() (err error) {
		inside, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	t.Cleanup(func() { _ = inside.Close() })
	in(n, func() error {
		run(t, `
ip link add tunl0 type bridge; ip link set tunl0 up; ip addr add 10.244.1.0/32 dev tunl0
ip route add 10.244.9.0/26 dev tunl0 proto bird
ip route add blackhole 10.244.3.0/26 proto bird
ip link add cali0123456789a type veth peer name inside`)
		link, err := netlink.LinkByName("inside")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetNsFd(link, int(inside.Fd())); err != nil {
			return err
		}
		before := snapshot(t)
		list, err := node.Find()
		if err != nil {
			return err
		}
		removed, kept := names(list)
		want := []string{"address 10.244.1.0/32 of tunl0", "link cali0123456789a (veth)", "route 10.244.3.0/26 blackhole proto bird", "route 10.244.9.0/26 dev tunl0 proto bird"}
		if slices.Sort(kept); !slices.Equal(kept, want) || len(removed) > 0 {
			t.Errorf("kept %v, removed %v", kept, removed)
		}
		if err := Remove(list); err != nil {
			return err
		}
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("changed:\n%s", diff)
		}
		// with Calico's pools named, all but the pod's is Calico's
		node.Pools = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		if list, err = node.Find(); err != nil {
			return err
		}
		if removed, kept = names(list); len(removed) != 3 || !slices.Equal(kept, []string{"link cali0123456789a (veth)"}) {
			t.Errorf("kept %v, removed %v", kept, removed)
		}
		return Remove(list)
	})
}

func TestAnEmptyNodeStaysEmpty(t *testing.T) {
	n := netnstest.New(t)
	in(n, func() error {
		list, err := (&Node{Root: t.TempDir()}).Find()
		if err != nil || len(list) > 0 {
			t.Errorf("%v, %v", list, err)
		}
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err == nil && len(names) > 0 {
			t.Errorf("looking made legacy tables: %s", names)
		}
		return nil
	})
}

func TestPrograms(t *testing.T) {
	root := t.TempDir()
	fs := filepath.Join(root, bpffs)
	if err := os.MkdirAll(fs, 0o755); err != nil {
		t.Fatal(err)
	}
	n := netnstest.New(t)
	in(n, func() error {
		// A mount namespace of this thread's own: what is mounted goes with it.
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("bpf", fs, "bpf", 0, ""); err != nil {
			return err
		}
		for _, dir := range []string{"tc/globals", "calico/xdp", "kidoban"} {
			if err := os.MkdirAll(filepath.Join(fs, dir), 0o755); err != nil {
				return err
			}
		}
		for _, file := range []string{"tc/globals/cali_v4_routes", "tc/globals/other", "calico/xdp/prefilter", "kidoban/pods"} {
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
			if err != nil {
				return err
			}
			defer func() { _ = m.Close() }()
			if err := m.Pin(filepath.Join(fs, file)); err != nil {
				return err
			}
		}
		run(t, "ip link add eth9 type veth peer name eth8; tc qdisc add dev eth9 clsact")
		for i, name := range []string{"cali_tc_preamble", "other"} {
			if err := attach(t, "eth9", name, uint16(i+1)); err != nil {
				return err
			}
		}
		node := &Node{Root: root}
		list, err := node.Find()
		if err != nil {
			return err
		}
		want := []string{"BPF program cali_tc_preamble on eth9", "BPF pin /sys/fs/bpf/calico", "BPF pin /sys/fs/bpf/tc/globals/cali_v4_routes"}
		if removed, kept := names(list); !slices.Equal(removed, want) || len(kept) > 0 {
			t.Errorf("removed %v, kept %v", removed, kept)
		}
		if err := Remove(list); err != nil {
			return err
		}
		if left := run(t, "tc filter show dev eth9 ingress"); strings.Contains(left, "cali") || !strings.Contains(left, "other") {
			t.Errorf("left: %s", left)
		}
		for file, there := range map[string]bool{"tc/globals/cali_v4_routes": false, "calico": false, "tc/globals/other": true, "kidoban/pods": true} {
			if _, err := os.Stat(filepath.Join(fs, file)); (err == nil) != there {
				t.Errorf("%s: %v", file, err)
			}
		}
		return nil
	})
}

func attach(t *testing.T, device, name string, priority uint16) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return()}})
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = p.Close() })
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: priority},
		Fd:          p.FD(), Name: name, DirectAction: true,
	})
}
