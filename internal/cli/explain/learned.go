package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/policy"
)

// Learned is an address that a node has learned of a DNS name.
type Learned struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Until is when it expires: new connections are denied afterwards.
	Until time.Time `json:"until"`
}

func (l *Learned) describe(now time.Time) string {
	if !l.Until.After(now) {
		return fmt.Sprintf("%s was learned as %s, and has expired", l.Address, l.Name)
	}
	return fmt.Sprintf("%s is learned as %s, and expires in %s", l.Address, l.Name, l.Until.Sub(now).Round(time.Second))
}

// concernsNames reports whether an answer depends on what nodes have learned.
func (a *Answer) concernsNames() bool {
	return slices.ContainsFunc(a.Flows, func(f Flow) bool {
		return f.Destination.DomainName != "" || slices.ContainsFunc(f.Halves, func(h Half) bool { return len(h.ByName) > 0 })
	})
}

// learned adds what the source's node has learned to an egress half. A denied address that the node has learned of a name is allowed by the first
// rule with the name.
func (f *Flow) learned(h *Half, s *said, now time.Time) {
	if h.Direction != policy.Egress.String() {
		return
	}
	var live []string // patterns of addresses that have not expired
	for _, n := range s.names {
		for _, a := range n.Addresses {
			if f.Destination.DomainName != n.Name && (f.Destination.DomainName != "" || len(h.ByName) == 0 || a.Address != f.Destination.Address) {
				continue
			}
			if l := (Learned{n.Name, a.Address, a.Until}); !slices.Contains(h.InForce.Learned, l) {
				h.InForce.Learned = append(h.InForce.Learned, l)
			}
			if a.Until.After(now) {
				live = append(live, n.Pattern)
			}
		}
	}
	if f.Destination.DomainName != "" {
		if len(live) == 0 && h.byName {
			f.Notes = append(f.Notes, fmt.Sprintf("on node %s no address is known for the name now: a rule by name matches when the pod has resolved it", h.InForce.Node))
		}
		return
	}
	for _, b := range h.ByName {
		for _, text := range b.Names {
			if pattern, err := policy.CanonicalDomainName(text); err == nil && slices.Contains(live, pattern) {
				h.Verdict, h.Allowed, h.Reason, h.Rule, h.ByName, h.Tiers = Allowed, true, ReasonClusterRule, &b.Rule, nil, nil
				return
			}
		}
	}
}
