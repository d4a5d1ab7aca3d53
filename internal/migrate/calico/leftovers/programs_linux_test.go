package leftovers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// inMounts is in, with a mount namespace of the thread's own: what is mounted goes with it.
func inMounts(n *netnstest.Namespace, f func() error) {
	in(n, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		return f()
	})
}

func mountBPF(root string) (string, error) {
	fs := filepath.Join(root, bpffs)
	if err := os.MkdirAll(fs, 0o755); err != nil {
		return "", err
	}
	return fs, unix.Mount("bpf", fs, "bpf", 0, "")
}

// program that lets everything pass.
func program(t *testing.T, name string, kind ebpf.ProgramType, attach ebpf.AttachType, result int32) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: kind, AttachType: attach, License: "GPL", Instructions: asm.Instructions{asm.LoadImm(asm.R0, int64(result), asm.DWord), asm.Return()}})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, nil
}

func TestPrograms(t *testing.T) {
	root := t.TempDir()
	inMounts(netnstest.New(t), func() error {
		fs, err := mountBPF(root)
		if err != nil {
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
		for i, name := range []string{"cali_tc_preamble", "to_hep_no_log.o:[calico_to_host_ep]", "other"} {
			if err := attach(t, "eth9", name, uint16(i+1)); err != nil {
				return err
			}
		}
		node := &Node{Root: root}
		list, err := node.Find()
		if err != nil {
			return err
		}
		want := []string{"BPF program cali_tc_preamble on eth9", "BPF program to_hep_no_log.o:[calico_to_host_ep] on eth9", "BPF pin /sys/fs/bpf/calico", "BPF pin /sys/fs/bpf/tc/globals/cali_v4_routes"}
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
	p, err := program(t, "", ebpf.SchedCLS, ebpf.AttachNone, -1)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: priority},
		Fd:          p.FD(), Name: name, DirectAction: true,
	})
}

// What hangs on an interface by a BPF link, and what its driver asks.
func TestProgramsOfLinksAndDrivers(t *testing.T) {
	root := t.TempDir()
	inMounts(netnstest.New(t), func() error {
		fs, err := mountBPF(root)
		if err != nil {
			return err
		}
		for _, dir := range []string{"tcx", "calico/xdp"} {
			if err := os.MkdirAll(filepath.Join(fs, dir), 0o755); err != nil {
				return err
			}
		}
		run(t, "ip link add eth9 type veth peer name eth8; ip link add eth7 type veth peer name eth6")
		for _, tc := range []struct {
			device, name string
			attach       ebpf.AttachType
			pin          string
		}{
			{"eth9", "cali_tc_preamble", ebpf.AttachTCXIngress, "tcx/eth9_ingress"},
			{"eth9", "other", ebpf.AttachTCXEgress, "tcx/eth9_egress"},
		} {
			p, err := program(t, tc.name, ebpf.SchedCLS, ebpf.AttachNone, -1)
			if err != nil {
				return err
			}
			device, err := netlink.LinkByName(tc.device)
			if err != nil {
				return err
			}
			l, err := link.AttachTCX(link.TCXOptions{Interface: device.Attrs().Index, Program: p, Attach: tc.attach})
			if err != nil {
				return err
			}
			if err := errors.Join(l.Pin(filepath.Join(fs, tc.pin)), l.Close()); err != nil {
				return err
			}
		}
		for device, name := range map[string]string{"eth9": "cali_xdp_preamble", "eth8": "other", "eth7": "prefilter"} {
			p, err := program(t, name, ebpf.XDP, ebpf.AttachNone, 2)
			if err != nil {
				return err
			}
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetXdpFdWithFlags(l, p.FD(), unix.XDP_FLAGS_SKB_MODE); err != nil {
				return err
			}
			if name == "prefilter" {
				if err := p.Pin(filepath.Join(fs, "calico/xdp/prefilter_v1_calico_tmp_A_eth7")); err != nil {
					return err
				}
			}
		}
		node := &Node{Root: root}
		list, err := node.Find()
		if err != nil {
			return err
		}
		removed, kept := names(list)
		slices.Sort(removed)
		want := []string{
			"BPF pin /sys/fs/bpf/calico", "BPF pin /sys/fs/bpf/tcx/eth9_ingress", "BPF program cali_tc_preambl on eth9 (tcx ingress)",
			"BPF program cali_xdp_preamb on eth9 (xdp)", "BPF program prefilter on eth7 (xdp)",
		}
		if !slices.Equal(removed, want) || len(kept) > 0 {
			t.Errorf("removed %q, kept %q", removed, kept)
		}
		if err := Remove(list); err != nil {
			return err
		}
		if again, err := node.Find(); err != nil || len(again) > 0 {
			t.Errorf("found after it was removed: %v, %v", again, err)
		}
		left := run(t, "ip -d link show eth9; ip -d link show eth8")
		if strings.Count(left, "prog/xdp") != 1 {
			t.Errorf("programs of drivers: %s", left)
		}
		if _, err := os.Stat(filepath.Join(fs, "tcx/eth9_egress")); err != nil {
			t.Error(err)
		}
		return nil
	})
}

