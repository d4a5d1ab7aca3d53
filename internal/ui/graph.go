package ui

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Graph is the map as the page reads it, in columns: 25,000 edges as objects would be ten times as large.
type Graph struct {
	// Name of the cluster or the manifests; ID is the same each time, for what a browser remembers of it.
	Name string `json:"name"`
	ID   string `json:"id"`
	Live bool   `json:"live"`
	// Agents is set where agents are asked what is in force.
	Agents bool `json:"agents,omitempty"`
	// Replay is set where recorded connections can be judged again.
	Replay bool `json:"replay,omitempty"`
	// Taken is when the cluster was read.
	Taken      time.Time `json:"taken"`
	Namespaces []string  `json:"namespaces"`
	Nodes      Nodes     `json:"nodes"`
	Edges      Edges     `json:"edges"`
	// Seen and Traffic are what an observer saw; both are nil where there is none. Seen is nil if it does not answer.
	Seen    *Seen    `json:"seen,omitempty"`
	Traffic *Traffic `json:"traffic,omitempty"`
	// Open is how many pairs of workloads are left out because no policy isolates either end in the direction of the connection, and Denied how many
	// because policies deny all their ports. Both are 0 in a small cluster, whose edges are all there.
	Open   int `json:"open"`
	Denied int `json:"denied"`
	// Policies is how many there are.
	Policies int `json:"policies"`
	// Notes about the input.
	Notes []string `json:"notes,omitempty"`
}

// Nodes by column.
type Nodes struct {
	ID []string `json:"id"`
	// Namespace is an index of Namespaces, or -1 outside the cluster.
	Namespace []int    `json:"namespace"`
	Name      []string `json:"name"`
	Kind      []string `json:"kind"`
	Pods      []int    `json:"pods"`
	// Ingress and Egress: 0 not isolated, 1 isolated, 2 some pods are.
	Ingress []int `json:"ingress"`
	Egress  []int `json:"egress"`
}

// Edges by column. The ports of edge i are those from First[i] to First[i+1].
type Edges struct {
	Source      []int `json:"source"`
	Destination []int `json:"destination"`
	First       []int `json:"first"`
	// Port is 0 for a port that no rule names.
	Port []int `json:"port"`
	// Protocol is an IP protocol number.
	Protocol []int  `json:"protocol"`
	Verdict  []Code `json:"verdict"`
}

// Code of a port's verdict.
type Code int

// The codes.
const (
	CodeAllowed Code = iota
	CodeDenied
	CodeWouldDeny  // allowed, and denied if audited policies were enforced
	CodePartial    // some pods
	CodeDepends    // on an address that is not known
	CodeWouldAllow // denied, and allowed if audited policies were enforced
)

// mostPairs is how many pairs of nodes a cluster has whose map shows them all, those too that no policy decides about and those that are denied.
const mostPairs = 4000

func (s *Server) graph(r *http.Request) (any, error) {
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	out := *snap.graph
	id := fnv.New64a()
	_, _ = id.Write([]byte(s.options.Name)) // never fails
	out.Agents, out.Replay = s.options.InForce != nil, s.options.Observer != nil && !s.mounted
	out.Name, out.Live, out.ID = s.options.Name, s.options.Live, fmt.Sprintf("%016x", id.Sum64())
	if s.options.Observer != nil {
		since, err := time.ParseDuration(cmp.Or(r.URL.Query().Get("since"), "24h"))
		if err != nil || since <= 0 {
			return nil, invalid(fmt.Errorf("since=%s is not a duration such as 24h", r.URL.Query().Get("since")))
		}
		s.observe(r.Context(), snap, &out, since)
	}
	return &out, nil
}

// newGraph of the nodes. named are the DNS names that workloads may reach.
func (s *snapshot) newGraph(named map[model.Workload]map[string]model.PortSet) *Graph {
	c := s.cluster
	g := &Graph{Taken: time.Now().UTC().Truncate(time.Second), Policies: len(c.Policies) + len(c.ClusterPolicies), Notes: c.Notes}
	namespaces := map[string]int{}
	for _, n := range s.nodes {
		if n.workload.Namespace != "" {
			namespaces[n.workload.Namespace] = 0
		}
	}
	g.Namespaces = slices.Sorted(maps.Keys(namespaces))
	for i, name := range g.Namespaces {
		namespaces[name] = i
	}
	var outside []netip.Addr
	for _, n := range s.nodes {
		g.Nodes.add(&n, namespaces)
		if n.workload.Kind == "Address" {
			outside = append(outside, netip.MustParseAddr(n.workload.Name))
		}
	}
	o := model.MatrixOptions{Outside: outside}
	matrix := c.Matrix(o)
	var audited *model.Matrix
	if len(c.Audited()) > 0 {
		audited = c.EnforceAudited().Matrix(o)
	}
	s.addEdges(g, matrix, audited)
	s.addNames(g, named)
	g.Edges.First = append(g.Edges.First, len(g.Edges.Port))
	return g
}

func (n *Nodes) add(of *node, namespaces map[string]int) {
	at := -1
	name := of.workload.Name
	if ns, ok := namespaces[of.workload.Namespace]; ok {
		at = ns
	} else {
		name = of.id[len(outsidePrefix):]
	}
	n.ID, n.Namespace, n.Name = append(n.ID, of.id), append(n.Namespace, at), append(n.Name, name)
	n.Kind, n.Pods = append(n.Kind, of.workload.Kind), append(n.Pods, of.pods)
	n.Ingress = append(n.Ingress, isolation(of.isolated[policy.Ingress]))
	n.Egress = append(n.Egress, isolation(of.isolated[policy.Egress]))
}

