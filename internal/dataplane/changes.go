package dataplane

import (
	"cmp"
	"errors"
	"slices"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Changes are writes to the maps, in the form that the kernel has. Diff makes them from a comparison, and
// Apply from the compiler's changes. Each key of a map is put or deleted once, except that an interface may
// be deleted and then put.
type Changes struct {
	pods       mapChanges[bpf.FilterAddress, bpf.FilterPod]
	addresses  mapChanges[bpf.FilterAddress, uint32]
	networks   mapChanges[bpf.FilterNetworkKey, uint32]
	rows       mapChanges[bpf.FilterRowKey, bpf.FilterRow]
	ports      mapChanges[bpf.FilterPortKey, bpf.FilterDecision]
	interfaces mapChanges[uint32, bpf.FilterInterface]
	domains    mapChanges[bpf.FilterDomainKey, bpf.FilterDomain]
	resolvers  mapChanges[bpf.FilterResolverKey, uint32]
}

type mapChanges[K, V comparable] struct {
	puts    []entry[K, V]
	deletes []K
}

type entry[K, V comparable] struct {
	key   K
	value V
}

// target is where changes are made: in the kernel's maps, or in a test's.
type target struct {
	pods       store[bpf.FilterAddress, bpf.FilterPod]
	addresses  store[bpf.FilterAddress, uint32]
	networks   store[bpf.FilterNetworkKey, uint32]
	rows       store[bpf.FilterRowKey, bpf.FilterRow]
	ports      store[bpf.FilterPortKey, bpf.FilterDecision]
	interfaces store[uint32, bpf.FilterInterface]
	domains    store[bpf.FilterDomainKey, bpf.FilterDomain]
	resolvers  store[bpf.FilterResolverKey, uint32]
}

// store is one map. To delete what is not there is no error.
type store[K, V comparable] interface {
	put(K, V) error
	delete(K) error
}

// write makes the changes. Nothing else decides in which order maps are written. The order has three rules:
//
//   - An entry is put before entries that refer to it, and deleted after them. Pods refer to rows by their
//     sets, addresses and networks refer to rows by their classes, and rows refer to port lists.
//   - An address moves from its old class to its new one in one write. Its own entry is put before the networks
//     change and deleted after they have; longer networks are put before shorter ones, and deleted after them.
//     All addresses move before any pod moves to another set.
//   - An interface whose pods change is taken out just before they do and put in after: a pod's own interface
//     admits that pod's addresses only. It is put in also if a pod could not be written. So no failure, and no
//     retry that fails again, lifts the check of an interface's sources.
//
// Names are learned from the moment that domains and resolvers are there: they come before the pods that need them.
//
// So at any moment a packet is judged by all of a pod's old policies or by all of its new ones, and its peer by
// all of the old groups or by all of the new ones. The first error ends it; every write is idempotent.
func (c *Changes) write(t target) error {
	// A prefix's length counts the same in both families of one trie.
	slices.SortFunc(c.networks.puts, func(a, b entry[bpf.FilterNetworkKey, uint32]) int {
		return cmp.Compare(b.key.Prefixlen, a.key.Prefixlen)
	})
	slices.SortFunc(c.networks.deletes, func(a, b bpf.FilterNetworkKey) int { return cmp.Compare(a.Prefixlen, b.Prefixlen) })

	for _, step := range []func() error{
		func() error { return c.resolvers.deleteFrom(t.resolvers) },
		func() error { return c.resolvers.putInto(t.resolvers) },
		func() error { return c.domains.putInto(t.domains) },
		func() error { return c.ports.putInto(t.ports) },
		func() error { return c.rows.putInto(t.rows) },
		func() error { return c.addresses.putInto(t.addresses) },
		func() error { return c.networks.putInto(t.networks) },
		func() error { return c.networks.deleteFrom(t.networks) },
		func() error { return c.addresses.deleteFrom(t.addresses) },
		func() error { return c.writePods(t) },
		func() error { return c.rows.deleteFrom(t.rows) },
		func() error { return c.ports.deleteFrom(t.ports) },
		func() error { return c.domains.deleteFrom(t.domains) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Changes) writePods(t target) error {
	err := c.interfaces.deleteFrom(t.interfaces)
	if err == nil {
		err = c.pods.putInto(t.pods)
	}
	if err == nil {
		err = c.pods.deleteFrom(t.pods)
	}
	errs := []error{err}
	for _, e := range c.interfaces.puts {
		errs = append(errs, t.interfaces.put(e.key, e.value))
	}
	return errors.Join(errs...)
}

// fill writes what fits of all that pods refer to, and no pod. It is for maps without pods, so that no order is
// needed.
func (c *Changes) fill(t target) error {
	return errors.Join(c.ports.fill(t.ports), c.rows.fill(t.rows), c.addresses.fill(t.addresses), c.networks.fill(t.networks))
}

func (c *mapChanges[K, V]) fill(s store[K, V]) error {
	for i := range c.puts {
		var full *MapFullError
		if err := s.put(c.puts[i].key, c.puts[i].value); err != nil && !errors.As(err, &full) {
			return err
		}
	}
	return nil
}

func (c *mapChanges[K, V]) putInto(s store[K, V]) error {
	for i := range c.puts {
		if err := s.put(c.puts[i].key, c.puts[i].value); err != nil {
			return err
		}
	}
	return nil
}

func (c *mapChanges[K, V]) deleteFrom(s store[K, V]) error {
	for _, k := range c.deletes {
		if err := s.delete(k); err != nil {
			return err
		}
	}
	return nil
}

// encodeChanges turns the compiler's changes into writes.
func encodeChanges(c *compiler.Changes) Changes {
	return Changes{
		pods:       encodeMap(&podForm, c.Pods, nil),
		addresses:  encodeMap(&addressForm, c.Addresses, c.GoneAddresses),
		networks:   encodeMap(&networkForm, c.Networks, nil),
		rows:       encodeMap(&rowForm, c.Rows, c.StaleRows),
		ports:      encodeMap(&portForm, c.Ports, c.StalePorts),
		interfaces: encodeMap(&interfaceForm, c.Interfaces, c.GoneInterfaces),
		domains:    encodeMap(&domainForm, c.Domains, nil),
		resolvers:  encodeMap(&resolverForm, c.Resolvers, nil),
	}
}

func encodeMap[K comparable, V any, RK, RV comparable](f *form[K, V, RK, RV], writes []compiler.Write[K, V], deletes []K) (c mapChanges[RK, RV]) {
	remove := func(k K) {
		if v, ok := f.standing[k]; ok {
			c.puts = append(c.puts, entry[RK, RV]{f.encodeKey(k), f.encodeValue(v)})
		} else {
			c.deletes = append(c.deletes, f.encodeKey(k))
		}
	}
	for i := range writes {
		switch w := &writes[i]; {
		case f.valid != nil && !f.valid(w.Key):
		case w.Delete:
			remove(w.Key)
		default:
			c.puts = append(c.puts, entry[RK, RV]{f.encodeKey(w.Key), f.encodeValue(w.Value)})
		}
	}
	for _, k := range deletes {
		if f.valid == nil || f.valid(k) {
			remove(k)
		}
	}
	return c
}
