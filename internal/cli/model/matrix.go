package model

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// Matrix says who reaches whom.
type Matrix struct {
	Rows    []Workload
	Columns []Column
	// Cells by row and column.
	Cells [][]Verdict
	// AssumesPrivate by row and column: the verdict is only right if pods whose addresses are not known have private ones. Nil where none is so.
	AssumesPrivate [][]bool
	// Left is the number of workloads of other namespaces that are left out: they reach the pods shown, or are reached, only where no policy
	// isolates those.
	Left int
}

// Column is a port of a workload.
type Column struct {
	Workload Workload
	Port     Port
}

// MatrixOptions say what a matrix shows.
type MatrixOptions struct {
	// Namespaces that the rows and columns are of, beside the workloads of others that policies let these reach or be reached by; none: all.
	Namespaces []string
	// Ports of each column's workload; none: those that it declares.
	Ports []Port
	// Outside are addresses that are no pods'.
	Outside []netip.Addr
	// Names are DNS names of hosts outside the cluster, in canonical form, as columns: with the addresses that are known of them, or none.
	Names map[string][]netip.Addr
	// From and To are the workloads that rows and columns are of; none: all that the rest asks for.
	From, To []Workload
}

// rows and columns report whether a workload may be a row and whether it may be a column.
func (o *MatrixOptions) rows(w Workload) bool    { return len(o.From) == 0 || slices.Contains(o.From, w) }
func (o *MatrixOptions) columns(w Workload) bool { return len(o.To) == 0 || slices.Contains(o.To, w) }

// Matrix of the cluster's workloads.
func (c *Cluster) Matrix(o MatrixOptions) *Matrix {
	r := NewReach(c, c.ofFamilies(o.Outside)...)
	r.addNames(o.Names)
	m := &Matrix{}
	ports := c.portsByWorkload()
	asked := func(w Workload) []Port {
		out := o.Ports
		if len(out) == 0 {
			out = ports[w]
		}
		if w.Kind == "Address" && len(out) == 0 {
			out = c.egressPorts(func(p networkingv1.NetworkPolicyPeer) bool {
				return netpol.NewPeerMatcher("", &p).Matches(netip.MustParseAddr(w.Name), nil, nil)
			}, func(p *clusterPeer) bool { return p.Matches(netip.MustParseAddr(w.Name), nil, nil) })
		}
		if w.Kind == "DomainName" && len(out) == 0 {
			out = c.egressPorts(nil, func(p *clusterPeer) bool { return p.coversName(w.Name) })
		}
		if len(out) == 0 {
			out = []Port{OtherPort}
		}
		return out
	}
	inside := func(w Workload) bool {
		return w.IsOutside() || len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, w.Namespace)
	}
	var own []Workload
	for _, w := range r.Workloads() {
		if inside(w) && !w.IsOutside() {
			own = append(own, w)
		}
	}
	for _, w := range r.Workloads() {
		from, to := inside(w) && w.Kind != "DomainName", inside(w)
		if !to {
			if from, to = r.letIn(w, own, asked), r.letOut(w, own, asked(w)); !from && !to {
				m.Left++
			}
		}
		if from && o.rows(w) {
			m.Rows = append(m.Rows, w)
		}
		if to && o.columns(w) {
			for _, p := range asked(w) {
				m.Columns = append(m.Columns, Column{w, p})
			}
		}
	}
	shown := func(row Workload, column Column) bool { return inside(row) || inside(column.Workload) }
	m.Cells = m.cells(r, shown)
	if wide := r.evaluator.wideParts(blocksOf(c)); wide != (bothParts{}) {
		wider := newReach(r.evaluator, wide, c.ofFamilies(o.Outside))
		wider.addNames(o.Names)
		m.markAssumed(m.cells(wider, shown))
	}
	return m
}

