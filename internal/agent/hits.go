package agent

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// hitCounter adds up what the kernel counts for rules, by names that outlive the kernel's IDs. It is a prometheus.Collector.
type hitCounter struct {
	kernel Counts
	state  *state
	max    int // series

	mu     sync.Mutex // guards what follows; held from reading the kernel's counts to adding them up
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

func newHitCounter(kernel Counts, s *state, max int) *hitCounter {
	return &hitCounter{kernel: kernel, state: s, max: max, seen: map[dataplane.Hit]uint64{}, totals: map[hit]uint64{}}
}

// count reads the kernel's counts. An ID is out of use for at least collectInterval before the writer frees it: a count at each of these
// intervals finds every ID's last hits while it still has a name. An error is left to the next scrape, which reports it.
func (c *hitCounter) count() {
	if c.max == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.update()
}

func (c *hitCounter) update() error {
	counts, err := c.kernel.RuleHits()
	if err != nil {
		return err
	}
	var unused []dataplane.Hit
	c.state.read(func(n *node.Node) { unused = c.add(counts, n) })
	for _, k := range unused {
		if err := c.kernel.ForgetHits(k); err != nil {
			return err
		}
	}
	return nil
}

// add takes in the kernel's counts and returns those of IDs that are not in use any more.
func (c *hitCounter) add(counts map[dataplane.Hit]uint64, n *node.Node) (unused []dataplane.Hit) {
	for k, count := range counts {
		series := seriesOf(k, n)
		if len(series) == 0 {
			unused = append(unused, k)
			series = []hit{{verdict: k.Verdict.String()}}
		}
		if added := count - c.seen[k]; added > 0 {
			for _, name := range series {
				c.addTo(name, added, n)
			}
		}
		c.seen[k] = count
	}
	for _, k := range unused {
		delete(c.seen, k)
	}
	return unused
}

// seriesOf returns the names of a count: a rule's own or, for a default, one for each policy that isolates.
func seriesOf(k dataplane.Hit, n *node.Node) []hit {
	if k.Rule != 0 {
		ref, ok := n.Rule(k.Rule)
		if !ok {
			return nil
		}
		var rules []string
		for _, i := range ref.Policy.Rules[ref.Direction][ref.Rule].Origin {
			rules = append(rules, strconv.Itoa(int(i)))
		}
		return []hit{{node.PolicyRef(ref.Policy.ID), ref.Direction.String(), strings.Join(rules, ","), k.Verdict.String()}}
	}
	var out []hit
	policies, direction := n.Set(k.Set)
	isAudited := func(p *policy.Policy) bool { return p.Tier == policy.TierNetworkPolicy && p.Audited }
	onlyAudited := slices.ContainsFunc(policies, isAudited) // without these the pod would not be isolated, or the default would not differ
	for _, p := range policies {
		if p.Tier == policy.TierNetworkPolicy && p.Audited == onlyAudited {
			out = append(out, hit{node.PolicyRef(p.ID), direction.String(), defaultDeny, k.Verdict.String()})
		}
	}
	return out
}

func (c *hitCounter) addTo(name hit, count uint64, n *node.Node) {
	if _, ok := c.totals[name]; !ok && len(c.totals) >= c.max {
		c.prune(n)
		if len(c.totals) >= c.max {
			name = hit{verdict: name.verdict}
		}
	}
	c.totals[name] += count
}

// prune drops the series of policies that are gone.
func (c *hitCounter) prune(n *node.Node) {
	inForce := n.PoliciesInForce()
	for name := range c.totals {
		if name.policy != (agentapi.PolicyRef{}) && !inForce[name.policy] {
			delete(c.totals, name)
		}
	}
}

var ruleHits = prometheus.NewDesc("kidoban_agent_rule_hits_total",
	"Packets that a rule, or the default of the policies that isolate a pod, decided, or would decide if audited policies were enforced (AuditDeny, AuditAllow): one for each flow that was allowed, and every packet that was denied.",
	[]string{"kind", "namespace", "policy", "direction", "rule", "verdict"}, nil)

// Describe is part of prometheus.Collector.
func (c *hitCounter) Describe(ch chan<- *prometheus.Desc) { ch <- ruleHits }

// Collect is part of prometheus.Collector.
func (c *hitCounter) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.update(); err != nil {
		ch <- prometheus.NewInvalidMetric(ruleHits, err)
		return
	}
	for name, n := range c.totals {
		ch <- prometheus.MustNewConstMetric(ruleHits, prometheus.CounterValue, float64(n),
			name.policy.Kind, name.policy.Namespace, name.policy.Name, name.direction, name.rule, name.verdict)
	}
}
