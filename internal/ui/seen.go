package ui

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
)

// Seen is what happened at each port of the edges, in columns like Edges.Port.
type Seen struct {
	// Rate is connections per minute, Total their number, and Denied how many of them were denied.
	Rate   []float64 `json:"rate"`
	Total  []uint64  `json:"total"`
	Denied []uint64  `json:"denied"`
	// First and Last are the times of the first and the last one in seconds since 1970, or 0.
	First []int64 `json:"first"`
	Last  []int64 `json:"last"`
}

// Traffic says what the observer's answer covers, or why there is none.
type Traffic struct {
	// Error is empty if the observer answered; Rights is set if the reader lacks the rights.
	Error  string    `json:"error,omitempty"`
	Rights bool      `json:"rights,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"`
	// CompleteSince is since when the observer has all flows, if that is later than Since.
	CompleteSince time.Time `json:"completeSince,omitzero"`
	// Losses are what is missing, by node.
	Losses []observerapi.Loss `json:"losses,omitempty"`
	// Hidden are the namespaces of which the reader sees nothing but names.
	Hidden []string `json:"hidden,omitempty"`
	// Truncated is set if the observer had more to answer: connections that are not in the answer may have been opened all the same.
	Truncated bool `json:"truncated,omitempty"`
	// Unplaced are the connections with an end that is not on the map, such as a workload that is gone.
	Unplaced uint64 `json:"unplaced,omitempty"`
}

// mostEdges is how many sums an observer may answer with.
const mostEdges = 50_000

// observe asks the observer, and adds what it saw to a graph. Without its answer the graph stays what policies allow.
func (s *Server) observe(ctx context.Context, snap *snapshot, g *Graph, since time.Duration) {
	list := &observerapi.FlowList{}
	query := url.Values{"since": {since.String()}, "limit": {strconv.Itoa(mostEdges)}}
	if err := s.ask(ctx, observerapi.PathEdges, query, list); err != nil {
		problem := problemOf(err)
		g.Traffic = &Traffic{Error: problem.Error, Rights: problem.Rights}
		return
	}
	c := list.Coverage
	g.Traffic = &Traffic{Since: c.Since, Until: c.Until, CompleteSince: c.CompleteSince, Losses: c.Losses, Hidden: list.Hidden}
	g.Traffic.Truncated = c.LeftOut(len(list.Flows), mostEdges)
	snap.addFlows(g, list)
}

// seenPort is a port of an edge, with what happened there.
type seenPort struct {
	port          model.Port
	code          Code
	total, denied uint64
	first, last   time.Time
}

// addFlows adds flows to the edges: those of connections that no policy allows, or that the map left out, become edges. What policies deny and
// nothing tried is counted only.
func (s *snapshot) addFlows(g *Graph, list *observerapi.FlowList) {
	type ends struct{ from, to int }
	at := map[ends]int{}
	var order []ends
	var ports [][]seenPort
	for i := range g.Edges.Source {
		e := ends{g.Edges.Source[i], g.Edges.Destination[i]}
		at[e], order = len(order), append(order, e)
		var own []seenPort
		for k := g.Edges.First[i]; k < g.Edges.First[i+1]; k++ {
			own = append(own, seenPort{port: model.Port{Protocol: policy.Protocol(g.Edges.Protocol[k]), Number: uint16(g.Edges.Port[k])}, code: g.Edges.Verdict[k]})
		}
		ports = append(ports, own)
	}
	outside := s.outside()
	for i := range list.Flows {
		f := &list.Flows[i]
		if f.Reply || f.Continues || f.Connections == 0 {
			continue
		}
		from, known := s.nodeOf(&f.Source, outside)
		to, alsoKnown := s.nodeOf(&f.Destination, outside)
		protocol, ok := policy.ParseProtocol(f.Protocol)
		if !known || !alsoKnown || !ok {
			g.Traffic.Unplaced += f.Connections
			continue
		}
		e := ends{from, to}
		n, ok := at[e]
		if !ok {
			n = len(order)
			at[e], order, ports = n, append(order, e), append(ports, nil)
		}
		port := model.Port{Protocol: protocol, Number: f.Port}
		k := slices.IndexFunc(ports[n], func(p seenPort) bool { return p.port == port })
		if k < 0 {
			k = len(ports[n])
			ports[n] = append(ports[n], seenPort{port: port, code: seenCode(f.Verdict)})
		}
		p := &ports[n][k]
		p.total += f.Connections
		if f.Verdict == observerapi.Denied || f.Verdict == observerapi.WouldBeAllow {
			p.denied += f.Connections
		}
		if f.Verdict == observerapi.WouldBeDeny && p.code == CodeAllowed {
			p.code = CodeWouldDeny
		}
		if p.first.IsZero() || f.First.Before(p.first) {
			p.first = f.First
		}
		if f.Last.After(p.last) {
			p.last = f.Last
		}
	}
	minutes := max(1, list.Coverage.Until.Sub(list.Coverage.Since).Minutes())
	g.Edges, g.Seen = Edges{}, &Seen{}
	for n, e := range order {
		if !slices.ContainsFunc(ports[n], func(p seenPort) bool { return p.total > 0 || p.code != CodeDenied && p.code != CodeWouldAllow }) {
			g.Denied++ // and not tried
			continue
		}
		var plain []model.Port
		var codes []Code
		for _, p := range ports[n] {
			plain, codes = append(plain, p.port), append(codes, p.code)
			g.Seen.Rate, g.Seen.Total = append(g.Seen.Rate, float64(p.total)/minutes), append(g.Seen.Total, p.total)
			g.Seen.Denied, g.Seen.Last = append(g.Seen.Denied, p.denied), append(g.Seen.Last, seconds(p.last))
			g.Seen.First = append(g.Seen.First, seconds(p.first))
		}
		g.Edges.add(e.from, e.to, plain, codes)
	}
	g.Edges.First = append(g.Edges.First, len(g.Edges.Port))
}

// seconds since 1970, or 0.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func seenCode(v observerapi.Verdict) Code {
	switch v {
	case observerapi.Denied:
		return CodeDenied
	case observerapi.WouldBeDeny:
		return CodeWouldDeny
	case observerapi.WouldBeAllow:
		return CodeWouldAllow
	case observerapi.Allowed:
	}
	return CodeAllowed
}

// outsideBlock is a block outside the cluster that is a node.
type outsideBlock struct {
	prefix netip.Prefix
	node   int
}

// outside are the blocks that are nodes, the narrowest first.
func (s *snapshot) outside() (out []outsideBlock) {
	for _, p := range slices.Backward(blocks(s.cluster)) {
		if n, ok := s.byID[outsideID(p)]; ok {
			out = append(out, outsideBlock{p, n})
		}
	}
	return out
}

// nodeOf an end: its workload, a DNS name that policies name, the narrowest block with its address, or the internet.
func (s *snapshot) nodeOf(e *observerapi.End, outside []outsideBlock) (int, bool) {
	if e.Workload != nil {
		n, ok := s.byObject[model.Workload{Namespace: e.Namespace, Kind: e.Workload.Kind, Name: e.Workload.Name}]
		return n, ok
	}
	if e.IsNode || e.Namespace != "" {
		return 0, false
	}
	for _, name := range e.DomainNames {
		if n, ok := s.byID[outsidePrefix+name]; ok {
			return n, true
		}
	}
	for _, b := range outside {
		if e.Address.IsValid() && b.prefix.Contains(e.Address) {
			return b.node, true
		}
	}
	n, ok := s.byID[internet]
	return n, ok
}
