package leftovers

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

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
ip route add default dev eth9 table 51820
ip rule add not from all fwmark 0xca6c lookup 51820 priority 98
ip rule add from 192.0.2.1 lookup 101 priority 1536
ip route add throw 198.51.102.0/24 table 101
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
ip link add wireguard.cali type bridge
ip link set wireguard.cali up
ip route add 10.244.8.0/26 dev wireguard.cali table 1
ip route add throw 10.244.1.0/26 table 1
ip rule add not from all fwmark 0x100000/0x100000 lookup 1 priority 99
ip -6 route add throw 2001:db8:1::/64 proto 80 table 2
ip -6 rule add not from all fwmark 0x100000/0x100000 lookup 2 priority 99
`

// counters of rules differ from run to run.
var counters = regexp.MustCompile(`packets \d+ bytes \d+|\[\d+:\d+\]|# (Generated|Completed).*`)

func snapshot(t *testing.T) string {
	out := run(t, `
for p in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do echo "== $p"; $p; done
nft list ruleset; ipset list -n | sort; ipset save blocked || true; ip -4 route show table all; ip -6 route show table all | grep -v fe80; ip -4 rule; ip -6 rule; ip -o link | awk '{print $2}'; ip -o -4 addr | awk '{print $2, $4}'`)
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
			"rule of routing 99: not fwmark 0x100000 lookup 1 (ip)", "route 10.244.1.0/26 throw table 1", "link wireguard.cali (bridge)",
			"rule of routing 99: not fwmark 0x100000 lookup 2 (ip6)", "route 2001:db8:1::/64 throw table 2",
			"link vxlan.calico (vxlan)", "link cali0123456789a (veth)", "link bpfout.cali (veth)",
		} {
			if !slices.Contains(removed, want) {
				t.Errorf("not found: %s", want)
			}
		}
		for _, name := range slices.Concat(removed, kept) {
			if strings.Contains(name, "blocked") || strings.Contains(name, "KUBE") || strings.Contains(name, "dhcp") || strings.Contains(name, "calixyz") || strings.Contains(name, "calico0") || strings.Contains(name, "198.51.") || strings.Contains(name, "51820") {
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
ip rule add not from all fwmark 0x100000/0x100000 lookup 1 priority 99
ip link add cali0123456789a type veth peer name inside`)
		link, err := netlink.LinkByName("inside")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetNsFd(link, int(inside.Fd())); err != nil {
			return err
		}
		run(t, "ip link set cali0123456789a up; ip route add 10.244.1.9/32 dev cali0123456789a proto 80")
		before := snapshot(t)
		list, err := node.Find()
		if err != nil {
			return err
		}
		removed, kept := names(list)
		want := []string{"address 10.244.1.0/32 of tunl0", "link cali0123456789a (veth)", "route 10.244.1.9/32 dev cali0123456789a", "route 10.244.3.0/26 blackhole proto bird", "route 10.244.9.0/26 dev tunl0 proto bird", "rule of routing 99: not fwmark 0x100000 lookup 1 (ip)"}
		if slices.Sort(kept); !slices.Equal(kept, want) || len(removed) > 0 {
			t.Errorf("kept %v, removed %v", kept, removed)
		}
		if err := Remove(list); err != nil {
			return err
		}
		if diff := cmp.Diff(before, snapshot(t)); diff != "" {
			t.Errorf("changed:\n%s", diff)
		}
		// with Calico's pools named, all but the pod's and the rule to an empty table is Calico's
		node.Pools = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		if list, err = node.Find(); err != nil {
			return err
		}
		if removed, kept = names(list); len(removed) != 3 || !slices.Equal(kept, []string{"rule of routing 99: not fwmark 0x100000 lookup 1 (ip)", "route 10.244.1.9/32 dev cali0123456789a", "link cali0123456789a (veth)"}) {
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
