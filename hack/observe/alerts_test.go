package observe

import (
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"sigs.k8s.io/yaml"
)

type alertRule struct {
	Alert, Expr, For string
	Annotations      map[string]string
}

// An alertCase has series in the notation of promtool's tests, with a sample each minute (or step), and how many alerts fire at their end.
type alertCase struct {
	series []string
	fire   int
	step   time.Duration
}

const (
	onNode = `{node="n1",instance="10.0.0.1:8162"`
	kube   = `{daemonset="kidoban-agent"} `
)

var alertCases = map[string][]alertCase{
	"KidobanAgentMissing": {
		{series: []string{"kube_daemonset_status_number_unavailable" + kube + "3x20", "kube_daemonset_status_desired_number_scheduled" + kube + "200x20"}, fire: 1},
		{series: []string{"kube_daemonset_status_number_unavailable" + kube + "2x20", "kube_daemonset_status_desired_number_scheduled" + kube + "200x20"}},
		{series: []string{"kube_daemonset_status_number_unavailable" + kube + "1x20", "kube_daemonset_status_desired_number_scheduled" + kube + "12x20"}, fire: 1},
		{series: []string{"kube_daemonset_status_number_unavailable" + kube + "0x10 1x10", "kube_daemonset_status_desired_number_scheduled" + kube + "12x21"}},
	},
	"KidobanControllerMissing": {
		{series: []string{`kube_deployment_status_replicas_available{deployment="kidoban-controller"} 0x15`}, fire: 1},
		{series: []string{`kube_deployment_status_replicas_available{deployment="kidoban-controller"} 1x15`}},
		{series: []string{`kube_deployment_status_replicas_available{deployment="another"} 0x15`}},
	},
	"KidobanMetricsAbsent": {
		{series: []string{`up{job="another"} 1x20`}, fire: 3},
		{series: []string{"kidoban_agent_build_info" + onNode + "} 1x20", "kube_daemonset_status_number_unavailable" + kube + "0x20"}, fire: 1},
		{series: []string{"kidoban_agent_build_info" + onNode + "} 1x20", "kidoban_controller_build_info 1x20", "kube_daemonset_status_number_unavailable" + kube + "0x20"}},
	},
	"KidobanAuditStillOn": {
		{series: []string{"kidoban_agent_pods" + onNode + `,mode="audit",state="isolated"} 5x400`}, fire: 1, step: time.Hour},
		{series: []string{"kidoban_agent_pods" + onNode + `,mode="audit",state="isolated"} 5x200 0x10 5x190`}, step: time.Hour},
		{series: []string{"kidoban_agent_pods" + onNode + `,mode="standard",state="isolated"} 5x400`}, step: time.Hour},
	},
	"KidobanPoliciesUnresolved": {
		{series: []string{`kidoban_controller_unresolved_policies{reason="OverBudget"} 2x20`, `kidoban_controller_unresolved_policies{reason="Invalid"} 1x20`}, fire: 2},
		{series: []string{`kidoban_controller_unresolved_policies{reason="OverBudget"} 0x20`}},
	},
	"KidobanCRDTooOld": {
		{series: []string{`kidoban_controller_dropped_fields_total{crd="policyendpoints.networking.kidoban.dev"} 0+1x20`}, fire: 1},
		{series: []string{`kidoban_controller_dropped_fields_total{crd="policyendpoints.networking.kidoban.dev"} 5x20`}},
	},
	"KidobanPoliciesUnenforced": {
		{series: []string{`kidoban_controller_unenforced_policies{kind="AdminNetworkPolicy"} 3x20`, `kidoban_controller_unenforced_policies{kind="BaselineAdminNetworkPolicy"} 0x20`}, fire: 1},
		{series: []string{`kidoban_controller_unenforced_policies{kind="AdminNetworkPolicy"} 3x10 0x10`}},
	},
	"KidobanNoTrustedResolver": {
		{series: []string{`kidoban_controller_unresolved_policies{reason="NoTrustedResolver"} 1x10`}, fire: 1},
		{series: []string{`kidoban_controller_unresolved_policies{reason="OverBudget"} 1x10`}},
	},
	"KidobanAnswersBehindBridge": {
		{series: []string{"kidoban_agent_dns_answers_total" + onNode + `,result="shared-interface"} 0+5x30`}, fire: 1},
		{series: []string{"kidoban_agent_dns_answers_total" + onNode + `,result="forged"} 0+5x30`}},
	},
	"KidobanProgrammingFails": {
		{series: []string{"kidoban_agent_programming_failures_total" + onNode + "} 0+1x30"}, fire: 1},
		{series: []string{"kidoban_agent_programming_failures_total" + onNode + "} 7x30"}},
		{series: []string{"kidoban_agent_programming_failures_total" + onNode + "} 0x25 1x5"}}, // one failure is tried again
	},
	"KidobanPodsFailClosed": {
		{series: []string{"kidoban_agent_fail_closed_addresses" + onNode + "} 1x10"}, fire: 1},
		{series: []string{"kidoban_agent_fail_closed_addresses" + onNode + "} 0x10"}},
	},
	"KidobanDrift": {
		{series: []string{"kidoban_agent_drift_entries_total" + onNode + `,map="rows",difference="missing"} 0x20 3x5`}, fire: 1},
		{series: []string{"kidoban_agent_drift_entries_total" + onNode + `,map="rows",difference="missing"} 3x20`}},
	},
	"KidobanTrafficUnseen": {
		{series: []string{"kidoban_agent_warnings" + onNode + "} 1x10"}, fire: 1},
		{series: []string{"kidoban_agent_warnings" + onNode + "} 0x10"}},
	},
	"KidobanMapNearlyFull": {
		{series: []string{"kidoban_agent_map_entries" + onNode + `,map="rows"} 90x15`, "kidoban_agent_map_max_entries" + onNode + `,map="rows"} 100x15`}, fire: 1},
		{series: []string{"kidoban_agent_map_entries" + onNode + `,map="rows"} 80x15`, "kidoban_agent_map_max_entries" + onNode + `,map="rows"} 100x15`}},
	},
	"KidobanConntrackNearlyFull": {
		{series: []string{"kidoban_agent_conntrack_entries" + onNode + "} 95x10", "kidoban_agent_conntrack_max_entries" + onNode + "} 100x10"}, fire: 1},
		{series: []string{"kidoban_agent_conntrack_entries" + onNode + "} 90x10", "kidoban_agent_conntrack_max_entries" + onNode + "} 100x10"}},
	},
	"KidobanPoliciesWait": {
		{series: []string{"kidoban_agent_policies" + onNode + `,state="waiting"} 1x20`}, fire: 1},
		{series: []string{"kidoban_agent_policies" + onNode + `,state="enforced"} 9x20`, "kidoban_agent_policies" + onNode + `,state="waiting"} 0x20`}},
	},
	"KidobanPolicyEndpointsLost": {
		{series: []string{"kidoban_agent_lost_policy_endpoints" + onNode + "} 4x5"}, fire: 1},
		{series: []string{"kidoban_agent_lost_policy_endpoints" + onNode + "} 0x5"}},
	},
	"KidobanPoliciesOverBudget": {
		{series: []string{"kidoban_agent_over_budget_policies" + onNode + `,resource="rows",direction="Ingress"} 1x10`}, fire: 1},
		{series: []string{"kidoban_agent_over_budget_policies" + onNode + `,resource="rows",direction="Ingress"} 0x10`}},
	},
	"KidobanDenialsSurge": {
		{series: []string{"kidoban_agent_verdicts_total" + onNode + `,verdict="Deny"} 0+60x1440 86400+6000x40`}, fire: 1},
		{series: []string{"kidoban_agent_verdicts_total" + onNode + `,verdict="Deny"} 0+6000x1480`}},             // as yesterday
		{series: []string{"kidoban_agent_verdicts_total" + onNode + `,verdict="Deny"} 0+60x1440 86400+2400x40`}}, // few
		{series: []string{"kidoban_agent_verdicts_total" + onNode + `,verdict="Allow"} 0+60x1440 86400+6000x40`}},
	},
	"KidobanObserverCertificateExpires": { // the series begin at the time 0
		{series: []string{`kidoban_observer_certificate_expiry_timestamp_seconds{instance="o"} 345600x60`}, fire: 1},
		{series: []string{`kidoban_observer_certificate_expiry_timestamp_seconds{instance="o"} 864000x60`}},
	},
	"KidobanObserverLoses": {
		{series: []string{`kidoban_observer_lost_packets_total{instance="o",reason="queue"} 0+5x40`}, fire: 1},
		{series: []string{`kidoban_observer_lost_packets_total{instance="o",reason="queue"} 5x40`}},
	},
	"KidobanObserverStoreFails": {
		{series: []string{`kidoban_observer_store_failures_total{instance="o"} 0+1x40`}, fire: 1},
		{series: []string{`kidoban_observer_store_failures_total{instance="o"} 3x40`}},
	},
	"KidobanFlowLogLoses": {
		{series: []string{"kidoban_agent_flow_log_dropped_lines_total" + onNode + `,sink="file",reason="queue-full"} 0+5x40`}, fire: 1},
		{series: []string{"kidoban_agent_flow_log_dropped_lines_total" + onNode + `,sink="file",reason="queue-full"} 5x40`}},
	},
}

