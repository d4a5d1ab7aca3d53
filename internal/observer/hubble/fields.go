package hubble

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// fields reads the fields of a FlowFilter, by name. A field that is not here is an error. A field that only makes sense beside another
// one of the same list reads that from the list.
var fields = map[string]func(ff *flowpb.FlowFilter, list []*flowpb.FlowFilter) (predicate, error){
	"uuid": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool { return slices.Contains(ff.GetUuid(), v.flow.GetUuid()) }, nil
	},
	"source_ip": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byAddress(ff.GetSourceIp(), func(f *flowpb.Flow) string { return f.GetIP().GetSource() })
	},
	"destination_ip": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byAddress(ff.GetDestinationIp(), func(f *flowpb.Flow) string { return f.GetIP().GetDestination() })
	},
	"source_pod": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byName(ff.GetSourcePod(), func(f *flowpb.Flow) (string, string) { return podOf(f.GetSource()) })
	},
	"destination_pod": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byName(ff.GetDestinationPod(), func(f *flowpb.Flow) (string, string) { return podOf(f.GetDestination()) })
	},
	"source_fqdn": func(ff *flowpb.FlowFilter, list []*flowpb.FlowFilter) (predicate, error) {
		return beside(list, (*flowpb.FlowFilter).GetDestinationFqdn, "destination_fqdn")
	},
	"destination_fqdn": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byDomainName(ff.GetDestinationFqdn(), (*flowpb.Flow).GetDestinationNames)
	},
	"source_label": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byLabels(ff.GetSourceLabel(), (*flowpb.Flow).GetSource)
	},
	"destination_label": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byLabels(ff.GetDestinationLabel(), (*flowpb.Flow).GetDestination)
	},
	"source_service": func(ff *flowpb.FlowFilter, list []*flowpb.FlowFilter) (predicate, error) {
		return beside(list, (*flowpb.FlowFilter).GetDestinationService, "destination_service")
	},
	"destination_service": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byName(ff.GetDestinationService(), func(f *flowpb.Flow) (string, string) {
			return f.GetDestinationService().GetNamespace(), f.GetDestinationService().GetName()
		})
	},
	"source_workload": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byWorkload(ff.GetSourceWorkload(), (*flowpb.Flow).GetSource), nil
	},
	"destination_workload": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byWorkload(ff.GetDestinationWorkload(), (*flowpb.Flow).GetDestination), nil
	},
	"source_port": func(ff *flowpb.FlowFilter, list []*flowpb.FlowFilter) (predicate, error) {
		return beside(list, (*flowpb.FlowFilter).GetDestinationPort, "destination_port")
	},
	"destination_port": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byPort(ff.GetDestinationPort())
	},
	"source_identity": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool { return slices.Contains(ff.GetSourceIdentity(), v.flow.GetSource().GetIdentity()) }, nil
	},
	"destination_identity": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool {
			return slices.Contains(ff.GetDestinationIdentity(), v.flow.GetDestination().GetIdentity())
		}, nil
	},
	"traffic_direction": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool { return slices.Contains(ff.GetTrafficDirection(), v.flow.GetTrafficDirection()) }, nil
	},
	"verdict": func(ff *flowpb.FlowFilter, list []*flowpb.FlowFilter) (predicate, error) {
		return byVerdict(ff.GetVerdict())
	},
	"drop_reason_desc": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool {
			return hasReason(v) && slices.Contains(ff.GetDropReasonDesc(), v.flow.GetDropReasonDesc())
		}, nil
	},
	"event_type": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byEvent(ff.GetEventType())
	},
	"protocol": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byProtocol(ff.GetProtocol())
	},
	"reply": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool { return slices.Contains(ff.GetReply(), v.flow.GetIsReply().GetValue()) }, nil
	},
	"node_name": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return byNode(ff.GetNodeName())
	},
	"ip_version": func(ff *flowpb.FlowFilter, _ []*flowpb.FlowFilter) (predicate, error) {
		return func(v *view) bool { return slices.Contains(ff.GetIpVersion(), v.flow.GetIP().GetIpVersion()) }, nil
	},
}

// beside reads a field that no flow has. Clients that ask for "either end" send it in one filter and its counterpart in another. Alone it
// cannot be honoured.
func beside(list []*flowpb.FlowFilter, counterpart func(*flowpb.FlowFilter) []string, name string) (predicate, error) {
	for _, ff := range list {
		if len(counterpart(ff)) > 0 {
			return func(*view) bool { return false }, nil
		}
	}
	return nil, fmt.Errorf("kidoban does not record this, so it cannot be a filter (except beside another filter with %s)", name)
}

// hasReason reports whether a view has a reason for a drop: "unknown" is none.
func hasReason(v *view) bool {
	return v.flow.GetDropReasonDesc() != flowpb.DropReason_DROP_REASON_UNKNOWN
}

func podOf(e *flowpb.Endpoint) (namespace, name string) { return e.GetNamespace(), e.GetPodName() }

