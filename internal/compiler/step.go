package compiler

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// Commit brings the maps up to date with everything that was set since the last Commit, and returns the writes that do the
// same elsewhere.
func (c *Compiler) Commit() Changes {
	changes, _ := c.Step(math.MaxInt)
	return changes
}

// Step does a part of what Commit does, and reports whether there is more to do. It stops after about this many of the steps that
// Cost counts. What remains are pods, which keep their entries of before; the groups and networks that sets in use ask for, and
// interfaces, are always up to date after it. Each Step's changes are complete in themselves and have to be written before those of the next one. Anything may be
// set between two calls.
//
// Pods whose keys are in first come first. Then come those of the namespace that the fewest steps were spent on since there was
// nothing left to do: a namespace with expensive policies delays its own pods.
func (c *Compiler) Step(steps int, first ...string) (changes Changes, more bool) {
	start := c.work
	c.oldestFirst = steps == math.MaxInt
	c.left = func() bool { return c.work-start < steps }
	if len(c.dirty.pods)+len(c.uncompiled) > 0 {
		c.begin(first)
	}
	c.reclassify()
	if len(c.waiting) > 0 {
		c.complete(first)
	}
	c.updateInterfaces()
	c.updateDomains()
	if more = !c.catchUp(&c.released, func(netip.Prefix) bool { return c.left() }) || len(c.uncompiled)+len(c.waiting)+len(c.dirty.pods) > 0; !more {
		clear(c.spent)
		clear(c.encoded)
	}
	return c.flush(), more
}

// begin compiles batches of dirty pods while there are steps left, one at least.
func (c *Compiler) begin(first []string) {
	c.waiting = c.dissolve(c.waiting)
	todo := c.queue(append(c.dissolve(c.uncompiled), c.batches()...), first)
	c.uncompiled = nil
	for b := todo.next(); b != nil; b = todo.next() {
		done := false
		c.charge(b, func() { done = c.compile(b) })
		if done {
			c.waiting = append(c.waiting, b)
		} else {
			c.uncompiled = append(c.uncompiled, b)
		}
		if !c.left() {
			break
		}
	}
	c.uncompiled = append(c.uncompiled, todo.begun()...)
	if len(c.uncompiled) == 0 {
		for _, f := range c.fittings { // of pods that have changed again
			f.stop()
		}
		clear(c.fittings)
	}
}

// complete adds the rows that sets of waiting batches lack while there are steps left, one at least, and installs the
// batches that lack none.
func (c *Compiler) complete(first []string) {
	progress := false
	another := func() bool {
		defer func() { progress = true }()
		return c.left() || !progress
	}
	todo := c.queue(c.waiting, first)
	c.waiting = nil
	for b := todo.next(); b != nil; b = todo.next() {
		done := false
		c.charge(b, func() { done = c.addRows(b, another) })
		if done {
			c.install(b)
		} else {
			c.waiting = append(c.waiting, b)
		}
	}
}

// A batch is pods that change together, because an address goes from one to another. Nearly all are of one pod.
type batch struct {
	pods      []string
	namespace string // of the first
	number    uint64
	created   int64 // the newest of the first one's policies
}

// dissolve makes batches of which a pod has changed again dirty, and returns the others.
func (c *Compiler) dissolve(batches []*batch) []*batch {
	return slices.DeleteFunc(batches, func(b *batch) bool {
		isDirty := func(key string) bool { _, ok := c.dirty.pods[key]; return ok }
		if !slices.ContainsFunc(b.pods, isDirty) {
			return false
		}
		for _, key := range b.pods {
			if !isDirty(key) {
				c.dirty.pods[key] = b.number
			}
			p := c.pods[key]
			for _, s := range p.next {
				c.unref(s)
			}
			p.next = podSets{}
		}
		return true
	})
}

// batches are the dirty pods, those together that have an address in common, in the order in which they became dirty.
func (c *Compiler) batches() []*batch {
	keys := slices.SortedFunc(maps.Keys(c.dirty.pods), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.dirty.pods[a], c.dirty.pods[b]), cmp.Compare(a, b))
	})
	byAddress := map[netip.Addr]*batch{}
	var out []*batch
	for _, key := range keys {
		namespace, _, _ := strings.Cut(key, "/")
		p := c.pods[key]
		own := &batch{pods: []string{key}, namespace: namespace, number: c.dirty.pods[key], created: createdOf(p.spec.Policies)}
		out = append(out, own)
		for _, addresses := range [...][]netip.Addr{p.in, p.spec.Addresses} {
			for _, addr := range addresses {
				other := byAddress[addr]
				byAddress[addr] = own
				if other == nil || other == own {
					continue
				}
				own.pods = append(own.pods, other.pods...)
				own.number = min(own.number, other.number)
				out = slices.DeleteFunc(out, func(b *batch) bool { return b == other })
				for a, b := range byAddress {
					if b == other {
						byAddress[a] = own
					}
				}
			}
		}
	}
	return out
}

// A queue is batches of which the next one is taken in the order that Step promises.
type queue struct {
	compiler    *Compiler
	first       []*batch
	byNamespace map[string][]*batch
}

func (c *Compiler) queue(batches []*batch, first []string) *queue {
	q := &queue{compiler: c, byNamespace: map[string][]*batch{}}
	for _, b := range batches {
		if slices.ContainsFunc(b.pods, func(key string) bool { return slices.Contains(first, key) }) {
			q.first = append(q.first, b)
		} else {
			q.byNamespace[b.namespace] = append(q.byNamespace[b.namespace], b)
		}
	}
	if c.oldestFirst {
		for _, batches := range q.byNamespace {
			slices.SortStableFunc(batches, func(a, b *batch) int { return cmp.Compare(a.created, b.created) })
		}
	}
	return q
}

