package controller

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/version"
)

var (
	policiesGauge  = gauge("policies", "Policies that are resolved.")
	groupsGauge    = gauge("groups", "Groups that the policies' selectors come to.")
	slicesGauge    = gauge("slices", "Slices that the groups are cut into.")
	addressesGauge = gauge("addresses", "Addresses in all groups.")
	resolveSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kidoban_controller_resolve_duration_seconds",
		Help:    "Time to resolve one change, by what changed.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12), // 1 µs to 4 s
	}, []string{"input"})
	writeSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kidoban_controller_write_duration_seconds",
		Help:    "Time of one write to the API server, the client-side limit included.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14), // 1 ms to 8 s
	}, []string{"kind", "operation", "result"})
	podToWriteSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "kidoban_controller_pod_address_to_write_duration_seconds",
		Help:    "Time from the sight of a pod's new address until it is written to a group that it enters.",
		Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14),
	})
)

func init() {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_controller_build_info", Help: "Which build this is; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version.String(), "goversion": runtime.Version()}})
	build.Set(1)
	metrics.Registry.MustRegister(build, policiesGauge, groupsGauge, slicesGauge, addressesGauge, resolveSeconds, writeSeconds, podToWriteSeconds)
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
