// Package matrix asks who reaches whom: it makes real connections between every source and every endpoint of a
// view, holds them against what the NetworkPolicies mean, and draws the two beside each other.
package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// A Source is a place to connect from.
type Source struct {
	// Row that the source is shown in. The replicas of a workload share one.
	Row string
	// Name of the source alone, as a pod's.
	Name string
	// Addresses by which others, and policies, know it.
	Addresses []netip.Addr
	// Dial connects to all targets at the same time.
	Dial func(ctx context.Context, targets []reach.Target, timeout time.Duration) ([]reach.Result, error)
}

// A Column is a port of a workload, or of its Service.
type Column struct {
	Group string // the workload
	Port  string // "80" or "53/udp"
}

// An Endpoint is something to connect to.
type Endpoint struct {
	Column Column
	Target reach.Target
	// Backends are where a connection may arrive: the target itself, or the pods behind a Service's address.
	Backends []netip.AddrPort
}

// A View is a set of sources and endpoints that one table shows.
type View struct {
	Title     string
	Sources   []Source
	Endpoints []Endpoint
}

// A Table is a view with its probes.
type Table struct {
	View
	Probes []Probe
}

// A Probe is one connection: what came of it and what should.
type Probe struct {
	Source   *Source
	Endpoint *Endpoint
	Allowed  bool // by the policies
	Result   reach.Result
}

// Right reports whether a connection went as the policies say: what they refuse has to be dropped without an answer.
func (p *Probe) Right() bool { return p.Result.Outcome == p.want() }

func (p *Probe) want() reach.Outcome {
	if p.Allowed {
		return reach.Open
	}
	return reach.TimedOut
}

func (p *Probe) String() string {
	s := fmt.Sprintf("%s → %s %s %s: %s", p.Source.Name, p.Endpoint.Column.Group, p.Endpoint.Column.Port, p.Result.Target, p.Result.Outcome)
	if p.Result.Error != "" && p.Result.Outcome != reach.TimedOut {
		s += " (" + p.Result.Error + ")"
	}
	if !p.Right() {
		s += ", want " + string(p.want())
	}
	return s
}

// Plan lists the probes of a view, not made yet, and what policies mean for each. Left out are a pod's own address, which its
// traffic does not leave it for, and Services whose backends are not all of one meaning.
func (v View) Plan(policies *reference.NetworkPolicies) *Table {
	t := &Table{View: v}
	for i := range v.Sources {
		source := &v.Sources[i]
		for j := range v.Endpoints {
			endpoint := &v.Endpoints[j]
			k := slices.IndexFunc(source.Addresses, func(a netip.Addr) bool { return a.Is4() == endpoint.Target.Address.Addr().Is4() })
			if k < 0 || source.Addresses[k] == endpoint.Target.Address.Addr() {
				continue
			}
			allowed, certain := endpoint.meaning(policies, source.Addresses[k])
			if certain {
				t.Probes = append(t.Probes, Probe{Source: source, Endpoint: endpoint, Allowed: allowed})
			}
		}
	}
	return t
}

// meaning asks the policies about each backend. It is certain if they agree.
func (e *Endpoint) meaning(policies *reference.NetworkPolicies, source netip.Addr) (allowed, certain bool) {
	protocol := policy.TCP
	if e.Target.Protocol == "udp" {
		protocol = policy.UDP
	}
	for i, backend := range e.Backends {
		a := policies.Allows(policy.Flow{Source: source, Destination: backend.Addr(), Protocol: protocol, Port: backend.Port()})
		if i > 0 && a != allowed {
			return false, false
		}
		allowed, certain = a, true
	}
	return allowed, certain
}

// Run makes the connections of all probes, those of different sources at the same time too.
func (t *Table) Run(ctx context.Context, timeout time.Duration) error {
	bySource := map[*Source][]*Probe{}
	for i := range t.Probes {
		p := &t.Probes[i]
		bySource[p.Source] = append(bySource[p.Source], p)
	}
	var all errgroup.Group
	for source, probes := range bySource {
		all.Go(func() error {
			if err := dial(ctx, source, probes, timeout); err != nil {
				return fmt.Errorf("probes from %s: %w", source.Name, err)
			}
			return nil
		})
	}
	return all.Wait()
}

func dial(ctx context.Context, source *Source, probes []*Probe, timeout time.Duration) error {
	targets := make([]reach.Target, len(probes))
	for i, p := range probes {
		targets[i] = p.Endpoint.Target
	}
	results, err := source.Dial(ctx, targets, timeout)
	if err != nil {
		return err
	}
	if len(results) != len(targets) {
		return fmt.Errorf("%d results for %d targets", len(results), len(targets))
	}
	for i, p := range probes {
		if results[i].Target != targets[i] {
			return fmt.Errorf("a result for %s where one for %s belongs", results[i].Target, targets[i])
		}
		p.Result = results[i]
	}
	return nil
}

// Wrong are the probes that did not go as the policies say.
func (t *Table) Wrong() []Probe {
	return slices.DeleteFunc(slices.Clone(t.Probes), func(p Probe) bool { return p.Right() })
}
