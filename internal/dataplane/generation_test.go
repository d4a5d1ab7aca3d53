package dataplane_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// restart makes a new generation as a new process does, and lets go of the old one as a killed one does.
func (n *node) restart() {
	n.t.Helper()
	old := n.d
	n.d = newDataplane(n.t, n.opts)
	sync(n.t, n.d, n.compiler.Maps())
	n.Do(n.d.Attach)
	check(n.t, old.Close())
}

// pins are the generations' directories, and the files in the last of them.
func (n *node) pins() (dirs, files []string) {
	n.t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.opts.BPFFS, "kidoban"))
	check(n.t, err)
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(n.opts.BPFFS, "kidoban", e.Name()))
	}
	if len(dirs) > 0 {
		entries, err := os.ReadDir(dirs[len(dirs)-1])
		check(n.t, err)
		for _, e := range entries {
			files = append(files, e.Name())
		}
	}
	return dirs, files
}

var allPins = []string{"addresses", "counters", "interfaces", "link_ipv4", "link_ipv6", "networks", "pods", "ports", "revoked", "rows"}

// wellPinned checks that exactly one whole generation is pinned.
func (n *node) wellPinned() {
	n.t.Helper()
	if dirs, files := n.pins(); len(dirs) != 1 || !slices.Equal(files, allPins) {
		n.t.Errorf("pinned are %v, in the last %v", dirs, files)
	}
}

// What a process leaves behind when it is killed is what Close leaves: the kernel closes the same
// descriptors.
func TestAGenerationOutlivesItsProcess(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("tcp", 80)
	b.Echo("tcp", 81)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80))))
	check(t, n.d.Close())

	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, a, "tcp", b.Addr(v6), 80)
		isKept(t, a, "tcp", b.Addr(v6), 81)
	})
}

func TestAGenerationThatWasNotAttachedLeavesNothing(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	before, _ := n.pins()
	d := newDataplane(t, n.opts)
	sync(t, d, n.compiler.Maps())
	check(t, d.Close())
	if after, _ := n.pins(); !slices.Equal(before, after) {
		t.Errorf("pinned are %v, were %v", after, before)
	}
}

// A process that was killed while it pinned leaves a part of a generation, which may judge.
func TestHalfMadeGenerationsAreSwept(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	n.set(b)

	half := newDataplane(t, n.opts)
	sync(t, half, &compiler.Maps{Pods: map[netip.Addr]compiler.Pod{b.V4: {Sets: [2]compiler.SetID{dataplane.DenyAll, 0}}}})
	dir := filepath.Join(n.opts.BPFFS, "kidoban", "0000000000000001")
	check(t, os.Mkdir(dir, 0o700))
	check(t, half.Maps().Pods.Pin(filepath.Join(dir, "pods")))
	n.Do(func() error {
		l, err := link.AttachNetfilter(link.NetfilterOptions{
			Program: half.Program(), ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetForward, Priority: -50,
		})
		if err != nil {
			return err
		}
		return errors.Join(l.Pin(filepath.Join(dir, "link_ipv4")), l.Close())
	})
	isKept(t, a, "udp", b.V4, 80)

	n.restart()
	n.wellPinned()
	reaches(t, a, "udp", b.V4, 80)
}

