package pairing

import (
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Sum sums up reports of any time to flows without pods. What the two ends' nodes have reported is matched by number.
type Sum struct {
	kinds    kinds
	variants variants
	// shortened are ends as flows show them.
	shortened map[*observerapi.End]*observerapi.End
	byText    map[string]*observerapi.End
	shorten   func(*observerapi.End) observerapi.End
	sums      map[kind]map[sumKey]*store.Report
}

type sumKey struct {
	direction store.Direction
	decision  *observerapi.Decision
	service   string
	beside    bool
}

// NewSum returns an empty sum. It shortens ends: ends that are equal then are one.
func NewSum(shorten func(*observerapi.End) observerapi.End) *Sum {
	return &Sum{
		kinds: kinds{}, shortened: map[*observerapi.End]*observerapi.End{}, byText: map[string]*observerapi.End{},
		shorten: shorten, sums: map[kind]map[sumKey]*store.Report{},
	}
}

// Add adds a report.
func (s *Sum) Add(r *store.Report) {
	c := *r
	c.Source, c.Destination = s.end(r.Source), s.end(r.Destination)
	k := s.kinds.of(&c)
	of := s.sums[k]
	if of == nil {
		of = map[sumKey]*store.Report{}
		s.sums[k] = of
	}
	key := sumKey{r.Direction, r.Decision, r.Service, r.Beside}
	if old, ok := of[key]; ok {
		old.Connections += c.Connections
		old.Bytes += c.Bytes
		if c.First.Before(old.First) {
			old.First = c.First
		}
		if c.Last.After(old.Last) {
			old.Last = c.Last
		}
		return
	}
	of[key] = &c
}

func (s *Sum) end(e *observerapi.End) *observerapi.End {
	if short, ok := s.shortened[e]; ok {
		return short
	}
	v := s.shorten(e)
	text := nameOf(&v)
	short, ok := s.byText[text]
	if !ok {
		short = &v
		s.byText[text] = short
	}
	s.shortened[e] = short
	return short
}

// Flows returns the flows, ordered by the last connection.
func (s *Sum) Flows() []*observerapi.Flow {
	c := collector{}
	for k, of := range s.sums {
		reports := make([]*store.Report, 0, len(of))
		for _, r := range of {
			reports = append(reports, r)
		}
		parts := audit(reports, &s.variants)
		var egress, ingress []part
		for i := range parts {
			p := &parts[i]
			switch {
			case p.Direction == store.Ingress:
				ingress = append(ingress, *p)
			case p.decision.Verdict == observerapi.Denied:
				c.add(k, p, nil, p.connections, p.bytes, time.Time{}, 0)
			default:
				egress = append(egress, *p)
			}
		}
		for len(egress) > 0 && len(ingress) > 0 {
			e, i := &egress[0], &ingress[0]
			n := min(e.connections, i.connections)
			bytes := e.take(n)
			i.take(n)
			c.add(k, e, i, n, bytes, time.Time{}, 0)
			egress, ingress = rest(egress), rest(ingress)
		}
		for i := range egress {
			c.add(k, &egress[i], nil, egress[i].connections, egress[i].bytes, time.Time{}, 0)
		}
		for i := range ingress {
			c.add(k, nil, &ingress[i], ingress[i].connections, ingress[i].bytes, time.Time{}, 0)
		}
	}
	return slices.Clip(c.flows())
}

// rest leaves out parts that are used up.
func rest(parts []part) []part {
	if parts[0].connections == 0 {
		return parts[1:]
	}
	return parts
}