// TestEveryAlert evaluates each rule on series on which it has to fire, and on some on which it must not.
func TestEveryAlert(t *testing.T) {
	var rules struct {
		Spec struct {
			Groups []struct{ Rules []alertRule }
		}
	}
	if err := yaml.Unmarshal(read(t, "config/prometheus/rules.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{})})
	t.Cleanup(func() { _ = engine.Close() })
	n := 0
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			n++
			t.Run(rule.Alert, func(t *testing.T) {
				fires, quiet := false, false
				for _, c := range alertCases[rule.Alert] {
					got := firing(t, engine, rule, c)
					if len(got) != c.fire {
						t.Errorf("%q: %d alerts fire, want %d", c.series, len(got), c.fire)
					}
					for _, alert := range got {
						checkLabels(t, rule, alert)
					}
					fires, quiet = fires || c.fire > 0, quiet || c.fire == 0
				}
				if !fires || !quiet {
					t.Error("want a case in which it fires, and one in which it does not")
				}
			})
		}
	}
	if n != len(alertCases) {
		t.Errorf("%d rules, and cases for %d", n, len(alertCases))
	}
}

// firing are the results that a rule has had, at the end of a case, for as long as it has to.
func firing(t *testing.T, engine *promql.Engine, rule alertRule, c alertCase) promql.Vector {
	t.Helper()
	step := c.step
	if step == 0 {
		step = time.Minute
	}
	data, end := load(t, c.series, step)
	hold := time.Duration(0)
	if rule.For != "" {
		d, err := model.ParseDuration(rule.For)
		if err != nil {
			t.Fatal(err)
		}
		hold = time.Duration(d)
	}
	var active promql.Vector
	for at := end.Add(-hold); !at.After(end); at = at.Add(step) {
		if at.Before(time.Unix(0, 0)) {
			t.Fatalf("%q is shorter than %s", c.series, rule.For)
		}
		query, err := engine.NewInstantQuery(t.Context(), data, nil, rule.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		now, err := query.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatal(err)
		}
		if at.Equal(end.Add(-hold)) {
			active = append(active, now...)
		} else {
			active = both(active, now)
		}
		query.Close()
	}
	return active
}

// both are the results of a that b has, too.
func both(a, b promql.Vector) promql.Vector {
	var out promql.Vector
	for _, x := range a {
		for _, y := range b {
			if x.Metric.Hash() == y.Metric.Hash() {
				out = append(out, x)
			}
		}
	}
	return out
}

// load reads series, and returns the time of the last sample.
func load(t *testing.T, series []string, step time.Duration) (storage.Queryable, time.Time) {
	t.Helper()
	var all []storage.Series
	last := 0
	for _, text := range series {
		l, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var list []chunks.Sample
		for i, v := range values {
			list = append(list, sample{int64(i) * step.Milliseconds(), v.Value})
		}
		all = append(all, storage.NewListSeries(l, list))
		last = max(last, len(values)-1)
	}
	return queryable(all), time.Unix(0, 0).Add(time.Duration(last) * step)
}

// checkLabels wants an alert to have each label that its texts name.
func checkLabels(t *testing.T, rule alertRule, alert promql.Sample) {
	t.Helper()
	for name, text := range rule.Annotations {
		for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
			if !alert.Metric.Has(m[1]) {
				t.Errorf("its %s names the label %s, which it does not have: %s", name, m[1], alert.Metric)
			}
		}
	}
}
