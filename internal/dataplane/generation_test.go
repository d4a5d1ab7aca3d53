package dataplane_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
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

var allPins = []string{
	"addresses", "asked", "counters", "domains", "interfaces", "learned", "link_ipv4", "link_ipv6", "names", "networks", "places", "pods", "ports",
	"revoked", "rows", "tunnel_devices", "tunnel_ends", "tunnels",
}

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

// A generation reads which pods the one before isolates.
func TestEarlierIsolation(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80))))
	next := newDataplane(t, n.opts)
	defer func() { check(t, next.Close()) }()
	got, err := next.EarlierIsolation()
	check(t, err)
	bothFamilies(t, func(t *testing.T, v6 bool) {
		if addr := b.Addr(v6); got[addr] != [2]bool{policy.Ingress: true} {
			t.Errorf("%v: %v", addr, got[addr])
		}
		if addr := a.Addr(v6); got[addr] != [2]bool{} {
			t.Errorf("%v: %v", addr, got[addr])
		}
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

// Flushing nftables may switch conntrack off; the next Attach switches it on again.
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

// Another process owns a table of our name: connection tracking cannot be switched on, the rest is healed.
func TestLinksHealWithoutConntrack(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Do(func() error {
		owner := exec.Command("nft", "-i")
		input, err := owner.StdinPipe()
		check(t, err)
		check(t, owner.Start())
		t.Cleanup(func() { _, _ = input.Close(), owner.Wait() })
		_, err = input.Write([]byte("delete table inet kidoban\nadd table inet kidoban { flags owner; }\n"))
		return err
	})
	for deadline := time.Now().Add(netnstest.Patience); ; time.Sleep(10 * time.Millisecond) {
		var out []byte
		n.Do(func() (err error) { out, err = exec.Command("nft", "list", "ruleset").Output(); return err })
		if strings.Contains(string(out), "flags owner") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table has no owner: %s", out)
		}
	}
	n.detach("link_ipv4", "link_ipv6")
	n.Do(func() error {
		detached, err := n.d.Heal()
		if detached != 2 || !errors.Is(err, unix.EPERM) {
			t.Errorf("%d links were detached, error %v", detached, err)
		}
		return nil
	})
	n.wellPinned()
	check(t, n.d.CheckLinks())
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

// The earlier of two agents does not know of the later one for some seconds.
func TestASupersededGenerationCutsNothing(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	client, server := live(t, a, b, "udp", netip.AddrPortFrom(b.V4, 8080), 8080)
	n.set(b, isolate(policy.Ingress))
	later := newDataplane(t, n.opts)
	sync(t, later, n.compiler.Maps())
	n.Do(later.Attach)
	found := n.flows(a.V4)
	n.Do(func() error {
		if err := n.d.Cut(found, hold); !errors.Is(err, dataplane.ErrSuperseded) {
			t.Errorf("the earlier one's Cut: %v", err)
		}
		return nil
	})
	if len(found) != 1 || len(n.flows(a.V4)) != 1 {
		t.Errorf("flows %v, then %v", found, n.flows(a.V4))
	}
	n.Do(func() error { return later.Cut(found, hold) })
	if push(t, server, client, netnstest.Silence) {
		t.Error("the flow is not held off by the one that judges")
	}
}

// Whatever an agent holds off while it is replaced, the next one holds off all that was there before.
func TestWhatIsHeldOffOutlivesAGeneration(t *testing.T) {
	const stable = 200
	n := newNode(t, dataplane.Options{})
	key := func(i int) bpf.FilterRevokedKey {
		pod := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		return bpf.FilterRevokedKey{Pod: bpf.EncodeAddress(pod), Port: 80, Protocol: 6}
	}
	held := bpf.FilterRevocation{Until: ^uint64(0)}
	for i := range stable {
		check(t, n.d.Maps().Revoked.Put(key(i), held))
	}
	var passing []bpf.FilterRevokedKey
	for i := range stable {
		passing = append(passing, key(stable+i))
	}
	for range 10 {
		old := n.d.Maps().Revoked
		busy := newTraffic(t)
		busy.repeat("entries that come and go", func() error {
			_, err := old.BatchUpdate(passing, slices.Repeat([]bpf.FilterRevocation{held}, len(passing)), nil)
			if err == nil {
				_, err = old.BatchDelete(passing, nil)
			}
			return err
		})
		busy.goesOn()
		later := newDataplane(t, n.opts)
		sync(t, later, n.compiler.Maps())
		n.Do(later.Attach)
		busy.stop()
		check(t, n.d.Close())
		n.d = later
		for i := range stable {
			if err := later.Maps().Revoked.Lookup(key(i), &held); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
	}
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
