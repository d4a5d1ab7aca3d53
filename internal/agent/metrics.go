package agent

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/node"
	build "github.com/kidoban/kidoban/internal/version"
)

// metrics of the agent. Names and meanings are listed in docs/metrics.md.
type metrics struct {
	pods        *prometheus.GaugeVec // by mode, state
	policies    *prometheus.GaugeVec // by state: in force, waiting for groups
	overBudget  *prometheus.GaugeVec // by resource
	lost        prometheus.Gauge
	groups      prometheus.Gauge
	resolvers   prometheus.Gauge
	programming prometheus.Histogram
	podStart    prometheus.Histogram
	late        prometheus.Counter
	known       prometheus.Histogram
	hold        prometheus.Histogram
	unknown     *prometheus.CounterVec // by reason
	heldBack    prometheus.Counter
	sweep       prometheus.Histogram
	revocation  prometheus.Histogram
	cut         prometheus.Counter
	writes      prometheus.Counter
	failures    prometheus.Counter
	failClosed  prometheus.Gauge
	rejected    *prometheus.CounterVec // by kind
	drift       *prometheus.CounterVec // by map, difference
	warnings    prometheus.Gauge
	unseen      *prometheus.GaugeVec // by kind
	bootGap     *prometheus.GaugeVec // by runtime, version
}

func newMetrics(registry prometheus.Registerer, kernel Counts) *metrics {
	m := &metrics{
		pods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kidoban_agent_pods", Help: "Pods of this node that have addresses of their own, by mode (standard, guarded, strict, audit) and by state: isolated by a policy, open, or pending."},
			[]string{"mode", "state"}),
		lost: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_lost_policy_endpoints", Help: "Policies whose PolicyEndpoint is gone although they exist, or may exist. They stay in force as they were."}),
		overBudget: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kidoban_agent_over_budget_policies", Help: "Policies that isolate their pods and allow nothing, because they need more than there is, by resource and direction."}, []string{"resource", "direction"}),
		policies: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kidoban_agent_policies", Help: "PolicyEndpoints by state: enforced, or waiting for address groups that are not complete yet."}, []string{"state"}),
		groups: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_groups", Help: "Address groups that the agent has."}),
		resolvers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_trusted_resolvers", Help: "Addresses and ports of the DNS resolvers whose answers count for the domain names of policies."}),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_agent_programming_seconds", Help: "Time from the first event of a change until the change is in force in the kernel.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		podStart: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_agent_pod_start_seconds", Help: "Time from the first sight of a pod's address until its policies are in force in the kernel.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_late_pods_total", Help: "Pods that the container runtime started before their policies were in force."}),
		known: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_agent_announcement_seconds", Help: "Time from the announcement of a new pod's addresses until the nodes that hold its groups have them in force.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		hold: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_agent_hold_seconds", Help: "Time that the first container of a pod waited until the pod's addresses were known.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 10)}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_agent_unknown_pod_starts_total", Help: "Pods whose first container started before their addresses were known, by reason. Their first packets may be denied."}, []string{"reason"}),
		heldBack: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_reused_address_failures_total", Help: "Starts of containers that were made to fail, because another pod had the address lately and may still be in force with it; the kubelet retries."}),
		sweep: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_agent_sweep_seconds", Help: "Time to check the live flows that a change concerns, and to cut those that are denied now.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}),
		revocation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_agent_revocation_seconds", Help: "Time from the first event of a change that takes permissions away until the live flows that it denies are cut.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_cut_flows_total", Help: "Live flows that were cut because no policy allows them any more."}),
		writes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_map_writes_total", Help: "Entries written to or deleted from BPF maps."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_programming_failures_total", Help: "Changes that could not be written to the kernel; the agent retries."}),
		failClosed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_fail_closed_addresses", Help: "Addresses of pods that are denied all traffic, because their policies could not be written to the kernel's maps."}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_agent_rejected_objects_total", Help: "Objects that could not be read; their previous version stays in force."}, []string{"kind"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_agent_drift_entries_total", Help: "Entries of BPF maps that differed from the policies and were repaired."}, []string{"map", "difference"}),
		warnings: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_warnings", Help: "Number of conditions under which some traffic on this node bypasses enforcement; the log names them."}),
	}
	m.unseen = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kidoban_agent_unseen_interfaces", Help: "Interfaces of pods that policies do not apply to, because their traffic does not pass the node's network stack, by kind."},
		[]string{"kind"})
	m.bootGap = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kidoban_agent_boot_gap", Help: "1 if the agent lets no pod start before policies are in force, and the container runtime cannot be made to wait for the agent after the node's boot."},
		[]string{"runtime", "version"})
	buildInfo := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kidoban_agent_build_info", Help: "Which build this is; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": build.String(), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	registry.MustRegister(m.pods, m.policies, m.overBudget, m.lost, m.groups, m.resolvers, m.programming, m.podStart, m.late, m.known, m.hold, m.unknown, m.heldBack, m.sweep, m.revocation, m.cut, m.writes, m.failures, m.failClosed, m.rejected, m.drift, m.warnings, m.unseen, m.bootGap, &usage{kernel}, buildInfo)
	return m
}

func (m *metrics) observe(n *node.Node) {
	for labels, count := range n.PodStates() {
		m.pods.WithLabelValues(labels[0], labels[1]).Set(float64(count))
	}
	c := n.Counts()
	m.policies.WithLabelValues("enforced").Set(float64(c.Policies - c.WaitingPolicies))
	m.policies.WithLabelValues("waiting").Set(float64(c.WaitingPolicies))
	m.groups.Set(float64(c.Groups))
	m.resolvers.Set(float64(c.Resolvers))
}

// observeUnseen counts the interfaces that policies do not apply to.
func (m *metrics) observeUnseen(links []node.UnseenLink) {
	m.unseen.Reset()
	for _, l := range links {
		m.unseen.WithLabelValues(l.Kind).Inc()
	}
}

// observeProblems counts the policies that cost too much.
func (m *metrics) observeProblems(problems []compiler.Problem) {
	m.overBudget.Reset()
	for _, p := range problems {
		m.overBudget.WithLabelValues(string(p.Resource), p.Direction.String()).Inc()
	}
}
