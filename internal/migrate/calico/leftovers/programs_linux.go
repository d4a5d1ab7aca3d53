package leftovers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// programs of Calico's on interfaces, and on the cgroup of all processes: its eBPF mode's, and the one that refuses untracked packets early.
func (n *Node) programs() ([]Leftover, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	pinned := n.pinnedPrograms()
	var out []Leftover
	for _, l := range links {
		out = append(out, filters(l)...)
		out = append(out, attached(l)...)
		out = append(out, xdp(l, pinned)...)
	}
	found, err := n.cgroupPrograms()
	return append(out, found...), err
}

// filters are programs in the classifier of an interface: all that there was before Linux 6.6.
func filters(l netlink.Link) (out []Leftover) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		list, err := netlink.FilterList(l, parent)
		if err != nil {
			continue // without a clsact there are none
		}
		for _, f := range list {
			// Old versions name the object's file first: to_hep_no_log.o:[calico_to_host_ep].
			if b, ok := f.(*netlink.BpfFilter); ok && (strings.HasPrefix(b.Name, "cali") || strings.Contains(b.Name, "[calico_")) {
				out = append(out, Leftover{Kind: "BPF program", Name: b.Name, Detail: "on " + l.Attrs().Name, remove: func() error { return netlink.FilterDel(b) }})
			}
		}
	}
	return out
}

// attached are programs on an interface by BPF links, which outlive their pins' names only as long as these are there.
func attached(l netlink.Link) (out []Leftover) {
	for _, kind := range []struct {
		name   string
		attach ebpf.AttachType
	}{{"tcx ingress", ebpf.AttachTCXIngress}, {"tcx egress", ebpf.AttachTCXEgress}, {"netkit", ebpf.AttachNetkitPrimary}, {"netkit peer", ebpf.AttachNetkitPeer}} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: kind.attach})
		if err != nil {
			continue // this kernel, or this interface, has none
		}
		for _, p := range found.Programs {
			id, ok := p.LinkID()
			if name := programName(p.ID); ok && isCalicos(name) {
				out = append(out, Leftover{Kind: "BPF program", Name: name, Detail: fmt.Sprintf("on %s (%s)", l.Attrs().Name, kind.name), remove: func() error { return detach(id) }})
			}
		}
	}
	return out
}

// detach what a BPF link attaches, no matter which process holds it.
func detach(id link.ID) error {
	l, err := link.NewFromID(id)
	if err != nil {
		return ignoreMissing(err)
	}
	defer func() { _ = l.Close() }()
	d, ok := l.(interface{ Detach() error })
	if !ok {
		return fmt.Errorf("a link of type %T cannot be detached: remove its pin", l)
	}
	return d.Detach()
}

// xdp is the program that an interface's driver asks: Calico's by its name or, where it has none, by its pin.
func xdp(l netlink.Link, pinned map[ebpf.ProgramID]bool) []Leftover {
	x := l.Attrs().Xdp
	if x == nil || !x.Attached {
		return nil
	}
	id := ebpf.ProgramID(x.ProgId)
	name := programName(id)
	if !isCalicos(name) && !pinned[id] {
		return nil
	}
	// XDP_ATTACHED_DRV, _SKB, _HW are 1, 2, 3 in uapi/linux/if_link.h; the flag of a mode is one of those bits.
	flags := map[uint32]int{1: unix.XDP_FLAGS_DRV_MODE, 2: unix.XDP_FLAGS_SKB_MODE, 3: unix.XDP_FLAGS_HW_MODE}[x.AttachMode]
	return []Leftover{{Kind: "BPF program", Name: name, Detail: fmt.Sprintf("on %s (xdp)", l.Attrs().Name), remove: func() error {
		return gone(netlink.LinkSetXdpFdWithFlags(l, -1, flags))
	}}}
}

// connectTime are where Calico's eBPF mode attaches what does kube-proxy's work for processes: each would still translate to
// endpoints of long ago.
var connectTime = []ebpf.AttachType{
	ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg,
	ebpf.AttachCGroupUDP6Sendmsg, ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg,
}

