package agent

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// hits adds up what the kernel counts for rules, by names that outlive the kernel's IDs; with Agent.mu held.
type hits struct {
	max    int // series
	seen   map[dataplane.Hit]uint64
	totals map[hit]uint64
}

// hit is a series. The zero value with a verdict is for what has no name any more, or would be a series too many.
type hit struct {
	policy                   agentapi.PolicyRef
	direction, rule, verdict string
}

// defaultDeny stands in place of rule indexes.
const defaultDeny = "default-deny"

func newHits(max int) *hits {
	return &hits{max: max, seen: map[dataplane.Hit]uint64{}, totals: map[hit]uint64{}}
}

// update takes in the kernel's counts and returns those of what is not in use any more.
func (h *hits) update(counts map[dataplane.Hit]uint64, s *state) (gone []dataplane.Hit) {
	for k, n := range counts {
		series := h.series(k, s.compiler)
		if len(series) == 0 {
			gone = append(gone, k)
			series = []hit{{verdict: k.Verdict.String()}}
		}
		if added := n - h.seen[k]; added > 0 {
			for _, name := range series {
				h.add(name, added, s)
			}
		}
		h.seen[k] = n
	}
	for _, k := range gone {
		delete(h.seen, k)
	}
	return gone
}

// series are the names of a count: a rule's own or, for a default, one for each policy that isolates.
func (h *hits) series(k dataplane.Hit, c *compiler.Compiler) []hit {
	if k.Rule != 0 {
		ref, ok := c.Rule(k.Rule)
		if !ok {
			return nil
		}
		var rules []string
		for _, i := range ref.Policy.Rules[ref.Direction][ref.Rule].Origin {
			rules = append(rules, strconv.Itoa(int(i)))
		}
		return []hit{{policyRef(ref.Policy.ID), ref.Direction.String(), strings.Join(rules, ","), k.Verdict.String()}}
	}
	var out []hit
	for _, p := range c.Set(k.Set) {
		if p.Tier == policy.TierNetworkPolicy {
			out = append(out, hit{policyRef(p.ID), c.DirectionOf(k.Set).String(), defaultDeny, k.Verdict.String()})
		}
	}
	return out
}

func (h *hits) add(name hit, n uint64, s *state) {
	if _, ok := h.totals[name]; !ok && len(h.totals) >= h.max {
		h.prune(s)
		if len(h.totals) >= h.max {
			name = hit{verdict: name.verdict}
		}
	}
	h.totals[name] += n
}

// prune drops the series of policies that are gone.
func (h *hits) prune(s *state) {
	there := map[agentapi.PolicyRef]bool{{}: true}
	for _, p := range s.mode.closed(nil) {
		there[policyRef(p.ID)] = true
	}
	for _, e := range s.policies {
		if e.active != nil {
			there[policyRef(e.active.policy.ID)] = true
		}
	}
	for name := range h.totals {
		if !there[name.policy] {
			delete(h.totals, name)
		}
	}
}

// countHits reads the kernel's counts while their IDs still mean something.
func (a *Agent) countHits() error {
	if a.opts.RuleSeries == 0 {
		return nil
	}
	counts, err := a.dp.RuleHits()
	if err != nil {
		return err
	}
	for _, k := range a.hits.update(counts, a.state) {
		if err := a.dp.ForgetHits(k); err != nil {
			return err
		}
	}
	return nil
}

var ruleHits = prometheus.NewDesc("kidoban_agent_rule_hits_total",
	"Packets that a rule, or the default of the policies that isolate a pod, judged: one for each flow that was accepted, and every packet that was refused.",
	[]string{"kind", "namespace", "policy", "direction", "rule", "verdict"}, nil)

// hitCollector collects hits when it is asked.
type hitCollector struct{ a *Agent }

func (c hitCollector) Describe(ch chan<- *prometheus.Desc) { ch <- ruleHits }

func (c hitCollector) Collect(ch chan<- prometheus.Metric) {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	if err := c.a.countHits(); err != nil {
		ch <- prometheus.NewInvalidMetric(ruleHits, err)
		return
	}
	for name, n := range c.a.hits.totals {
		ch <- prometheus.MustNewConstMetric(ruleHits, prometheus.CounterValue, float64(n),
			name.policy.Kind, name.policy.Namespace, name.policy.Name, name.direction, name.rule, name.verdict)
	}
}
