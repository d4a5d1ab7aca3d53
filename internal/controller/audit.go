package controller

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

var auditSince = prometheus.NewDesc("kidoban_controller_policy_audited_since_seconds",
	"Since when a policy is audited, in Unix time. There is no series for an enforced policy.", []string{"kind", "namespace", "policy"}, nil)

// audits are the audited policies, by the names of their PolicyEndpoints and ClusterPolicyEndpoints. It is a prometheus.Collector.
type audits struct {
	mu       sync.Mutex
	policies map[types.NamespacedName]prometheus.Metric
}

var audited = &audits{policies: map[types.NamespacedName]prometheus.Metric{}}

func init() { metrics.Registry.MustRegister(audited) }

// recordAudit takes in a version of a PolicyEndpoint or of a ClusterPolicyEndpoint; now is nil if it is gone.
func recordAudit[T any](name types.NamespacedName, now *T, read func(T) (*v1alpha1.PolicyReference, *v1alpha1.EndpointStatus)) {
	audited.mu.Lock()
	defer audited.mu.Unlock()
	delete(audited.policies, name)
	if now == nil {
		return
	}
	ref, status := read(*now)
	if condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionAudited); condition != nil {
		audited.policies[name] = prometheus.MustNewConstMetric(auditSince, prometheus.GaugeValue,
			float64(condition.LastTransitionTime.Unix()), ref.Kind, name.Namespace, ref.Name)
	}
}

// Describe is part of prometheus.Collector.
func (a *audits) Describe(ch chan<- *prometheus.Desc) { ch <- auditSince }

// Collect is part of prometheus.Collector.
func (a *audits) Collect(ch chan<- prometheus.Metric) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.policies {
		ch <- m
	}
}