// cgroupPrograms on the root of cgroup v2, where it is mounted: by the host, and by Calico for itself.
func (n *Node) cgroupPrograms() ([]Leftover, error) {
	var out []Leftover
	var errs []error
	var seen []os.FileInfo
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/run/calico/cgroup"} {
		info, err := os.Stat(n.path(root))
		if err != nil || !isCgroup2(n.path(root)) || sameAsAny(seen, info) {
			continue
		}
		seen = append(seen, info)
		found, err := programsOf(n.path(root), root)
		out, errs = append(out, found...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

func isCgroup2(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

func programsOf(dir, name string) ([]Leftover, error) {
	group, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = group.Close() }()
	var out []Leftover
	for _, attach := range connectTime {
		found, err := link.QueryPrograms(link.QueryOptions{Target: int(group.Fd()), Attach: attach})
		if err != nil {
			return out, fmt.Errorf("list the programs of cgroup %s: %w", name, err)
		}
		for _, p := range found.Programs {
			if program := programName(p.ID); isCalicos(program) {
				out = append(out, Leftover{Kind: "BPF program", Name: program, Detail: fmt.Sprintf("on cgroup %s (%s)", name, attach), remove: func() error {
					return detachFrom(dir, p.ID, attach)
				}})
			}
		}
	}
	return out, nil
}

// detachFrom a cgroup. What a BPF link attaches there goes with the link's pin.
func detachFrom(dir string, id ebpf.ProgramID, attach ebpf.AttachType) error {
	group, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = group.Close() }()
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ignoreMissing(err)
	}
	defer func() { _ = p.Close() }()
	return ignoreMissing(link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(group.Fd()), Program: p, Attach: attach}))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func isCalicos(program string) bool { return strings.HasPrefix(program, "cali") }

// programName as the kernel keeps it, of 15 characters at most; empty where the program is gone.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer func() { _ = p.Close() }()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// pinnedPrograms are those in Calico's own directory.
func (n *Node) pinnedPrograms() map[ebpf.ProgramID]bool {
	out := map[ebpf.ProgramID]bool{}
	_ = filepath.WalkDir(n.path(bpffs+"/calico"), func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		p, err := ebpf.LoadPinnedProgram(file, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil // a map, or a link
		}
		defer func() { _ = p.Close() }()
		if info, err := p.Info(); err == nil {
			if id, ok := info.ID(); ok {
				out[id] = true
			}
		}
		return nil
	})
	return out
}

const bpffs = "/sys/fs/bpf"

// linkPins are directories of pins that are called by interfaces, not by what is pinned.
var linkPins = []string{"tcx", "netkit"}

// pins of BPF maps, programs and links: those that Calico's prefixes name, its own directories, and links of its programs.
func (n *Node) pins() ([]Leftover, error) {
	root := n.path(bpffs)
	var out []Leftover
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || file == root {
			return err
		}
		name, dir := entry.Name(), filepath.Dir(file)
		own := entry.IsDir() && name == "calico" && dir == root ||
			filepath.Dir(dir) == root && slices.Contains(linkPins, filepath.Base(dir)) && isLinkOfCalicos(file)
		if !own && !slices.ContainsFunc([]string{"cali_", "calico_", "xdp_cali_"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return nil
		}
		out = append(out, Leftover{Kind: "BPF pin", Name: filepath.Join(bpffs, strings.TrimPrefix(file, root)), remove: func() error { return os.RemoveAll(file) }})
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return out, err
}

// isLinkOfCalicos reports whether a pin is that of a BPF link whose program is Calico's.
func isLinkOfCalicos(file string) bool {
	l, err := link.LoadPinnedLink(file, nil)
	if err != nil {
		return false
	}
	defer func() { _ = l.Close() }()
	info, err := l.Info()
	return err == nil && isCalicos(programName(info.Program))
}
