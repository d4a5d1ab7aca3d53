package dataplane

import (
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Diff returns the changes that make maps with the contents have equal to want.
func Diff(have *Contents, want *compiler.Maps) Changes {
	c, _ := diff(have, want, func() error { return nil })
	return c
}

// diffBatch is how many entries diff compares between two calls of between. A variable for tests.
var diffBatch = 1024

// diff is Diff in parts: it calls between now and then, which may change want. What it has changed is
// outdated in the result.
func diff(have *Contents, want *compiler.Maps, between func() error) (c Changes, err error) {
	n := 0
	part := func() error {
		if n++; n%diffBatch != 0 {
			return nil
		}
		return between()
	}
	if c.ports, err = diffMap(&portForm, have.Ports, want.Ports, part); err != nil {
		return c, err
	}
	if c.rows, err = diffMap(&rowForm, have.Rows, want.Rows, part); err != nil {
		return c, err
	}
	if c.networks, err = diffMap(&networkForm, have.Networks, want.Networks, part); err != nil {
		return c, err
	}
	if c.addresses, err = diffMap(&addressForm, have.Addresses, want.Addresses, part); err != nil {
		return c, err
	}
	if c.interfaces, err = diffMap(&interfaceForm, have.Interfaces, want.Interfaces, part); err != nil {
		return c, err
	}
	if c.pods, err = diffMap(&podForm, have.Pods, want.Pods, part); err != nil {
		return c, err
	}
	if c.domains, err = diffMap(&domainForm, have.Domains, want.Domains, part); err != nil {
		return c, err
	}
	if c.resolvers, err = diffMap(&resolverForm, have.Resolvers, want.Resolvers, part); err != nil {
		return c, err
	}
	c.renewInterfaces(have)
	return c, nil
}

// diffMap compares one map. While part runs, entries of want may come and go.
func diffMap[K comparable, V any, RK, RV comparable](f *form[K, V, RK, RV], have map[RK]RV, want map[K]V, part func() error) (c mapChanges[RK, RV], err error) {
	for rk, rv := range have {
		at := rk
		if f.canonical != nil {
			at = f.canonical(rk)
		}
		k := f.decodeKey(at)
		switch v, ok := f.value(want, k); {
		case ok && at != rk && f.encodeKey(k) == at:
			// The right key, which is missing, takes this one's place: to delete it then would delete the right one.
		case !ok || f.encodeKey(k) != rk:
			c.deletes = append(c.deletes, rk)
		case f.encodeValue(v) != rv:
			c.puts = append(c.puts, entry[RK, RV]{rk, f.encodeValue(v)})
		}
		if err := part(); err != nil {
			return c, err
		}
	}
	for k, v := range want {
		if f.valid == nil || f.valid(k) {
			c.putMissing(have, f.encodeKey(k), f.encodeValue(v))
		}
		if err := part(); err != nil {
			return c, err
		}
	}
	for k, v := range f.standing {
		if _, ok := want[k]; !ok {
			c.putMissing(have, f.encodeKey(k), f.encodeValue(v))
		}
	}
	return c, nil
}

func (c *mapChanges[K, V]) putMissing(have map[K]V, k K, v V) {
	if _, ok := have[k]; !ok {
		c.puts = append(c.puts, entry[K, V]{k, v})
	}
}

// renewInterfaces takes out every interface whose pods change, to be put in again after they have: no pod is
// to be denied its own address because its interface is known before the address is.
func (c *Changes) renewInterfaces(have *Contents) {
	changing := map[uint32]bool{} // pods, by their first interfaces
	for _, p := range c.pods.puts {
		changing[p.value.Ifindex] = true
	}
	delete(changing, 0)
	done := map[uint32]bool{}
	for _, i := range c.interfaces.deletes {
		done[i] = true
	}
	for _, p := range c.interfaces.puts {
		if _, there := have.Interfaces[p.key]; there && changing[p.value.Pod] {
			c.interfaces.deletes = append(c.interfaces.deletes, p.key)
		}
		done[p.key] = true
	}
	for i, v := range have.Interfaces {
		if changing[v.Pod] && !done[i] {
			c.interfaces.deletes = append(c.interfaces.deletes, i)
			c.interfaces.puts = append(c.interfaces.puts, entry[uint32, bpf.FilterInterface]{i, v})
		}
	}
}

// MapDrift is how far a map was from what it should have been, in entries.
type MapDrift struct {
	Map                   string
	Missing, Wrong, Extra int
}

// Drift is what Sync found and repaired, a MapDrift for each map of Usage.
type Drift []MapDrift

// Total is the number of entries that were not as they should have been.
func (d Drift) Total() int {
	n := 0
	for _, m := range d {
		n += m.Missing + m.Wrong + m.Extra
	}
	return n
}

// drift counts changes that Diff made from have.
func (c *Changes) drift(have *Contents) Drift {
	return Drift{
		driftOf(bpf.FilterMapPods, have.Pods, &c.pods),
		driftOf(bpf.FilterMapAddresses, have.Addresses, &c.addresses),
		driftOf(bpf.FilterMapNetworks, have.Networks, &c.networks),
		driftOf(bpf.FilterMapRows, have.Rows, &c.rows),
		driftOf(bpf.FilterMapPorts, have.Ports, &c.ports),
		driftOf(bpf.FilterMapInterfaces, have.Interfaces, &c.interfaces),
		driftOf(bpf.FilterMapDomains, have.Domains, &c.domains),
		driftOf(bpf.FilterMapResolvers, have.Resolvers, &c.resolvers),
	}
}

func driftOf[K, V comparable](name string, have map[K]V, c *mapChanges[K, V]) MapDrift {
	d := MapDrift{Map: name, Extra: len(c.deletes)}
	renewed := map[K]bool{}
	for _, p := range c.puts {
		switch v, ok := have[p.key]; {
		case !ok:
			d.Missing++
			continue
		case v != p.value:
			d.Wrong++
		}
		renewed[p.key] = true
	}
	for _, k := range c.deletes {
		if renewed[k] {
			d.Extra--
		}
	}
	return d
}
