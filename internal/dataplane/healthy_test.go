package dataplane_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane"
)

func TestAHealthyDataplane(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	check(t, n.d.CheckMaps())
	check(t, n.d.CheckLinks())
	check(t, n.d.Maps().Networks.Freeze()) // now nobody can write it, from user space
	if n.d.CheckMaps() == nil {
		t.Error("a map that cannot be written goes unnoticed")
	}
	check(t, os.RemoveAll(filepath.Join(n.opts.BPFFS, "kidoban")))
	if n.d.CheckLinks() == nil {
		t.Error("lost pins go unnoticed")
	}
}

func TestADataplaneThatIsNotAttached(t *testing.T) {
	if newDataplane(t, dataplane.Options{}).CheckLinks() == nil {
		t.Error("it passes for attached")
	}
}
