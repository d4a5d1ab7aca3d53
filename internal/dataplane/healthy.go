package dataplane

import (
	"errors"
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

// CheckLinks fails where this generation is not attached for both families and pinned, so that it outlives
// the process.
func (d *Dataplane) CheckLinks() error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()
	if len(d.links) < len(families) {
		return errors.New("the program is not attached")
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
