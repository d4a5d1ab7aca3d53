package compiler

import "net/netip"

// collectSteps is how many steps a Collect takes to find the classes of addresses that a released block had. The next Step goes on.
const collectSteps = 1 << 18

// Collect takes out of the maps what has been unused since before the last Collect, and returns the writes that do the same elsewhere. Call
// it now and then, after a Commit and some seconds apart at least: the time between is what a packet has to end its
// look-ups in. Where the maps do not hold everything, it also decides anew what fits; Step then puts that into force.
func (c *Compiler) Collect() Changes {
	for _, s := range c.sets {
		if s.refs == 0 && !s.building && s.dead < c.round {
			c.collectSet(s)
		}
	}
	for _, cl := range c.classes {
		if cl.refs == 0 && cl.dead < c.round {
			c.collectClass(cl)
		}
	}
	for _, t := range c.portLists {
		if t.refs == 0 && t.dead < c.round {
			delete(c.portLists, t.key)
			delete(c.byPortList, t.id)
			for _, e := range t.entries {
				delete(c.maps.Ports, e.key)
				c.changes.StalePorts = append(c.changes.StalePorts, e.key)
			}
		}
	}
	c.round++
	c.updateDomains()
	start := c.work
	c.reclassify()
	c.catchUp(&c.released, func(netip.Prefix) bool { return c.work-start < collectSteps })
	c.rebalance()
	changes := c.flush()
	changes.Narrowed = Narrowed{} // what nothing uses allowed nothing
	return changes
}

func (c *Compiler) collectSet(s *set) {
	for cl := range s.rows {
		c.deleteRow(s, cl)
	}
	c.deleteNameRows(s)
	c.releasePatterns(s)
	for a := range s.byAtom {
		if delete(a.sets, s); len(a.sets) == 0 {
			c.releaseAtom(a)
		}
	}
	for _, v := range s.versions {
		if v.refs--; v.refs > 0 {
			continue
		}
		delete(c.versions, v.key)
		for _, id := range v.rules {
			delete(c.rules, id)
		}
	}
	if s.denying {
		c.denying--
	}
	delete(c.unfinished, s)
	delete(c.sets, s.key)
	delete(c.bySet, s.id)
}

func (c *Compiler) collectClass(cl *class) {
	for s := range cl.rows {
		c.deleteRow(s, cl)
	}
	cl.atoms.data.class = nil
	c.forest.replace(&cl.atoms, nil)
	delete(c.classes, cl.id)
}

func (c *Compiler) deleteRow(s *set, cl *class) {
	c.releaseRow(RowKey{s.id, cl.id})
	delete(s.rows, cl)
	delete(cl.rows, s)
}

func (c *Compiler) releaseRow(key RowKey) {
	if t := c.byPortList[c.maps.Rows[key].PortList]; t != nil {
		if t.refs--; t.refs == 0 {
			t.dead = c.round
		}
	}
	delete(c.maps.Rows, key)
	c.changes.StaleRows = append(c.changes.StaleRows, key)
}
