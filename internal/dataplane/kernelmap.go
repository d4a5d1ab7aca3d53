package dataplane

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MapFullError means that a map has no room for another entry. Its entries are unchanged.
type MapFullError struct {
	// Map is the map's name, as in Usage.
	Map string
	// Max is the number of entries that it was made for.
	Max uint32
}

func (e *MapFullError) Error() string {
	return fmt.Sprintf("BPF map %s is full at %d entries: start the agent with --map-entries=%s=NUMBER and a larger one", e.Map, e.Max, e.Map)
}

// MapUsage is how full a map is.
type MapUsage struct {
	Map          string
	Entries, Max uint32
}

// kernelMap is one of the maps that compiler.Maps describes. Its entries are K and V as BPF has them.
type kernelMap[K, V comparable] struct {
	m    *ebpf.Map
	name string
	// show gives a key in the compiler's terms, for messages.
	show func(K) any
	// writes counts each write. All maps of a generation share it, and one of them is written at a time.
	writes *writeCount

	entries atomic.Uint32
}

func newKernelMap[K comparable, V any, RK, RV comparable](m *ebpf.Map, name string, f *form[K, V, RK, RV], w *writeCount) *kernelMap[RK, RV] {
	return &kernelMap[RK, RV]{m: m, name: name, show: func(k RK) any { return f.decodeKey(k) }, writes: w}
}

func (m *kernelMap[K, V]) put(k K, v V) error {
	// A write that fails because of its flag changes nothing: both together are one write.
	return m.writes.during(func() error { return m.putUncounted(k, v) })
}

func (m *kernelMap[K, V]) putUncounted(k K, v V) error {
	err := m.update(&k, &v, ebpf.UpdateNoExist)
	if err == nil {
		m.entries.Add(1)
		return nil
	}
	if errors.Is(err, ebpf.ErrKeyExist) {
		err = m.update(&k, &v, ebpf.UpdateExist)
	}
	// A full hash map returns the one, a full trie the other.
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
		err = &MapFullError{Map: m.name, Max: m.m.MaxEntries()}
	}
	if err != nil {
		return fmt.Errorf("write %v to BPF map %s: %w", m.show(k), m.name, err)
	}
	return nil
}

func (m *kernelMap[K, V]) update(k *K, v *V, flags ebpf.MapUpdateFlags) error {
	return patiently(func() error { return m.m.Update(k, v, flags) })
}

// How often, and how far apart, a write is tried for which the kernel has no memory.
const (
	refillTries = 100
	refillPause = 100 * time.Microsecond
)

// patiently repeats a write that fails with ENOMEM. A map without preallocation takes its elements from a
// small cache of the CPU, which is filled again from an interrupt (kernel/bpf/memalloc.c): writes in a row
// may find it empty while there is memory enough.
func patiently(write func() error) error {
	err := write()
	for try := 1; try < refillTries && errors.Is(err, unix.ENOMEM); try++ {
		time.Sleep(refillPause)
		err = write()
	}
	return err
}

func (m *kernelMap[K, V]) get(k K) (v V, err error) {
	if err := m.m.Lookup(&k, &v); err != nil {
		return v, fmt.Errorf("read %v of BPF map %s: %w", m.show(k), m.name, err)
	}
	return v, nil
}

// rewrite writes an entry as the kernel has it.
func (m *kernelMap[K, V]) rewrite(k K) error {
	v, err := m.get(k)
	if err != nil {
		return err
	}
	err = m.writes.during(func() error { return m.update(&k, &v, ebpf.UpdateExist) })
	if err != nil {
		return fmt.Errorf("write %v to BPF map %s: %w", m.show(k), m.name, err)
	}
	return nil
}

// delete makes sure that there is no such entry. That there never was one is no error.
func (m *kernelMap[K, V]) delete(k K) error {
	switch err := m.writes.during(func() error { return m.m.Delete(&k) }); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("delete %v from BPF map %s: %w", m.show(k), m.name, err)
	}
	m.entries.Add(^uint32(0))
	return nil
}

// dumpBatch is how many entries one system call reads. A hash map needs room for its fullest bucket. A
// variable for tests.
var dumpBatch = 1024

// read returns all entries, and calls between after each batch. Those that come or go meanwhile may be among
// them or not.
func (m *kernelMap[K, V]) read(between func() error) (map[K]V, error) {
	out := make(map[K]V, m.entries.Load())
	err := readBatches(m.m, func(keys []K, values []V) error {
		for i := range keys {
			out[keys[i]] = values[i]
		}
		return between()
	})
	if err != nil {
		return out, fmt.Errorf("read BPF map %s: %w", m.name, err)
	}
	return out, nil
}

// readBatches calls each with all entries of a hash map or trie, some at a time. An entry that is there all the
// time is among them.
func readBatches[K, V any](m *ebpf.Map, each func([]K, []V) error) error {
	keys, values := make([]K, dumpBatch), make([]V, dumpBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return err
		}
		if err := each(keys[:n], values[:n]); err != nil || end {
			return err
		}
	}
}

func (m *kernelMap[K, V]) usage() MapUsage {
	return MapUsage{Map: m.name, Entries: m.entries.Load(), Max: m.m.MaxEntries()}
}
