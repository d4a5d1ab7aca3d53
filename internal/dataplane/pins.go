package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// pinRoot is the directory of all generations, below the BPF file system.
const pinRoot = "kidoban"

// pin is what is pinned under a name: a map or a link.
type pin struct {
	name   string
	object interface {
		Pin(path string) error
		Unpin() error
	}
}

// pin pins what is not pinned. The links come last: a directory without them is the remains of a start that
// was cut short.
func (d *Dataplane) pin() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of pins: %w", err)
	}
	m := &d.objs.FilterMaps
	pins := []pin{
		{bpf.FilterMapPods, m.Pods},
		{bpf.FilterMapAddresses, m.Addresses},
		{bpf.FilterMapNetworks, m.Networks},
		{bpf.FilterMapRows, m.Rows},
		{bpf.FilterMapPorts, m.Ports},
		{bpf.FilterMapInterfaces, m.Interfaces},
		{bpf.FilterMapRevoked, m.Revoked},
		{bpf.FilterMapCounters, m.Counters},
		{bpf.FilterMapTunnels, m.Tunnels},
		{bpf.FilterMapTunnelEnds, m.TunnelEnds},
		{bpf.FilterMapTunnelDevices, m.TunnelDevices},
		{bpf.FilterMapDomains, m.Domains},
		{bpf.FilterMapLearned, m.Learned},
		{bpf.FilterMapPlaces, m.Places},
		{bpf.FilterMapNames, m.Names},
		{bpf.FilterMapAsked, m.Asked},
	}
	for name, l := range d.links {
		pins = append(pins, pin{name, l})
	}
	for _, p := range pins {
		path := filepath.Join(d.dir, p.name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		// The object may record that it is pinned: Unpin resets that.
		if err := errors.Join(p.object.Unpin(), p.object.Pin(path)); err != nil {
			return fmt.Errorf("pin %s: %w", path, err)
		}
	}
	return nil
}

// generations are the directories of all pinned generations, complete or not, the oldest first.
func generations(bpffs string) ([]string, error) {
	root := filepath.Join(bpffs, pinRoot)
	entries, err := os.ReadDir(root) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(root, e.Name()))
	}
	return dirs, nil
}

// successor is the directory of a generation after all others, in the order of their names: by the time,
// unless the clock went back.
func successor(bpffs string, others []string) string {
	number := uint64(time.Now().UnixNano())
	for _, dir := range others {
		if n, err := strconv.ParseUint(filepath.Base(dir), 16, 64); err == nil && n >= number {
			number = n + 1
		}
	}
	return filepath.Join(bpffs, pinRoot, fmt.Sprintf("%016x", number))
}

// remove detaches the links of a generation and unpins all of it. Missing pins do not
// stop it.
func remove(dir string) error {
	for name := range hooks {
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
