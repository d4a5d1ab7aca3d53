package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
)

var (
	errFull = errors.New("no address is free")
	// errUnknownPod ends a removal without an error: the plugin looks for this text.
	errUnknownPod = errors.New("datastore: unknown pod")
)

// A pool hands out the addresses of the node's network interfaces.
type pool struct {
	path       string // where the assignments are kept for the daemon's next start
	interfaces []eni

	mu       sync.Mutex
	assigned map[string]assignment // by the sandbox's ID
	next     []netip.Addr          // of each interface: addresses are used again as late as possible
	turn     int                   // the interface of the next pod
}

// An assignment is a sandbox's address, and the device number of its interface.
type assignment struct {
	Address netip.Addr `json:"address"`
	Device  int        `json:"device"`
}

// loadPool reads the assignments that an earlier daemon left in a file, if there are any.
func loadPool(path string, interfaces []eni) (*pool, error) {
	p := &pool{path: path, interfaces: interfaces, assigned: map[string]assignment{}}
	for _, e := range interfaces {
		p.next = append(p.next, e.Pods.Addr())
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &p.assigned); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// assign gives a sandbox an address, that of its earlier call if there was one. Pods take turns on the interfaces.
func (p *pool) assign(sandbox string) (assignment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.assigned[sandbox]; ok {
		return a, nil
	}
	used := map[netip.Addr]bool{}
	for _, a := range p.assigned {
		used[a.Address] = true
	}
	for range p.interfaces {
		device := p.turn
		p.turn = (p.turn + 1) % len(p.interfaces)
		if addr, ok := p.free(device, used); ok {
			a := assignment{addr, device}
			p.assigned[sandbox] = a
			return a, p.save()
		}
	}
	return assignment{}, errFull
}

// free returns the next unused address of an interface. The first of the range is not used.
func (p *pool) free(device int, used map[netip.Addr]bool) (netip.Addr, bool) {
	pods := p.interfaces[device].Pods
	addr := p.next[device]
	for range len(used) + 2 {
		addr = addr.Next()
		if !pods.Contains(addr) {
			addr = pods.Addr().Next()
		}
		if !used[addr] {
			p.next[device] = addr
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// release takes a sandbox's address back.
func (p *pool) release(sandbox string) (assignment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.assigned[sandbox]
	if !ok {
		return a, errUnknownPod
	}
	delete(p.assigned, sandbox)
	return a, p.save()
}

func (p *pool) save() error {
	b, err := json.Marshal(p.assigned)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.path), 0o755); err != nil {
		return err
	}
	tmp := p.path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, p.path)
}