func TestDamagedPinsHeal(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, n *node, dir string){
		"a map's pin is gone": func(t *testing.T, _ *node, dir string) {
			check(t, os.Remove(filepath.Join(dir, "pods")))
		},
		"a link's pin is gone": func(t *testing.T, _ *node, dir string) {
			check(t, os.Remove(filepath.Join(dir, "link_ipv4")))
		},
		"a link's pin is a map": func(t *testing.T, n *node, dir string) {
			check(t, os.Remove(filepath.Join(dir, "link_ipv6")))
			check(t, n.d.Maps().Rows.Pin(filepath.Join(dir, "rows"))) // does nothing: it is pinned there
			check(t, os.Rename(filepath.Join(dir, "rows"), filepath.Join(dir, "link_ipv6")))
		},
		"all of them are gone": func(t *testing.T, _ *node, dir string) {
			check(t, os.RemoveAll(filepath.Dir(dir)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, dataplane.Options{})
			a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
			b.Echo("tcp", 80)
			n.set(b, isolate(policy.Ingress))

			t.Run("by the next start", func(t *testing.T) {
				dirs, _ := n.pins()
				damage(t, n, dirs[0])
				n.restart()
				n.wellPinned()
			})
			t.Run("while it runs", func(t *testing.T) {
				dirs, _ := n.pins()
				damage(t, n, dirs[0])
				n.Do(n.d.Attach)
				if name != "a link's pin is a map" { // Attach trusts names; the next start heals this one
					n.wellPinned()
				}
			})
			check(t, n.d.Close())
			isKept(t, a, "tcp", b.V4, 80)
		})
	}
}

// Somebody who flushes nftables takes conntrack away, perhaps; the next Attach puts it back.
func TestConntrackHeals(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	n.set(a, isolate(policy.Ingress))
	n.nft("flush ruleset")
	n.Do(n.d.Attach)
	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, a, "udp", b.Addr(v6), 80) // the answer is one only to conntrack
	})
}

func TestAttachFindsAFreePriority(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.nft("table inet other { chain forward { type filter hook forward priority -76; }; }")
	for range 3 {
		n.restart()
	}
	n.wellPinned()
}

// Two agents at once, as in a careless update: the later one judges, and the earlier one does not fight it.
func TestALaterGenerationWins(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("tcp", 80)
	n.set(b, isolate(policy.Ingress))
	// The clock went back after the first one started.
	dirs, _ := n.pins()
	future := filepath.Join(filepath.Dir(dirs[0]), "7000000000000000")
	check(t, os.Rename(dirs[0], future))

	later := newDataplane(t, n.opts)
	sync(t, later, n.compiler.Maps())
	n.Do(later.Attach)
	n.wellPinned()
	dirs, _ = n.pins()
	if dirs[0] <= future {
		t.Errorf("a generation after %s is %s", future, dirs[0])
	}
	n.Do(func() error {
		if err := n.d.Attach(); !errors.Is(err, dataplane.ErrSuperseded) {
			t.Errorf("the earlier one's Attach: %v", err)
		}
		return later.Attach()
	})
	n.wellPinned()
	isKept(t, a, "tcp", b.V4, 80)
}

func TestAFailedAttachLeavesTheOldGenerationInForce(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("tcp", 80)
	n.set(b, isolate(policy.Ingress))
	opts := n.opts
	opts.BPFFS = "/proc/nowhere"
	failing := newDataplane(t, opts)
	n.Do(func() error {
		if err := failing.Attach(); err == nil {
			t.Error("Attach without a BPF file system worked")
		}
		return nil
	})
	n.wellPinned()
	isKept(t, a, "tcp", b.V4, 80)
}

func TestCleanup(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("tcp", 80)
	n.set(b, isolate(policy.Ingress))
	isKept(t, a, "tcp", b.V4, 80)
	info, err := n.d.Program().Info()
	check(t, err)
	id, _ := info.ID()

	for range 2 {
		n.Do(func() error { return dataplane.Cleanup(n.opts.BPFFS) })
		// also while the agent still lives
		bothFamilies(t, func(t *testing.T, v6 bool) { reaches(t, a, "tcp", b.Addr(v6), 80) })
		entries, err := os.ReadDir(n.opts.BPFFS)
		check(t, err)
		for _, e := range entries {
			if e.IsDir() { // maps.debug and progs.debug are the kernel's own
				t.Errorf("left in the BPF file system: %v", e)
			}
		}
		n.Do(func() error {
			out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
			if len(out) != 0 {
				t.Errorf("left in nftables: %s", out)
			}
			return err
		})
	}
	check(t, n.d.Close())
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		if info, err := links.Link.Info(); err == nil && info.Program == id {
			t.Errorf("link %d is left", info.ID)
		}
	}
	check(t, links.Err())
}
