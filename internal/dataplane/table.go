package dataplane

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/compiler"
)

// MapFullError says that a map has no room for another entry. What was in it is still there.
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

// table is one field of compiler.Maps in the kernel: a map whose keys and values are K and V to Go, RK and RV to BPF.
type table[K comparable, V any, RK, RV comparable] struct {
	m    *ebpf.Map
	name string

	encodeKey   func(K) RK
	decodeKey   func(RK) K
	encodeValue func(V) RV

	// valid reports whether a packet can have such a key; an entry that none can have is not written. nil: all are.
	valid func(K) bool
	// standing are entries that are there with these values when the tables do not have them.
	standing map[K]V

	entries atomic.Uint32
}

func (t *table[K, V, RK, RV]) put(k K, v V) error {
	if t.valid != nil && !t.valid(k) {
		return nil
	}
	rk, rv := t.encodeKey(k), t.encodeValue(v)
	err := t.update(&rk, &rv, ebpf.UpdateNoExist)
	if err == nil {
		t.entries.Add(1)
		return nil
	}
	if errors.Is(err, ebpf.ErrKeyExist) {
		err = t.update(&rk, &rv, ebpf.UpdateExist)
	}
	// hash maps say the one, tries the other
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
		err = &MapFullError{Map: t.name, Max: t.m.MaxEntries()}
	}
	if err != nil {
		return fmt.Errorf("write %v to BPF map %s: %w", k, t.name, err)
	}
	return nil
}

func (t *table[K, V, RK, RV]) update(k *RK, v *RV, flags ebpf.MapUpdateFlags) error {
	return patiently(func() error { return t.m.Update(k, v, flags) })
}

// How often, and how far apart, a write is tried for which the kernel has no memory.
const (
	refillTries = 100
	refillPause = 100 * time.Microsecond
)

// patiently repeats a write that fails with ENOMEM. A map without preallocation takes its elements from a small cache of the CPU, which is
// filled again from an interrupt (kernel/bpf/memalloc.c): writes in a row may find it empty while there is memory enough.
func patiently(write func() error) error {
	err := write()
	for try := 1; try < refillTries && errors.Is(err, unix.ENOMEM); try++ {
		time.Sleep(refillPause)
		err = write()
	}
	return err
}

// rewrite writes an entry as the kernel has it.
func (t *table[K, V, RK, RV]) rewrite(k K) error {
	rk := t.encodeKey(k)
	var rv RV
	if err := t.m.Lookup(&rk, &rv); err != nil {
		return fmt.Errorf("read %v of BPF map %s: %w", k, t.name, err)
	}
	if err := t.update(&rk, &rv, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("write %v to BPF map %s: %w", k, t.name, err)
	}
	return nil
}

// del makes sure that the tables' entry is not there. That it never was is no error.
func (t *table[K, V, RK, RV]) del(k K) error {
	if t.valid != nil && !t.valid(k) {
		return nil
	}
	if v, ok := t.standing[k]; ok {
		return t.put(k, v)
	}
	return t.deleteKey(t.encodeKey(k))
}

func (t *table[K, V, RK, RV]) deleteKey(rk RK) error {
	switch err := t.m.Delete(&rk); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("delete %v from BPF map %s: %w", t.decodeKey(rk), t.name, err)
	}
	t.entries.Add(^uint32(0))
	return nil
}

func (t *table[K, V, RK, RV]) write(writes []compiler.Write[K, V]) error {
	for i := range writes {
		w := &writes[i]
		if w.Delete {
			if err := t.del(w.Key); err != nil {
				return err
			}
		} else if err := t.put(w.Key, w.Value); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[K, V, RK, RV]) deleteAll(keys []K) error {
	for _, k := range keys {
		if err := t.del(k); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[K, V, RK, RV]) deleteRaw(keys []RK) error {
	for _, rk := range keys {
		if err := t.deleteKey(rk); err != nil {
			return err
		}
	}
	return nil
}

func (t *table[K, V, RK, RV]) usage() MapUsage {
	return MapUsage{Map: t.name, Entries: t.entries.Load(), Max: t.m.MaxEntries()}
}
