package node

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

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
	s.behind("10.0.0.1", 0) // another pod is behind it, which is not known yet

	s.routed(map[uint32][]string{5: {"10.0.0.1"}, 6: {"10.0.0.2"}, 7: {"10.0.0.2"}})
	s.behind("10.0.0.2", 0) // two lead to it

	s.routed(map[uint32][]string{5: {"10.0.0.1"}, 6: {"fd00::1"}})
	s.behind("10.0.0.1", 0) // its addresses are behind different ones

	// An interface that another pod gets at once, with a new address.
	s.routed(map[uint32][]string{5: {"10.0.0.3"}})
	s.behind("10.0.0.1", 0)
	s.pod("new", "10.0.0.3")
	s.behind("10.0.0.3", 5)
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
