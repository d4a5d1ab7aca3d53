package main

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
)

func TestPool(t *testing.T) {
	interfaces := []eni{
		{Name: "eth0", Pods: netip.MustParsePrefix("10.244.1.0/30")},
		{Name: "eth1", Pods: netip.MustParsePrefix("10.244.1.128/30")},
	}
	path := filepath.Join(t.TempDir(), "aws-node", "ipam.json")
	p, err := loadPool(path, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	assign := func(sandbox string, device int, addr string) {
		t.Helper()
		a, err := p.assign(sandbox)
		if err != nil || a != (assignment{netip.MustParseAddr(addr), device}) {
			t.Errorf("sandbox %s has %+v, %v; want %s on %d", sandbox, a, err, addr, device)
		}
	}
	assign("a", 0, "10.244.1.1")
	assign("b", 1, "10.244.1.129")
	assign("a", 0, "10.244.1.1") // the plugin asks again
	if a, err := p.release("a"); err != nil || a.Address != netip.MustParseAddr("10.244.1.1") {
		t.Errorf("%+v, %v", a, err)
	}
	assign("c", 0, "10.244.1.2") // not the address that was in use last

	// A daemon that starts again knows the pods that have an address.
	if p, err = loadPool(path, interfaces); err != nil {
		t.Fatal(err)
	}
	assign("b", 1, "10.244.1.129")
	assign("d", 0, "10.244.1.1")
	if _, err := p.release("a"); !errors.Is(err, errUnknownPod) {
		t.Errorf("a sandbox that is gone: %v", err)
	}
	for _, sandbox := range []string{"e", "f", "g"} {
		if _, err := p.assign(sandbox); err != nil {
			t.Errorf("sandbox %s: %v", sandbox, err)
		}
	}
	if _, err := p.assign("h"); !errors.Is(err, errFull) {
		t.Errorf("a pod too many: %v", err)
	}
}

func TestConfig(t *testing.T) {
	good := eni{"eth0", netip.MustParsePrefix("172.30.0.11/24"), netip.MustParseAddr("172.30.0.10"), netip.MustParsePrefix("10.244.1.0/25")}
	six := eni{"eth1", netip.MustParsePrefix("fd30::11/64"), netip.MustParseAddr("fd30::10"), netip.MustParsePrefix("fd44::/80")}
	for name, tc := range map[string]struct {
		interfaces []eni
		ok         bool
	}{
		"one":          {[]eni{good}, true},
		"none":         {nil, false},
		"not complete": {[]eni{{Name: "eth0"}}, false},
		"two families": {[]eni{good, six}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := (config{Interfaces: tc.interfaces}).check(); (err == nil) != tc.ok {
				t.Error(err)
			}
		})
	}
}
