package dataplane_test

import (
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// detach takes the program off its hooks behind the agent's back, as `bpftool link detach` does.
func (n *node) detach(names ...string) {
	n.t.Helper()
	dirs, _ := n.pins()
	for _, name := range names {
		l, err := link.LoadPinnedLink(filepath.Join(dirs[0], name), nil)
		check(n.t, err)
		check(n.t, l.Detach())
		check(n.t, l.Close())
	}
}

// No packet is judged after the program was detached by hand: the next Attach attaches it again.
func TestDetachedProgramsAreAttachedAgain(t *testing.T) {
	for name, tamper := range map[string]func(n *node){
		"one family":    func(n *node) { n.detach("link_ipv4") },
		"both families": func(n *node) { n.detach("link_ipv4", "link_ipv6") },
		"all was cleaned up": func(n *node) {
			n.Do(func() error { return dataplane.Cleanup(n.opts.BPFFS) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, dataplane.Options{})
			a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
			b.Echo("udp", 80)
			n.set(b, isolate(policy.Ingress))
			isKept(t, a, "udp", b.V4, 80)
			tamper(n)
			reaches(t, a, "udp", b.V4, 80) // or the test tests nothing
			for _, healed := range []bool{true, false} {
				n.Do(func() error {
					detached, err := n.d.Heal()
					if detached > 0 != healed {
						t.Errorf("%d links are said to have been detached", detached)
					}
					return err
				})
				n.wellPinned()
				check(t, n.d.CheckLinks())
			}
			bothFamilies(t, func(t *testing.T, v6 bool) { isKept(t, a, "udp", b.Addr(v6), 80) })
			check(t, n.d.Close()) // the pins hold what was attached again
			bothFamilies(t, func(t *testing.T, v6 bool) { isKept(t, a, "udp", b.Addr(v6), 80) })
		})
	}
}