func isolation(v model.Verdict) int {
	switch v {
	case model.Allowed:
		return 1
	case model.Partial:
		return 2
	case model.NotAsked, model.Denied, model.Depends:
	}
	return 0
}

// addEdges for the cells of a matrix: an edge is all ports of a row at the workload of some columns.
func (s *snapshot) addEdges(g *Graph, m, audited *model.Matrix) {
	all := len(s.nodes)*len(s.nodes) <= mostPairs
	general := internetCells(m, s.byID, s.nodes)
	for i, row := range m.Rows {
		from := s.byObject[row]
		for first := 0; first < len(m.Columns); {
			j0, last := first, first+1
			for last < len(m.Columns) && m.Columns[last].Workload == m.Columns[first].Workload {
				last++
			}
			to := s.byObject[m.Columns[first].Workload]
			var ports []model.Port
			var codes []Code
			denied := true
			for j := first; j < last; j++ {
				if m.Cells[i][j] == model.NotAsked {
					continue
				}
				code := codeOf(m.Cells[i][j])
				if audited != nil {
					code = withAudit(code, codeOf(audited.Cells[i][j]))
				}
				denied = denied && code == CodeDenied
				ports, codes = append(ports, m.Columns[j].Port), append(codes, code)
			}
			first = last
			switch {
			case len(ports) == 0, general.covers(row, m.Columns[j0].Workload, codes):
			case denied && !all:
				g.Denied++
			case !all && g.Nodes.Egress[from] == 0 && g.Nodes.Ingress[to] == 0:
				g.Open++
			default:
				g.Edges.add(from, to, ports, codes)
			}
		}
	}
}

// likeInternet are the verdicts between each workload and the internet, with which those of blocks are compared: a block has an edge only where
// policies distinguish the two.
type likeInternet struct {
	internet model.Workload
	in, out  map[model.Workload][]Code // by workload, of its ports from the internet, and of the internet's ports
}

func internetCells(m *model.Matrix, byID map[string]int, nodes []node) *likeInternet {
	at, ok := byID[internet]
	if !ok {
		return nil
	}
	l := &likeInternet{internet: nodes[at].workload, in: map[model.Workload][]Code{}, out: map[model.Workload][]Code{}}
	for i, row := range m.Rows {
		for j, column := range m.Columns {
			switch v := m.Cells[i][j]; {
			case v == model.NotAsked:
			case row == l.internet:
				l.in[column.Workload] = append(l.in[column.Workload], codeOf(v))
			case column.Workload == l.internet:
				l.out[row] = append(l.out[row], codeOf(v))
			}
		}
	}
	return l
}

// covers reports whether one end is a block to which all this applies as it does to the internet.
func (l *likeInternet) covers(from, to model.Workload, codes []Code) bool {
	switch {
	case l == nil || from == l.internet || to == l.internet:
		return false
	case from.Kind == "Address":
		return slices.Equal(codes, l.in[to])
	case to.Kind == "Address":
		same := func(list []Code) bool {
			return len(list) > 0 && !slices.ContainsFunc(list, func(c Code) bool { return c != list[0] })
		}
		general := l.out[from]
		return same(codes) && same(general) && codes[0] == general[0]
	}
	return false
}

// addNames adds the edges to DNS names, at the first ports of the ranges that rules name.
func (s *snapshot) addNames(g *Graph, named map[model.Workload]map[string]model.PortSet) {
	for _, w := range slices.SortedFunc(maps.Keys(named), model.Workload.Compare) {
		from, ok := s.byObject[w]
		if !ok {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(named[w])) {
			set := named[w][name]
			ports := []model.Port{model.OtherPort}
			if !set.Others {
				ports = nil
				for _, r := range set.Ranges {
					ports = append(ports, model.Port{Protocol: r.Protocol, Number: r.First})
				}
			}
			if len(ports) > 0 {
				g.Edges.add(from, s.byID[outsidePrefix+name], ports, make([]Code, len(ports)))
			}
		}
	}
}

func (e *Edges) add(from, to int, ports []model.Port, codes []Code) {
	e.Source, e.Destination, e.First = append(e.Source, from), append(e.Destination, to), append(e.First, len(e.Port))
	for _, p := range ports {
		e.Port, e.Protocol = append(e.Port, int(p.Number)), append(e.Protocol, int(p.Protocol))
	}
	e.Verdict = append(e.Verdict, codes...)
}

func codeOf(v model.Verdict) Code {
	switch v {
	case model.Allowed:
		return CodeAllowed
	case model.Partial:
		return CodePartial
	case model.Depends:
		return CodeDepends
	case model.NotAsked, model.Denied:
	}
	return CodeDenied
}

// withAudit is the code of what is enforced, with what would become of it.
func withAudit(now, enforced Code) Code {
	switch now {
	case enforced:
		return now
	case CodeAllowed:
		return CodeWouldDeny
	case CodeDenied:
		return CodeWouldAllow
	default:
		return cmp.Or(now, enforced)
	}
}
