package matrix

import (
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// internet stands for the addresses outside the cluster that are in no block of the policies, as in the map.
const internet = "internet"

// sampleOutside asks about what is outside the cluster: an address in each block that policies name, and one in none of them. It returns the
// names of what these addresses stand for.
func sampleOutside(c *model.Cluster, o *model.MatrixOptions) map[model.Workload]string {
	pods := model.NewEvaluator(c)
	names := map[model.Workload]string{}
	ask := func(addr netip.Addr, name string) {
		if c.HasFamily(addr) && pods.PodAt(addr) == nil && !slices.Contains(o.Outside, addr) {
			o.Outside = append(o.Outside, addr)
			names[model.Outside(addr)] = name
		}
	}
	blocks := map[netip.Addr]netip.Prefix{} // the narrowest that begins before an address
	c.EachBlock(func(cidr string) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return
		}
		p = p.Masked()
		addr := p.Addr()
		if !p.IsSingleIP() {
			addr = addr.Next()
		}
		if old, ok := blocks[addr]; !ok || old.Bits() < p.Bits() {
			blocks[addr] = p
		}
	})
	for _, addr := range c.Blocks() {
		name := blocks[addr].String()
		if blocks[addr].IsSingleIP() {
			name = addr.String()
		}
		ask(addr, name)
	}
	for _, is4 := range []bool{true, false} {
		addr := c.Elsewhere(is4)
		if c.AssumesIPv6(addr) {
			continue
		}
		name := internet
		if !is4 && c.HasFamily(model.PlaceholderOf(true)) {
			name += " (IPv6)"
		}
		ask(addr, name)
	}
	return names
}

// rename shows addresses outside the cluster by the names of what they stand for.
func (t *Table) rename(names map[model.Workload]string) {
	for i, w := range t.Rows {
		if name, ok := names[w]; ok {
			t.Rows[i].Name = name
		}
	}
	for j, c := range t.Columns {
		if name, ok := names[c.Workload]; ok {
			t.Columns[j].Workload.Name = name
		}
	}
}
