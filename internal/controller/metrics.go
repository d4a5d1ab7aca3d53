package controller

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/version"
)

var (
	policiesGauge   = gauge("policies", "Policies that the controller resolves.")
	groupsGauge     = gauge("groups", "Groups of addresses, one for each different peer selector of the policies.")
	slicesGauge     = gauge("slices", "Slices with the addresses of all groups.")
	addressesGauge  = gauge("addresses", "Addresses in all slices.")
	trustedGauge    = gauge("trusted_resolvers", "Addresses and ports of the DNS resolvers whose answers count for the domain names of policies.")
	unresolvedGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kidoban_controller_unresolved_policies",
		Help: "Policies that cannot be enforced in full (condition Resolved=False), by the condition's reason.",
	}, []string{"reason"})
	droppedFields = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kidoban_controller_dropped_fields_total",
		Help: "Fields that the API server dropped from objects that the controller wrote, because the CRD is older than the controller, by CRD.",
	}, []string{"crd"})
	unenforcedGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kidoban_controller_unenforced_policies",
		Help: "AdminNetworkPolicies and BaselineAdminNetworkPolicies, which nothing enforces, by kind.",
	}, []string{"kind"})
	resolveSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kidoban_controller_resolve_duration_seconds",
		Help:    "Time to resolve one change, by the kind of object that changed.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12), // 1 µs to 4 s
	}, []string{"input"})
	writeSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kidoban_controller_write_duration_seconds",
		Help:    "Time of one write to the API server, including the wait for the client-side rate limit.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14), // 1 ms to 8 s
	}, []string{"kind", "operation", "result"})
	podToWriteSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "kidoban_controller_pod_address_to_write_duration_seconds",
		Help:    "Time from the event with a pod's new address until the address is written to a slice.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14),
	})
	announcements = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kidoban_controller_announcements_total",
		Help: "Announcements of new pods' addresses by agents, by result: Accepted, or why the controller refused it.",
	}, []string{"result"})
	publishSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "kidoban_controller_announcement_to_write_duration_seconds",
		Help:    "Time from an agent's announcement of a pod's addresses until its slices are written.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14),
	})
	confirmSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "kidoban_controller_announcement_to_confirmation_duration_seconds",
		Help:    "Time from an agent's announcement of a pod's addresses until the other nodes that were asked have them in force, of pods that waited for these.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14),
	})
	unconfirmed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kidoban_controller_unanswered_questions_total",
		Help: "Questions whether a new pod's addresses are in force that an agent did not answer within a second.",
	})
)

func init() {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_controller_build_info", Help: "Version of the build; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version.String(), "goversion": runtime.Version()}})
	build.Set(1)
	metrics.Registry.MustRegister(build, policiesGauge, groupsGauge, slicesGauge, addressesGauge, trustedGauge, unresolvedGauge, unenforcedGauge,
		resolveSeconds, writeSeconds, podToWriteSeconds, announcements, publishSeconds, confirmSeconds, unconfirmed, droppedFields)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_controller_" + name, Help: help})
}

func setGauges(s resolver.Stats) {
	policiesGauge.Set(float64(s.Policies))
	groupsGauge.Set(float64(s.Groups))
	slicesGauge.Set(float64(s.Slices))
	addressesGauge.Set(float64(s.Addresses))
}

// timed measures a write.
func timed(kind, operation string, write func() error) error {
	start := time.Now()
	err := write()
	result := "ok"
	if err != nil {
		result = "error"
	}
	writeSeconds.WithLabelValues(kind, operation, result).Observe(time.Since(start).Seconds())
	return err
}

// unresolved are the policies that cannot be enforced in full, by the name of their PolicyEndpoint, with the
// reason of the condition.
type unresolved map[types.NamespacedName]string

// set records the reason of a policy; an empty one means that all of the policy is enforced, or that it is
// gone.
func (u unresolved) set(name types.NamespacedName, reason string) {
	old := u[name]
	if old == reason {
		return
	}
	if old != "" {
		unresolvedGauge.WithLabelValues(old).Dec()
		delete(u, name)
	}
	if reason != "" {
		unresolvedGauge.WithLabelValues(reason).Inc()
		u[name] = reason
	}
}