// cells by a Reach.
func (m *Matrix) cells(r *Reach, shown func(Workload, Column) bool) [][]Verdict {
	out := make([][]Verdict, len(m.Rows))
	targets := make([]*group, len(m.Columns))
	for j, column := range m.Columns {
		targets[j] = r.groups[column.Workload]
	}
	for i, row := range m.Rows {
		from := r.groups[row]
		out[i] = make([]Verdict, len(m.Columns))
		for j, column := range m.Columns {
			if shown(row, column) {
				out[i][j] = from.verdict(targets[j], column.Port)
			}
		}
	}
	return out
}

// Only leaves nothing to be asked about in the cells whose verdict is not kept, and drops the rows and columns that are then empty.
func (m *Matrix) Only(keep func(Verdict) bool) {
	rows, columns := map[int]bool{}, map[int]bool{}
	for i := range m.Cells {
		for j, v := range m.Cells[i] {
			if v == NotAsked || !keep(v) {
				m.Cells[i][j] = NotAsked
				if m.AssumesPrivate != nil {
					m.AssumesPrivate[i][j] = false
				}
				continue
			}
			rows[i], columns[j] = true, true
		}
	}
	m.Rows, m.Columns = those(m.Rows, rows), those(m.Columns, columns)
	m.Cells, m.AssumesPrivate = those(m.Cells, rows), those(m.AssumesPrivate, rows)
	for i := range m.Cells {
		m.Cells[i] = those(m.Cells[i], columns)
		if m.AssumesPrivate != nil {
			m.AssumesPrivate[i] = those(m.AssumesPrivate[i], columns)
		}
	}
}

// those are the elements of a list at these indexes.
func those[T any](list []T, at map[int]bool) (out []T) {
	for i := range list {
		if at[i] {
			out = append(out, list[i])
		}
	}
	return out
}

// markAssumed marks the cells that have another verdict where pods may have public addresses too.
func (m *Matrix) markAssumed(wide [][]Verdict) {
	m.AssumesPrivate = make([][]bool, len(m.Rows))
	for i := range m.Cells {
		m.AssumesPrivate[i] = make([]bool, len(m.Columns))
		for j := range m.Cells[i] {
			m.AssumesPrivate[i][j] = m.Cells[i][j] != wide[i][j]
		}
	}
}

// letIn reports whether a policy lets a workload reach one of these.
func (r *Reach) letIn(w Workload, own []Workload, ports func(Workload) []Port) bool {
	return slices.ContainsFunc(own, func(to Workload) bool {
		return r.Isolated(to)[policy.Ingress] != Denied && r.reaches(w, to, ports(to))
	})
}

// letOut reports whether a policy lets one of these reach a workload.
func (r *Reach) letOut(w Workload, own []Workload, ports []Port) bool {
	return slices.ContainsFunc(own, func(from Workload) bool {
		return r.Isolated(from)[policy.Egress] != Denied && r.reaches(from, w, ports)
	})
}

func (r *Reach) reaches(from, to Workload, ports []Port) bool {
	return slices.ContainsFunc(ports, func(p Port) bool {
		v := r.Verdict(from, to, p)
		return v != NotAsked && v != Denied
	})
}

// ofFamilies leaves out addresses of families that no pod has.
func (c *Cluster) ofFamilies(addresses []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool { return !c.HasFamily(a) })
}

// HasFamily reports whether a pod has an address of the same family.
func (c *Cluster) HasFamily(addr netip.Addr) bool {
	return slices.ContainsFunc(c.Pods, func(p Pod) bool {
		return slices.ContainsFunc(policy.PodAddresses(&p.Pod), func(a netip.Addr) bool { return a.Is4() == addr.Is4() })
	})
}

