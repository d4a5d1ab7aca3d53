package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
)

// CheckMaps fails where the maps cannot be written. It writes what is there already.
func (d *Dataplane) CheckMaps() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for prefix := range networkForm.standing {
		if err := d.maps.networks.rewrite(networkForm.encodeKey(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// CheckLinks fails where this generation is not attached to its hooks and pinned, so that it outlives
// the process.
func (d *Dataplane) CheckLinks() error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()
	for name, h := range hooks {
		if d.links[name] == nil && h.isNeeded(d) {
			return fmt.Errorf("the program is not attached as %s", name)
		}
	}
	for name, l := range d.links {
		if _, err := l.Info(); err != nil {
			return fmt.Errorf("ask the kernel about %s: %w", name, err)
		}
		if _, err := os.Lstat(filepath.Join(d.dir, name)); err != nil {
			return fmt.Errorf("the link is not pinned: %w", err)
		}
	}
	return nil
}