// newCgroup makes a cgroup for a test. A cgroup outlives its mount, so a test that is killed leaves its own behind: the name has the ID
// of the process, and cgroups of processes that have ended are removed.
func newCgroup(parent string) (string, error) {
	const prefix = "kidoban-test-"
	left, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				return "", err
			}
		}
	}
	return os.MkdirTemp(parent, fmt.Sprintf("%s%d-", prefix, os.Getpid()))
}

func TestCgroupsOfKilledTestsAreRemoved(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	for name, kept := range map[string]bool{
		fmt.Sprintf("kidoban-test-%d-1", ended.Process.Pid): false,
		fmt.Sprintf("kidoban-test-%d-1", os.Getpid()):       true,
		"kidoban": true,
	} {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := newCgroup(parent); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); (err == nil) != kept {
			t.Errorf("%s: %v, want it kept: %t", name, err, kept)
		}
	}
}

// What Calico's eBPF mode attaches to all processes, in a cgroup that stands for the root's.
func TestProgramsOfCgroups(t *testing.T) {
	root := t.TempDir()
	inMounts(netnstest.New(t), func() (err error) {
		fs, err := mountBPF(root)
		if err != nil {
			return err
		}
		all, own := filepath.Join(root, "all"), filepath.Join(root, "run/calico/cgroup")
		if err := errors.Join(os.MkdirAll(all, 0o755), os.MkdirAll(own, 0o755), os.MkdirAll(filepath.Join(fs, "ctlb"), 0o755), os.Mkdir(filepath.Join(root, "var"), 0o755), os.Symlink("../run", filepath.Join(root, "var/run"))); err != nil {
			return err
		}
		if err := unix.Mount("cgroup2", all, "cgroup2", 0, ""); err != nil {
			return err
		}
		group, err := newCgroup(all)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Unmount(own, unix.MNT_DETACH), os.Remove(group)) }()
		if err := unix.Mount(group, own, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		dir, err := os.Open(group)
		if err != nil {
			return err
		}
		defer func() { _ = dir.Close() }()
		for name, attach := range map[string]ebpf.AttachType{"calico_connect_v4": ebpf.AttachCGroupInet4Connect, "cali_sendmsg_v6": ebpf.AttachCGroupUDP6Sendmsg, "other": ebpf.AttachCGroupInet4Connect} {
			p, err := program(t, name, ebpf.CGroupSockAddr, attach, 1)
			if err != nil {
				return err
			}
			if err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: attach, Flags: unix.BPF_F_ALLOW_MULTI}); err != nil {
				return err
			}
		}
		held, err := program(t, "calico_recvmsg_v4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Recvmsg, 1)
		if err != nil {
			return err
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: group, Attach: ebpf.AttachCGroupUDP4Recvmsg, Program: held})
		if err != nil {
			return err
		}
		if err := errors.Join(l.Pin(filepath.Join(fs, "ctlb/calico_recvmsg_v4")), l.Close()); err != nil {
			return err
		}
		node := &Node{Root: root}
		list, err := node.Find()
		if err != nil {
			return err
		}
		removed, kept := names(list)
		slices.Sort(removed)
		if !slices.Equal(kept, []string{"directory /run/calico"}) { // the cgroups of everybody are mounted in it
			t.Errorf("kept %q", kept)
		}
		want := []string{
			"BPF pin /sys/fs/bpf/ctlb/calico_recvmsg_v4", "BPF program cali_sendmsg_v6 on cgroup /run/calico/cgroup (CGroupUDP6Sendmsg)",
			"BPF program calico_connect_ on cgroup /run/calico/cgroup (CGroupInet4Connect)", "BPF program calico_recvmsg_ on cgroup /run/calico/cgroup (CGroupUDP4Recvmsg)",
		}
		if !slices.Equal(removed, want) {
			t.Errorf("removed %q", removed)
		}
		if err := Remove(list); err != nil {
			return err
		}
		left, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: ebpf.AttachCGroupInet4Connect})
		if err != nil || len(left.Programs) != 1 {
			t.Errorf("left: %v, %v", left, err)
		}
		return nil
	})
}
