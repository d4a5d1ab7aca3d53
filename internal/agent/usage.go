package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// usage exports what the kernel counts. It is a prometheus.Collector.
type usage struct{ kernel Counts }

var (
	usageEntries = prometheus.NewDesc("kidoban_agent_map_entries", "Entries of a BPF map.", []string{"map"}, nil)
	usageMax     = prometheus.NewDesc("kidoban_agent_map_max_entries", "The most entries that a BPF map can hold.", []string{"map"}, nil)
	verdicts     = prometheus.NewDesc("kidoban_agent_verdicts_total", "First packets of flows, by direction, verdict and reason.",
		[]string{"direction", "verdict", "reason"}, nil)
	lostEvents       = prometheus.NewDesc("kidoban_agent_lost_events_total", "Events that did not fit in the kernel's ring. Their packets are counted in a later line of the flow log.", nil, nil)
	unlistedPackets  = prometheus.NewDesc("kidoban_agent_unlisted_packets_total", "Packets that no line of the flow log counts, because the node had too many kinds of them.", nil, nil)
	unattributedHits = prometheus.NewDesc("kidoban_agent_unattributed_hits_total", "Packets missing from kidoban_agent_rule_hits_total, because the kernel has no room for more rules.", nil, nil)
	dnsAnswers       = prometheus.NewDesc("kidoban_agent_dns_answers_total", "DNS answers that the node read for policies with domain names, by result: learned, or why nothing was learned.", []string{"result"}, nil)
	dnsAddresses     = prometheus.NewDesc("kidoban_agent_dns_addresses_total", "Addresses in DNS answers for names of policies, by result: learned or prolonged, unlearnable, displaced by a newer one at a limit, or without room.", []string{"result"}, nil)
	conntrackEntries = prometheus.NewDesc("kidoban_agent_conntrack_entries", "Connections that the node's kernel tracks.", nil, nil)
	conntrackMax     = prometheus.NewDesc("kidoban_agent_conntrack_max_entries", "The most connections that the node's kernel tracks: beyond them it drops packets.", nil, nil)
)

func (u *usage) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{usageEntries, usageMax, verdicts, lostEvents, unlistedPackets, unattributedHits, dnsAnswers, dnsAddresses, conntrackEntries, conntrackMax} {
		ch <- d
	}
}

func (u *usage) Collect(ch chan<- prometheus.Metric) {
	for desc, file := range map[*prometheus.Desc]string{conntrackEntries: "nf_conntrack_count", conntrackMax: "nf_conntrack_max"} {
		n, err := conntrackValue(file)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(desc, err)
			continue
		}
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, n)
	}
	for _, m := range u.kernel.Usage() {
		ch <- prometheus.MustNewConstMetric(usageEntries, prometheus.GaugeValue, float64(m.Entries), m.Map)
		ch <- prometheus.MustNewConstMetric(usageMax, prometheus.GaugeValue, float64(m.Max), m.Map)
	}
	counters, err := u.kernel.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(verdicts, err)
		return
	}
	for _, c := range counters.Judged {
		ch <- prometheus.MustNewConstMetric(verdicts, prometheus.CounterValue, float64(c.Packets), c.Direction.String(), c.Verdict.String(), c.Reason.String())
	}
	for desc, n := range map[*prometheus.Desc]uint64{
		lostEvents: counters.LostEvents, unlistedPackets: counters.UnlistedPackets, unattributedHits: counters.UnattributedHits,
	} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n))
	}
	for result, n := range counters.Names.Answers {
		ch <- prometheus.MustNewConstMetric(dnsAnswers, prometheus.CounterValue, float64(n), string(result))
	}
	for result, n := range map[string]uint64{
		"learned": counters.Names.Learned, "unlearnable": counters.Names.Unlearnable, "displaced": counters.Names.Displaced, "no-room": counters.Names.NoRoom,
	} {
		ch <- prometheus.MustNewConstMetric(dnsAddresses, prometheus.CounterValue, float64(n), result)
	}
}

func conntrackValue(file string) (float64, error) {
	b, err := os.ReadFile("/proc/sys/net/netfilter/" + file)
	if err != nil {
		return 0, fmt.Errorf("read conntrack's use: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
}
