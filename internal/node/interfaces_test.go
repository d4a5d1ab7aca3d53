package node

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/compiler"
)

func (s story) routed(routes map[uint32][]string, uplinks ...uint32) {
	in := Interfaces{Routed: map[uint32][]netip.Addr{}, Uplinks: uplinks}
	for index, addrs := range routes {
		for _, a := range addrs {
			in.Routed[index] = append(in.Routed[index], netip.MustParseAddr(a))
		}
	}
	s.SetInterfaces(start, in)
}

func (s story) behind(ip string, want uint32) {
	s.Helper()
	s.Commit()
	tables := s.Maps()
	got := tables.Pods[netip.MustParseAddr(ip)].IfIndex
	if own := tables.Interfaces[got].Kind == compiler.PodInterface; got != want || own != (want != 0) {
		s.Errorf("%s is behind interface %d (its own: %v), want %d", ip, got, own, want)
	}
}

func TestWhichInterfaceIsAPodsOwn(t *testing.T) {
	s := newStory(t)
	both := func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) }
	s.pod("web", "10.0.0.1", both)
	s.pod("db", "10.0.0.2")
	s.behind("10.0.0.1", 0)

	s.routed(map[uint32][]string{5: {"10.0.0.1", "fd00::1"}, 6: {"10.0.0.2"}}, 1)
	s.behind("10.0.0.1", 5)
	s.behind("fd00::1", 5)
	s.behind("10.0.0.2", 6)
	if got := s.Maps().Interfaces[1].Kind; got != compiler.Uplink {
		t.Errorf("interface 1 is %v", got)
	}

	s.routed(map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}})
	s.behind("fd00::1", 5) // nothing leads to it elsewhere

	s.routed(map[uint32][]string{5: {"10.0.0.1", "10.0.0.9"}, 6: {"10.0.0.2"}})
	s.behind("10.0.0.1", 5)
	s.behind("10.0.0.9", 5) // no API shows it

	s.routed(map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}, 7: {"10.0.0.2"}})
	s.behind("10.0.0.2", 6) // two lead to it, and the first was the pod's before

	s.routed(map[uint32][]string{5: {"10.0.0.1"}, 6: {"fd00::1"}})
	s.behind("10.0.0.1", 5) // both are its own, and the first stands for the pod
	s.behind("fd00::1", 5)
	if got := s.Maps().Interfaces[6]; got != (compiler.Interface{Kind: compiler.PodInterface, Pod: 5}) {
		s.Errorf("interface 6 is %+v", got)
	}

	// An interface that another pod gets at once, with a new address.
	s.routed(map[uint32][]string{5: {"10.0.0.3"}})
	s.behind("10.0.0.1", 5) // until the other is known
	s.pod("new", "10.0.0.3")
	s.behind("10.0.0.3", 5)
}

// connected takes in interfaces with the network namespaces that they lead into.
func (s story) connected(namespaces map[uint32]NetNS, routes map[uint32][]string) {
	in := Interfaces{Routed: map[uint32][]netip.Addr{}, Namespaces: namespaces}
	for index, addrs := range routes {
		for _, a := range addrs {
			in.Routed[index] = append(in.Routed[index], netip.MustParseAddr(a))
		}
	}
	s.SetInterfaces(start, in)
}