// next takes a batch; nil when there is none.
func (q *queue) next() *batch {
	if len(q.first) > 0 {
		b := q.first[0]
		q.first = q.first[1:]
		return b
	}
	var next []*batch
	for namespace, batches := range q.byNamespace {
		if q.compiler.oldestFirst {
			if len(next) == 0 || cmp.Or(cmp.Compare(batches[0].created, next[0].created), cmp.Compare(batches[0].number, next[0].number)) < 0 {
				next = batches
			}
			continue
		}
		if len(next) == 0 || cmp.Or(cmp.Compare(q.compiler.spent[namespace], q.compiler.spent[next[0].namespace]),
			cmp.Compare(batches[0].number, next[0].number)) < 0 {
			next = batches
		}
	}
	if len(next) == 0 {
		return nil
	}
	if b := next[0]; len(next) > 1 {
		q.byNamespace[b.namespace] = next[1:]
	} else {
		delete(q.byNamespace, b.namespace)
	}
	return next[0]
}

// begun are the batches left that are not dirty any more.
func (q *queue) begun() []*batch {
	var out []*batch
	for b := q.next(); b != nil; b = q.next() {
		if _, ok := q.compiler.dirty.pods[b.pods[0]]; !ok {
			out = append(out, b)
		}
	}
	return out
}

// charge adds the steps that work takes to those of a batch's namespace.
func (c *Compiler) charge(b *batch, work func()) {
	before := c.work
	work()
	c.spent[b.namespace] += c.work - before
}

// compile finds the sets that the pods of a batch will have. They may still lack rows. It reports false where there are not
// enough steps left.
func (c *Compiler) compile(b *batch) bool {
	for _, key := range b.pods {
		delete(c.dirty.pods, key)
		p := c.pods[key]
		if len(p.spec.Addresses) == 0 { // it is gone, or another pod has its addresses
			p.spec = PodSpec{}
		}
	}
	for _, key := range b.pods {
		p := c.pods[key]
		for place := range p.next {
			if p.next[place] != nil {
				continue
			}
			s, done := p.spec.set(c, place)
			if !done {
				return false
			}
			if p.next[place] = s; s != nil {
				s.refs++
			}
		}
	}
	return true
}

// addRows adds rows that the batch's sets still lack, for as long as there are steps left. It reports whether they lack none.
func (c *Compiler) addRows(b *batch, left func() bool) bool {
	for _, key := range b.pods {
		next := &c.pods[key].next
		for place, s := range next {
			if s != nil && s.refusal == nil && !c.finish(s, left) {
				return false
			}
			if s != nil && s.refusal != nil {
				c.replace(&next[place])
			}
		}
	}
	return true
}

// finish adds the rows that a new set lacks, for as long as there are steps left.
func (c *Compiler) finish(s *set, left func() bool) bool {
	c.cause = s.namespace
	defer func() { c.cause = "" }()
	for ; len(s.backlogs) > 0; s.backlogs = s.backlogs[1:] {
		isFull := false
		goOn := func(p netip.Prefix) bool {
			if !c.isHalfEmpty() {
				isFull = !c.hasRoom(s.namespace, Usage{Addresses: 1, Networks: 1}, Usage{Rows: 1 + len(c.around(p).rows)})
			}
			return !isFull && left()
		}
		if !c.catchUp(s.backlogs[0], goOn) {
			if isFull {
				c.refuseIncomplete(s)
			}
			return isFull
		}
	}
	for len(s.lacks) > 0 {
		if !left() {
			return false
		}
		if !c.hasRoom(s.namespace, Usage{Rows: 1}, Usage{}) {
			c.refuseIncomplete(s)
			break
		}
		cl := s.lacks[0]
		s.lacks = s.lacks[1:]
		if cl == c.none || c.classes[cl.id] == cl {
			c.computeRow(s, cl)
		}
		if s.isFull {
			c.refuseIncomplete(s)
			break
		}
	}
	delete(c.unfinished, s)
	s.lacks = nil
	return true
}

// install gives the pods of a batch their new entries.
func (c *Compiler) install(b *batch) {
	was := map[netip.Addr]Pod{}
	for _, key := range b.pods {
		for _, addr := range c.pods[key].in {
			was[addr] = c.maps.Pods[addr]
			delete(c.maps.Pods, addr)
		}
	}
	for _, key := range b.pods {
		p := c.pods[key]
		p.in = p.spec.Addresses
		if len(p.in) == 0 {
			delete(c.pods, key)
		}
		entry := p.spec.entry(p.next)
		for _, s := range p.sets {
			c.unref(s)
		}
		p.sets, p.next = p.next, podSets{}
		moved := false
		for _, addr := range p.in {
			c.maps.Pods[addr] = entry
			old, ok := was[addr]
			moved = moved || old.IfIndex != entry.IfIndex || old.Flags != entry.Flags
			if !ok || old != entry {
				if old.AuditSets = entry.AuditSets; !ok || old != entry { // audit sets decide about no flow
					c.narrow(addr)
				}
				c.changes.Pods = append(c.changes.Pods, Write[netip.Addr, Pod]{Key: addr, Value: entry})
			}
		}
		c.moveInterfaces(key, p, moved)
	}
	for addr := range was {
		if _, ok := c.maps.Pods[addr]; !ok {
			c.changes.Pods = append(c.changes.Pods, Write[netip.Addr, Pod]{Key: addr, Delete: true})
		}
	}
}

// flush hands out the journal. Matchers of sets that lack rows stay.
func (c *Compiler) flush() Changes {
	c.matching = slices.DeleteFunc(c.matching, func(s *set) bool {
		if _, ok := c.unfinished[s]; ok {
			return false
		}
		s.matcher = nil
		return true
	})
	out := c.changes
	c.changes = Changes{}
	return out
}
