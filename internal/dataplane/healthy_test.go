package dataplane_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
)

func TestAHealthyDataplane(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	check(t, n.d.CheckMaps())
	check(t, n.d.CheckLinks())
	check(t, n.d.Maps().Networks.Freeze()) // now it cannot be written from user space
	if n.d.CheckMaps() == nil {
		t.Error("a map that cannot be written goes unnoticed")
	}
	check(t, os.RemoveAll(filepath.Join(n.opts.BPFFS, "kidoban")))
	if n.d.CheckLinks() == nil {
		t.Error("lost pins go unnoticed")
	}
}

// The check must not change what it writes: a policy may name 0.0.0.0/0.
func TestTheCheckOfMapsChangesNothing(t *testing.T) {
	d := newDataplane(t, dataplane.Options{})
	tables := compiler.Maps{Networks: map[netip.Prefix]compiler.ClassID{
		netip.MustParsePrefix("0.0.0.0/0"): 7, netip.MustParsePrefix("::/0"): 8,
	}}
	_, err := d.Sync(&tables, nil)
	check(t, err)
	check(t, d.CheckMaps())
	if drift, err := d.Sync(&tables, nil); err != nil || drift.Total() > 0 {
		t.Errorf("drift %v, %v", drift, err)
	}
}

func TestADataplaneThatIsNotAttached(t *testing.T) {
	if newDataplane(t, dataplane.Options{}).CheckLinks() == nil {
		t.Error("it passes for attached")
	}
}
