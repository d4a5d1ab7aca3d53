package agent

import (
	"net/netip"
	"slices"
	"time"
)

// nameCache finds the DNS names of addresses for the flow log. The kernel finds patterns by address, and names only by reading all of them. The
// cache does that at most once in nameCachePause, for an address that it lacks, and after nameCacheAge. It is not safe for concurrent use.
type nameCache struct {
	kernel Names
	read   time.Time
	names  map[netip.Addr][]string
}

const (
	nameCachePause = time.Second
	nameCacheAge   = 30 * time.Second
)

// of returns the names under which an address was learned, in ascending order.
func (c *nameCache) of(addr netip.Addr, now time.Time) []string {
	if !c.kernel.LearnsNames() || len(c.kernel.PatternsOf(addr)) == 0 {
		return nil
	}
	names, age := c.names[addr], now.Sub(c.read)
	if age < nameCachePause || len(names) > 0 && age < nameCacheAge {
		return names
	}
	learned, err := c.kernel.LearnedNames()
	if err != nil {
		return nil // the line has the address
	}
	c.read, c.names = now, map[netip.Addr][]string{}
	for _, l := range learned {
		for a := range l.Addresses {
			if !slices.Contains(c.names[a], l.Name) {
				c.names[a] = append(c.names[a], l.Name)
			}
		}
	}
	for _, names := range c.names {
		slices.Sort(names)
	}
	return c.names[addr]
}
