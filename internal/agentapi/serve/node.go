package serve

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// nodeOf reads the agent's own metrics: the API and Prometheus get the same figures.
func nodeOf(name string, metrics prometheus.Gatherer) (agentapi.Node, error) {
	out := agentapi.Node{Node: name, Maps: []agentapi.MapUse{}}
	families, err := metrics.Gather()
	if err != nil {
		return out, err
	}
	maps := map[string]*agentapi.MapUse{}
	of := func(m *dto.Metric) *agentapi.MapUse {
		name := label(m, "map")
		if maps[name] == nil {
			maps[name] = &agentapi.MapUse{Map: name}
		}
		return maps[name]
	}
	observer, pushes := agentapi.ObserverUse{}, false
	for _, f := range families {
		for _, m := range f.Metric {
			n := uint64(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			switch f.GetName() {
			case "kidoban_agent_build_info":
				out.Version = label(m, "version")
			case "kidoban_agent_drift_entries_total":
				out.Drift += n
			case "kidoban_agent_programming_failures_total":
				out.Failures = n
			case "kidoban_agent_fail_closed_addresses":
				out.FailClosedAddresses = n
			case "kidoban_agent_unlisted_packets_total":
				out.UnlistedPackets = n
			case "kidoban_agent_boot_gap":
				out.BootGap = strings.TrimSpace(label(m, "runtime") + " " + label(m, "version"))
			case "kidoban_agent_observer_streams":
				observer.Streams, pushes = n, true
			case "kidoban_agent_flow_records_lost_total":
				observer.Lost += n
			case "kidoban_agent_map_entries":
				of(m).Entries = n
			case "kidoban_agent_map_max_entries":
				of(m).Max = n
			}
		}
	}
	if pushes {
		out.Observer = &observer
	}
	for _, m := range maps {
		out.Maps = append(out.Maps, *m)
	}
	slices.SortFunc(out.Maps, func(a, b agentapi.MapUse) int { return cmp.Compare(a.Map, b.Map) })
	return out, nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