func byAddress(asked []string, of func(*flowpb.Flow) string) (predicate, error) {
	prefixes := make([]netip.Prefix, len(asked))
	for i, s := range asked {
		if a, err := netip.ParseAddr(s); err == nil {
			prefixes[i] = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a valid address or CIDR", s)
		}
		prefixes[i] = p
	}
	return func(v *view) bool {
		a, err := netip.ParseAddr(of(v.flow))
		return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}, nil
}

// byName reads names in the form NAMESPACE/PREFIX, NAMESPACE/ or PREFIX. A prefix without a namespace is one in any namespace: "/PREFIX"
// is the same.
func byName(asked []string, of func(*flowpb.Flow) (namespace, name string)) (predicate, error) {
	type pattern struct{ namespace, prefix string }
	patterns := make([]pattern, len(asked))
	for i, s := range asked {
		namespace, prefix, ok := strings.Cut(s, "/")
		if !ok {
			namespace, prefix = "", s
		}
		if s == "" {
			return nil, errors.New("the name is empty")
		}
		patterns[i] = pattern{namespace, prefix}
	}
	return func(v *view) bool {
		namespace, name := of(v.flow)
		return (namespace != "" || name != "") && slices.ContainsFunc(patterns, func(p pattern) bool {
			return (p.namespace == "" || p.namespace == namespace) && strings.HasPrefix(name, p.prefix)
		})
	}, nil
}

func byWorkload(asked []*flowpb.Workload, of func(*flowpb.Flow) *flowpb.Endpoint) predicate {
	return func(v *view) bool {
		for _, w := range of(v.flow).GetWorkloads() {
			for _, a := range asked {
				if (a.GetName() == "" || a.GetName() == w.GetName()) && (a.GetKind() == "" || a.GetKind() == w.GetKind()) {
					return true
				}
			}
		}
		return false
	}
}

func byPort(asked []string) (predicate, error) {
	ports := make([]uint32, len(asked))
	for i, s := range asked {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q is not a port", s)
		}
		ports[i] = uint32(n)
	}
	return func(v *view) bool {
		port, ok := portOf(v.flow.GetL4())
		return ok && slices.Contains(ports, port)
	}, nil
}

func portOf(l4 *flowpb.Layer4) (uint32, bool) {
	switch p := l4.GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		return p.TCP.GetDestinationPort(), true
	case *flowpb.Layer4_UDP:
		return p.UDP.GetDestinationPort(), true
	case *flowpb.Layer4_SCTP:
		return p.SCTP.GetDestinationPort(), true
	}
	return 0, false
}

func byVerdict(asked []flowpb.Verdict) (predicate, error) {
	for _, a := range asked {
		switch a {
		case flowpb.Verdict_FORWARDED, flowpb.Verdict_DROPPED, flowpb.Verdict_AUDIT:
		default:
			return nil, fmt.Errorf("kidoban has no verdict %s: FORWARDED, DROPPED or AUDIT", a)
		}
	}
	return func(v *view) bool {
		return slices.ContainsFunc(v.verdicts, func(have flowpb.Verdict) bool { return slices.Contains(asked, have) })
	}, nil
}

func byEvent(asked []*flowpb.EventTypeFilter) (predicate, error) {
	recorded := func(a *flowpb.EventTypeFilter) bool {
		return slices.Contains([]int32{0, eventDrop, eventTrace, eventPolicyVerdict}, a.GetType())
	}
	if !slices.ContainsFunc(asked, recorded) {
		return nil, fmt.Errorf("kidoban has no event of type %d: drop (%d), trace (%d) or policy-verdict (%d)",
			asked[0].GetType(), eventDrop, eventTrace, eventPolicyVerdict)
	}
	return func(v *view) bool {
		for _, have := range v.events {
			if slices.ContainsFunc(asked, func(a *flowpb.EventTypeFilter) bool { return isEvent(have, a) }) {
				return true
			}
		}
		return false
	}, nil
}

func byProtocol(asked []string) (predicate, error) {
	protocols := make([]string, len(asked))
	for i, s := range asked {
		protocols[i] = strings.ToLower(s)
		if !slices.Contains([]string{"tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6"}, protocols[i]) {
			return nil, fmt.Errorf("kidoban does not record protocol %q: tcp, udp, sctp, icmp, icmpv4 or icmpv6", s)
		}
	}
	return func(v *view) bool {
		for _, have := range protocolsOf(v.flow.GetL4()) {
			if slices.Contains(protocols, have) {
				return true
			}
		}
		return false
	}, nil
}

// protocolsOf returns the names of a protocol.
func protocolsOf(l4 *flowpb.Layer4) []string {
	switch l4.GetProtocol().(type) {
	case *flowpb.Layer4_TCP:
		return []string{"tcp"}
	case *flowpb.Layer4_UDP:
		return []string{"udp"}
	case *flowpb.Layer4_SCTP:
		return []string{"sctp"}
	case *flowpb.Layer4_ICMPv4:
		return []string{"icmp", "icmpv4"}
	case *flowpb.Layer4_ICMPv6:
		return []string{"icmp", "icmpv6"}
	}
	return nil
}
