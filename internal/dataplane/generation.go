package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// pinRoot is the directory of all generations, below the BPF file system.
const pinRoot = "kidoban"

// The hook's priorities that generations use, the first free one. They lie between NF_IP_PRI_NAT_DST (-100) and NF_IP_PRI_FILTER
// (0) of include/uapi/linux/netfilter_ipv4.h, away from the round numbers that others use: a BPF program cannot share its own.
const (
	firstPriority = -77
	lastPriority  = firstPriority + 31
)

// netfilterDefrag is BPF_F_NETFILTER_IP_DEFRAG of include/uapi/linux/bpf.h: the hook keeps defragmentation on by itself.
const netfilterDefrag link.NetfilterAttachFlags = 1

var families = map[string]link.NetfilterProtocolFamily{
	"link_ipv4": link.NetfilterProtoIPv4,
	"link_ipv6": link.NetfilterProtoIPv6,
}

// Attach makes this generation the judge: it is attached for both families and pinned, and only then are all others detached
// and unpinned. For a moment both judge, and a packet needs both. After an error the others are as they were. Once attached,
// Attach puts back what somebody removed: pins, and connection tracking.
//
// The network namespace is that of the calling thread.
func (d *Dataplane) Attach() error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()

	if err := EnableConntrack(); err != nil {
		return err
	}
	if d.links == nil {
		if err := d.attach(); err != nil {
			return err
		}
	}
	if err := d.pin(); err != nil {
		return err
	}
	return d.removeOthers()
}

func (d *Dataplane) attach() error {
	links := map[string]link.Link{}
	for name, family := range families {
		l, err := attachFirstFree(d.objs.Kidoban, family)
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			return err
		}
		links[name] = l
	}
	d.links = links
	d.dir = filepath.Join(d.opts.BPFFS, pinRoot, fmt.Sprintf("%016x", time.Now().UnixNano()))
	return nil
}

func attachFirstFree(p *ebpf.Program, family link.NetfilterProtocolFamily) (link.Link, error) {
	for priority := int32(firstPriority); ; priority++ {
		l, err := link.AttachNetfilter(link.NetfilterOptions{
			Program:        p,
			ProtocolFamily: family,
			Hook:           link.NetfilterInetForward,
			Priority:       priority,
			NetfilterFlags: netfilterDefrag,
		})
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EBUSY) || priority == lastPriority {
			return nil, fmt.Errorf("attach to the forward hook of family %d at priority %d: %w", family, priority, err)
		}
	}
}

// pinner is a map or a link.
type pinner interface {
	Pin(path string) error
	Unpin() error
}

// pin pins what is not pinned. The links come last: a directory without them is the remains of a start that was cut short.
func (d *Dataplane) pin() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of pins: %w", err)
	}
	m := &d.objs.FilterMaps
	pins := map[string]pinner{
		bpf.FilterMapPods:      m.Pods,
		bpf.FilterMapAddresses: m.Addresses,
		bpf.FilterMapNetworks:  m.Networks,
		bpf.FilterMapRows:      m.Rows,
		bpf.FilterMapPorts:     m.Ports,
		bpf.FilterMapRevoked:   m.Revoked,
		bpf.FilterMapCounters:  m.Counters,
	}
	for name, l := range d.links {
		pins[name] = l
	}
	for _, name := range slices.SortedFunc(maps.Keys(pins), linksLast) {
		path := filepath.Join(d.dir, name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		// The object may believe that it is pinned: only Unpin tells it otherwise.
		if err := errors.Join(pins[name].Unpin(), pins[name].Pin(path)); err != nil {
			return fmt.Errorf("pin %s: %w", path, err)
		}
	}
	return nil
}

func linksLast(a, b string) int {
	_, x := families[a]
	_, y := families[b]
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

func (d *Dataplane) removeOthers() error {
	others, err := generations(d.opts.BPFFS)
	if err != nil {
		return err
	}
	for _, dir := range others {
		if dir == d.dir {
			continue
		}
		if err := d.inheritRevoked(dir); err != nil {
			return err
		}
		if err := remove(dir); err != nil {
			return fmt.Errorf("remove an older generation: %w", err)
		}
		d.opts.Log.Info("Took over from another generation", "pins", dir)
	}
	return nil
}

// generations are the directories of all that is pinned, whole or not, the oldest first.
func generations(bpffs string) ([]string, error) {
	root := filepath.Join(bpffs, pinRoot)
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(root, e.Name()))
	}
	return dirs, nil
}

// remove detaches the links of a generation and unpins all of it. What is missing, or is no link where one should be, does
// not stop it.
func remove(dir string) error {
	for name := range families {
		// Unpinning is not enough where a process that still lives holds the link.
		l, err := link.LoadPinnedLink(filepath.Join(dir, name), nil)
		if err != nil {
			continue
		}
		err = l.Detach()
		if err := errors.Join(err, l.Close()); err != nil {
			return fmt.Errorf("detach %s: %w", filepath.Join(dir, name), err)
		}
	}
	return os.RemoveAll(dir)
}
