package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Ask whether from reaches to. Families, replicas and endpoints that are judged alike, by the same rules, are one flow of the answer.
func Ask(c *model.Cluster, namespace, from, to string) (*Answer, error) {
	e := model.NewEvaluator(c)
	source, err := findEnd(c, e, namespace, from)
	if err != nil {
		return nil, fmt.Errorf("--from %s: %w", from, err)
	}
	targets, err := findTargets(c, e, namespace, to)
	if err != nil {
		return nil, fmt.Errorf("--to %s: %w", to, err)
	}
	out := &Answer{Allowed: true}
	for _, t := range targets {
		for _, port := range t.ports {
			for _, d := range t.addresses {
				s, ok := ofFamily(source.addresses, d)
				if !ok {
					continue
				}
				f := explain(e, source, t.end, policy.Flow{Source: s, Destination: d, Protocol: port.Protocol, Port: port.Number})
				if f.Service = t.service; f.Service != "" {
					f.Hint = "" // the port is the pod's already
				}
				if !told(out.Flows, &f) {
					out.Flows = append(out.Flows, f)
				}
				out.Allowed = out.Allowed && f.Allowed
			}
		}
	}
	if len(out.Flows) == 0 {
		return nil, errors.New("the two have no address family in common")
	}
	return out, nil
}

func ofFamily(addresses []netip.Addr, like netip.Addr) (netip.Addr, bool) {
	for _, a := range addresses {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// told reports whether a flow between the same pods, or to another endpoint of the same workload, has the same explanation already.
func told(flows []Flow, f *Flow) bool {
	for i := range flows {
		a, b := flows[i], *f
		if a.Destination.Pod == "" || a.Destination.Workload != b.Destination.Workload || a.Destination.Workload == "" && a.Destination.Pod != b.Destination.Pod {
			continue
		}
		a.Source, a.Destination, b.Source, b.Destination = End{}, End{}, End{}, End{}
		a.Halves, b.Halves = anonymous(a.Halves), anonymous(b.Halves)
		if reflect.DeepEqual(a, b) {
			return true
		}
	}
	return false
}

func anonymous(halves []Half) []Half {
	var out []Half
	for _, h := range halves {
		h.Of = ""
		if len(h.Nearest) > 0 { // their texts have names and addresses in them
			var rules []Miss
			for _, m := range h.Nearest {
				rules = append(rules, Miss{Rule: m.Rule})
			}
			h.Nearest = rules
		}
		out = append(out, h)
	}
	return out
}
