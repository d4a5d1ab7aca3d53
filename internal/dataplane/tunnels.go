package dataplane

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
)

// SetTunnels makes the program deny what this node or another would decapsulate, unless it comes from the end of
// a tunnel. While there are tunnels the program is attached to the local-in hook too. It may be called before
// Attach. After an error the maps may have a part of the tunnels: call it again.
func (d *Dataplane) SetTunnels(t *inspect.Tunnels) error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()
	if err := d.writeTunnels(t); err != nil {
		return err
	}
	return d.updateLocal()
}

// writeTunnels writes the ends before what they may send, and takes them out after.
func (d *Dataplane) writeTunnels(t *inspect.Tunnels) error {
	ends, devices, tunnels := map[bpf.FilterNetworkKey]bool{}, map[uint32]bool{}, map[bpf.FilterTunnelKey]bool{}
	for _, prefix := range t.Ends {
		if onWire(prefix.Addr()) {
			ends[encodeNetwork(prefix.Masked())] = true
		}
	}
	for _, index := range t.Devices {
		devices[index] = true
	}
	for _, protocol := range t.Protocols {
		tunnels[bpf.FilterTunnelKey{Protocol: protocol}] = true
	}
	for _, port := range t.Ports {
		tunnels[bpf.FilterTunnelKey{Protocol: unix.IPPROTO_UDP, Port: port}] = true
	}
	has, endless := !t.Empty(), len(t.Endless) > 0

	m := &d.objs.FilterMaps
	for _, write := range []func() error{
		func() error { return addKeys(m.TunnelEnds, bpf.FilterMapTunnelEnds, ends) },
		func() error { return setIf(endless, d.objs.AnyTunnelEnd, true) },
		func() error { return addKeys(m.TunnelDevices, bpf.FilterMapTunnelDevices, devices) },
		func() error { return addKeys(m.Tunnels, bpf.FilterMapTunnels, tunnels) },
		func() error { return d.objs.HasTunnels.Set(has) },
		func() error { return removeOthers(m.Tunnels, bpf.FilterMapTunnels, tunnels) },
		func() error { return removeOthers(m.TunnelDevices, bpf.FilterMapTunnelDevices, devices) },
		func() error { return setIf(!endless, d.objs.AnyTunnelEnd, false) },
		func() error { return removeOthers(m.TunnelEnds, bpf.FilterMapTunnelEnds, ends) },
	} {
		if err := write(); err != nil {
			return err
		}
	}
	d.hasTunnels = has
	return nil
}

func setIf(condition bool, v *ebpf.Variable, value bool) error {
	if !condition {
		return nil
	}
	return v.Set(value)
}

// addKeys puts keys into a map whose values mean nothing.
func addKeys[K comparable](m *ebpf.Map, name string, keys map[K]bool) error {
	for key := range keys {
		if err := m.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("write %v to BPF map %s: %w", key, name, err)
		}
	}
	return nil
}

// removeOthers deletes all keys but these.
func removeOthers[K comparable](m *ebpf.Map, name string, keys map[K]bool) error {
	var others []K
	var key K
	var value uint8
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if !keys[key] {
			others = append(others, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read BPF map %s: %w", name, err)
	}
	for _, key := range others {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete %v from BPF map %s: %w", key, name, err)
		}
	}
	return nil
}