// egressPorts are the ports at which rules begin that have one of these peers, and one that no rule names. isPeer may be nil.
func (c *Cluster) egressPorts(isPeer func(networkingv1.NetworkPolicyPeer) bool, isClusterPeer func(*clusterPeer) bool) []Port {
	out := []Port{OtherPort}
	for i := range c.Policies {
		for _, r := range netpol.Rules(policy.Egress, &c.Policies[i]) {
			if isPeer == nil || !slices.ContainsFunc(r.Peers, isPeer) {
				continue
			}
			for _, p := range r.Ports {
				if p.Port != nil && p.Port.StrVal == "" {
					out = append(out, Port{policy.ProtocolOf(p.Protocol), uint16(p.Port.IntVal)})
				}
			}
		}
	}
	for i := range c.ClusterPolicies {
		for _, r := range ClusterRules(policy.Egress, &c.ClusterPolicies[i]) {
			if !slices.ContainsFunc(r.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool { return isClusterPeer(newClusterPeer(&p, c)) }) {
				continue
			}
			for j := range r.Protocols {
				switch protocol, port := ProtocolAndPort(&r.Protocols[j]); {
				case port == nil:
				case port.Range != nil:
					out = append(out, Port{protocol, uint16(port.Range.Start)})
				default:
					out = append(out, Port{protocol, uint16(port.Number)})
				}
			}
		}
	}
	slices.SortFunc(out, Port.Compare)
	return slices.Compact(out)
}

func (c *Cluster) portsByWorkload() map[Workload][]Port {
	services := map[string]*Cluster{}
	for _, s := range c.Services {
		if services[s.Namespace] == nil {
			services[s.Namespace] = &Cluster{}
		}
		services[s.Namespace].Services = append(services[s.Namespace].Services, s)
	}
	out := map[Workload][]Port{}
	for i := range c.Pods {
		p := &c.Pods[i]
		there := services[p.Namespace]
		if there == nil {
			there = &Cluster{}
		}
		for _, port := range there.Ports(p) {
			if !slices.Contains(out[p.Workload], port) {
				out[p.Workload] = append(out[p.Workload], port)
			}
		}
	}
	for _, ports := range out {
		slices.SortFunc(ports, Port.Compare)
	}
	return out
}

// Blocks are addresses to ask about outside the cluster: one in each ipBlock and network that policies have, and one in each
// except. Blocks that hold a pod or are everything say nothing about one address.
func (c *Cluster) Blocks() []netip.Addr {
	var out []netip.Addr
	add := func(cidr string) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil || p.Bits() < 8 || Synthetic.Overlaps(p) {
			return
		}
		addr := p.Masked().Addr()
		if !p.IsSingleIP() {
			addr = addr.Next()
		}
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	c.EachBlock(add)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// elsewhere are addresses of no host that a cluster has, for IPv4 and IPv6: for documentation (RFC 5737, RFC 3849, RFC 9637), and others far from those.
var elsewhere = [2][]netip.Addr{
	{PlaceholderOf(true), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("64.0.0.1"), netip.MustParseAddr("32.0.0.1")},
	{PlaceholderOf(false), netip.MustParseAddr("3fff::1"), netip.MustParseAddr("2000::1")},
}

// Elsewhere is an address of a family that stands for all outside the cluster that policies do not name: it is in as few of their blocks as
// may be.
func (c *Cluster) Elsewhere(is4 bool) netip.Addr {
	candidates := elsewhere[0]
	if !is4 {
		candidates = elsewhere[1]
	}
	in := make([]int, len(candidates))
	c.EachBlock(func(cidr string) {
		p, err := netip.ParsePrefix(cidr)
		for i, addr := range candidates {
			if err == nil && p.Contains(addr) {
				in[i]++
			}
		}
	})
	return candidates[slices.Index(in, slices.Min(in))]
}

// EachBlock calls do with each CIDR that policies have: in ipBlocks, their excepts, and networks.
func (c *Cluster) EachBlock(do func(cidr string)) {
	for i := range c.Policies {
		for _, d := range policy.Directions {
			for _, r := range netpol.Rules(d, &c.Policies[i]) {
				for _, peer := range r.Peers {
					if peer.IPBlock != nil {
						do(peer.IPBlock.CIDR)
						for _, e := range peer.IPBlock.Except {
							do(e)
						}
					}
				}
			}
		}
	}
	for i := range c.ClusterPolicies {
		for _, r := range c.ClusterPolicies[i].Spec.Egress {
			for _, peer := range r.To {
				for _, n := range peer.Networks {
					do(string(n))
				}
			}
		}
	}
}