// A second interface is the pod's whose network namespace it leads into, and so are its addresses: policies judge them from the pod's side,
// and no selector of a peer matches them.
func TestASecondInterfaceIsThePods(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.pod("db", "10.0.0.2")
	s.slice("shop", "g", 0, 1, "10.0.0.1/32")
	s.endpoint("allow", everyPod, fromGroup("g"))
	both := map[uint32]NetNS{5: 0, 6: 1, 7: 0}
	s.connected(both, map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}, 7: {"169.254.172.5"}})
	s.behind("10.0.0.1", 5)
	s.behind("169.254.172.5", 5)
	s.allowed("10.0.0.1", "10.0.0.2", 80)
	s.denied("169.254.172.5", "10.0.0.2", 80)
	s.denied("10.0.0.2", "169.254.172.5", 80)
	if name, ok := s.PodAt(netip.MustParseAddr("169.254.172.5")); !ok || name.Name != "web" {
		t.Errorf("the address is that of %+v", name)
	}
	interfaces := func(want ...uint32) {
		t.Helper()
		s.Commit()
		for index := range uint32(10) {
			if got := s.Maps().Interfaces[index].Kind == compiler.PodInterface; got != slices.Contains(want, index) {
				t.Errorf("interface %d is a pod's own: %v", index, got)
			}
		}
	}
	interfaces(5, 6, 7)

	s.connected(both, map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}})
	interfaces(5, 6, 7) // it has no address yet: whatever comes out of it is spoofed
	s.behind("169.254.172.5", 0)

	// The pod deletes its first interface, and puts the second one into a namespace that it made.
	s.connected(map[uint32]NetNS{6: 1, 7: 0}, map[uint32][]string{6: {"10.0.0.2"}, 7: {"169.254.172.5"}})
	s.behind("169.254.172.5", 7)
	s.connected(map[uint32]NetNS{6: 1, 7: 2}, map[uint32][]string{6: {"10.0.0.2"}, 7: {"169.254.172.5"}})
	s.behind("169.254.172.5", 7)
	interfaces(6, 7)
	s.denied("10.0.0.2", "169.254.172.5", 80)

	// Both ways to know a pod's addresses come and go.
	s.connected(both, map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}, 7: {"169.254.172.5"}})
	s.pod("late", "169.254.172.5")
	s.behind("169.254.172.5", 0) // two pods have addresses in the namespace
	s.behind("10.0.0.1", 0)
	interfaces(6)
	s.gone("late")
	s.behind("169.254.172.5", 5)
	s.gone("web")
	s.behind("169.254.172.5", 0)
	interfaces(6)
	s.pod("web", "10.0.0.1")
	interfaces(5, 6, 7)
}

func (s story) gone(name string) {
	s.DeletePod(start, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}})
}

func TestUnseenInterfaces(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.pod("db", "10.0.0.2")
	s.connected(map[uint32]NetNS{5: 0, 6: 1}, map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}})
	s.SetUnseen(map[NetNS][]Link{0: {{"net2", "macvlan"}, {"net1", "ipvlan"}}, 7: {{"net1", "macvlan"}}})
	got := s.Unseen()
	if len(got) != 2 || got[0].Pod.Name != "web" || got[0].Link != (Link{"net1", "ipvlan"}) || got[1].Link != (Link{"net2", "macvlan"}) {
		t.Errorf("unseen: %+v", got)
	}
	if pods := s.DescribePods(true); len(pods[0].Unseen) != 0 || len(pods[1].Unseen) != 2 {
		t.Errorf("described: %+v", pods)
	}
	s.gone("web")
	if got := s.Unseen(); len(got) != 0 {
		t.Errorf("unseen after the pod is gone: %+v", got)
	}
}

func TestModes(t *testing.T) {
	for _, tc := range []struct {
		mode Mode
		open bool
	}{
		{Standard, true},
		{Guarded, true},
		{Strict, false},
	} {
		s := newStory(t)
		s.opts.Mode = tc.mode
		s.pod("web", "10.0.0.1")
		if tc.open {
			s.allowed("10.0.0.9", "10.0.0.1", 80)
		} else {
			s.denied("10.0.0.9", "10.0.0.1", 80)
		}
		s.slice("shop", "g", 0, 1, "10.0.0.9/32")
		s.endpoint("allow", everyPod, fromGroup("g")) // ingress alone
		s.allowed("10.0.0.9", "10.0.0.1", 80)
		s.denied("10.0.0.8", "10.0.0.1", 80)
		s.Commit()
		var names []string
		for _, set := range s.Maps().Pods[netip.MustParseAddr("10.0.0.1")].Sets {
			for _, p := range s.compiler.Set(set) {
				names = append(names, p.ID.String())
			}
		}
		if got := len(names) == 2 && names[1] == "EnforcingMode strict"; got != !tc.open {
			t.Errorf("%s: policies in force %v", tc.mode, names)
		}
	}
	for value, want := range map[string]Mode{"": Standard, "standard": Standard, "guarded": Guarded, "strict": Strict, "Strict": "", "open": ""} {
		if got, err := ParseMode(value); got != want || (err == nil) != (want != "") {
			t.Errorf("mode %q: %q, %v", value, got, err)
		}
	}
}
