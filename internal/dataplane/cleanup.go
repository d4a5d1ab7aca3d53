package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
)

// Cleanup removes everything that agents left on this node: links, pins and the table in nftables. Flows are
// not judged any more after it. It does what can be done, returns all errors, and may be repeated.
func Cleanup(bpffs string) error {
	if bpffs == "" {
		bpffs = DefaultBPFFS
	}
	dirs, err := generations(bpffs)
	errs := []error{err}
	for _, dir := range dirs {
		errs = append(errs, remove(dir))
	}
	if err := os.RemoveAll(filepath.Join(bpffs, pinRoot)); err != nil {
		errs = append(errs, fmt.Errorf("remove the directory of pins: %w", err))
	}
	errs = append(errs, conntrack.Disable())
	return errors.Join(errs...)
}
