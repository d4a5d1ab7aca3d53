package cluster

import (
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf/link"
)

// BPFFS is where the BPF file system of a node is seen from outside the node.
func (c *Cluster) BPFFS(node string) (string, error) {
	pid, err := c.process(node)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root/sys/fs/bpf", pid), nil
}

// PinnedLinks are the IDs of the links that kidoban has pinned on a node. IDs are the machine's: they are good after the pins are gone.
func (c *Cluster) PinnedLinks(node string) ([]link.ID, error) {
	bpffs, err := c.BPFFS(node)
	if err != nil {
		return nil, err
	}
	pins, err := filepath.Glob(filepath.Join(bpffs, "kidoban", "*", "*"))
	if err != nil {
		return nil, err
	}
	var ids []link.ID
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			continue // a map
		}
		info, err := l.Info()
		if err == nil {
			ids = append(ids, info.ID)
		}
		if e := l.Close(); err == nil {
			err = e
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pin, err)
		}
	}
	return ids, nil
}
