package dataplane

import (
	"errors"
	"slices"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// A journal is what Apply and FailClosed wrote since a Sync or FailClosed began to read the maps: for each key whether it
// has an entry now. What Sync read under such a key, and found to do about it, is outdated.
type journal struct {
	pods       written[bpf.FilterAddress]
	addresses  written[bpf.FilterAddress]
	networks   written[bpf.FilterNetworkKey]
	rows       written[bpf.FilterRowKey]
	ports      written[bpf.FilterPortKey]
	interfaces written[uint32]
	domains    written[bpf.FilterDomainKey]
	resolvers  written[bpf.FilterResolverKey]
}

type written[K comparable] map[K]bool

func newJournal() *journal {
	return &journal{
		pods: written[bpf.FilterAddress]{}, addresses: written[bpf.FilterAddress]{}, networks: written[bpf.FilterNetworkKey]{},
		rows: written[bpf.FilterRowKey]{}, ports: written[bpf.FilterPortKey]{}, interfaces: written[uint32]{},
		domains: written[bpf.FilterDomainKey]{}, resolvers: written[bpf.FilterResolverKey]{},
	}
}

// noting is a target that notes what is written to t.
func (j *journal) noting(t target) target {
	return target{
		pods:       noting[bpf.FilterAddress, bpf.FilterPod]{t.pods, j.pods},
		addresses:  noting[bpf.FilterAddress, uint32]{t.addresses, j.addresses},
		networks:   noting[bpf.FilterNetworkKey, uint32]{t.networks, j.networks},
		rows:       noting[bpf.FilterRowKey, bpf.FilterRow]{t.rows, j.rows},
		ports:      noting[bpf.FilterPortKey, bpf.FilterDecision]{t.ports, j.ports},
		interfaces: noting[uint32, bpf.FilterInterface]{t.interfaces, j.interfaces},
		domains:    noting[bpf.FilterDomainKey, bpf.FilterDomain]{t.domains, j.domains},
		resolvers:  noting[bpf.FilterResolverKey, uint32]{t.resolvers, j.resolvers},
	}
}

type noting[K, V comparable] struct {
	to      store[K, V]
	written written[K]
}

func (n noting[K, V]) put(k K, v V) error {
	err := n.to.put(k, v)
	if err == nil {
		n.written[k] = true
	}
	return err
}

func (n noting[K, V]) delete(k K) error {
	err := n.to.delete(k)
	if err == nil {
		n.written[k] = false
	}
	return err
}

// respecting is a target that leaves alone what the journal has. It calls before ahead of each write.
func (j *journal) respecting(t target, before func() error) target {
	return target{
		pods:       respecting[bpf.FilterAddress, bpf.FilterPod]{t.pods, j.pods, before},
		addresses:  respecting[bpf.FilterAddress, uint32]{t.addresses, j.addresses, before},
		networks:   respecting[bpf.FilterNetworkKey, uint32]{t.networks, j.networks, before},
		rows:       respecting[bpf.FilterRowKey, bpf.FilterRow]{t.rows, j.rows, before},
		ports:      respecting[bpf.FilterPortKey, bpf.FilterDecision]{t.ports, j.ports, before},
		interfaces: respecting[uint32, bpf.FilterInterface]{t.interfaces, j.interfaces, before},
		domains:    respecting[bpf.FilterDomainKey, bpf.FilterDomain]{t.domains, j.domains, before},
		resolvers:  respecting[bpf.FilterResolverKey, uint32]{t.resolvers, j.resolvers, before},
	}
}

type respecting[K, V comparable] struct {
	to      store[K, V]
	written written[K]
	before  func() error
}

func (r respecting[K, V]) put(k K, v V) error {
	if err := r.before(); err != nil {
		return err
	}
	if _, outdated := r.written[k]; outdated {
		return nil
	}
	return r.to.put(k, v)
}

func (r respecting[K, V]) delete(k K) error {
	if err := r.before(); err != nil {
		return err
	}
	if _, outdated := r.written[k]; outdated {
		return nil
	}
	return r.to.delete(k)
}

// prune takes out of changes what is outdated.
func (j *journal) prune(c *Changes) {
	pruneMap(&c.pods, j.pods)
	pruneMap(&c.addresses, j.addresses)
	pruneMap(&c.networks, j.networks)
	pruneMap(&c.rows, j.rows)
	pruneMap(&c.ports, j.ports)
	pruneMap(&c.interfaces, j.interfaces)
	pruneMap(&c.domains, j.domains)
	pruneMap(&c.resolvers, j.resolvers)
}

func pruneMap[K, V comparable](c *mapChanges[K, V], w written[K]) {
	if len(w) == 0 {
		return
	}
	c.puts = slices.DeleteFunc(c.puts, func(e entry[K, V]) bool { _, outdated := w[e.key]; return outdated })
	c.deletes = slices.DeleteFunc(c.deletes, func(k K) bool { _, outdated := w[k]; return outdated })
}

// reread reads again what is outdated in contents.
func (j *journal) reread(m *kernelMaps, c *Contents) error {
	return errors.Join(
		rereadMap(m.pods, c.Pods, j.pods), rereadMap(m.addresses, c.Addresses, j.addresses),
		rereadMap(m.networks, c.Networks, j.networks), rereadMap(m.rows, c.Rows, j.rows),
		rereadMap(m.ports, c.Ports, j.ports), rereadMap(m.interfaces, c.Interfaces, j.interfaces),
		rereadMap(m.domains, c.Domains, j.domains), rereadMap(m.resolvers, c.Resolvers, j.resolvers),
	)
}

func rereadMap[K, V comparable](m *kernelMap[K, V], have map[K]V, w written[K]) error {
	for k, is := range w {
		if !is {
			delete(have, k)
			continue
		}
		v, err := m.get(k)
		if err != nil {
			return err
		}
		have[k] = v
	}
	return nil
}

// correct sets the number of entries of each map to what was read, and has been written since.
func (j *journal) correct(m *kernelMaps, have *Contents) {
	m.pods.entries.Store(count(have.Pods, j.pods))
	m.addresses.entries.Store(count(have.Addresses, j.addresses))
	m.networks.entries.Store(count(have.Networks, j.networks))
	m.rows.entries.Store(count(have.Rows, j.rows))
	m.ports.entries.Store(count(have.Ports, j.ports))
	m.interfaces.entries.Store(count(have.Interfaces, j.interfaces))
	m.domains.entries.Store(count(have.Domains, j.domains))
	m.resolvers.entries.Store(count(have.Resolvers, j.resolvers))
}

func count[K, V comparable](have map[K]V, w written[K]) uint32 {
	n := len(have)
	for k, is := range w {
		_, was := have[k]
		switch {
		case is && !was:
			n++
		case was && !is:
			n--
		}
	}
	return uint32(n)
}
