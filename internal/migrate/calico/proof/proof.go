package proof

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// Options of a comparison.
type Options struct {
	// Namespaces are those that there are, with their labels; nil where these are not known.
	Namespaces map[string]map[string]string
	// PodCIDRs have all pods' addresses; none: pods may be anywhere.
	PodCIDRs []netip.Prefix
	// Without these namespaces, although policies name them.
	Without []string
}

// Report is what a comparison found.
type Report struct {
	// Namespaces that were looked at, and the number of classes of flows in them.
	Namespaces int `json:"namespaces"`
	Flows      int `json:"flows"`
	// Differing is the number of classes that differ; Differences shows some of each namespace and direction.
	Differing   int          `json:"differing"`
	Differences []Difference `json:"differences,omitempty"`
}

// maxShown differences of each namespace, direction and sense.
const maxShown = 2

// Compare what two sets of policies mean, for pods of every namespace that is known or named. Policies that cannot be judged must
// not be among them.
func Compare(ctx context.Context, before, after *calico.Set, o Options) (*Report, error) {
	judges := [2]*calico.Judge{calico.NewJudge(before, o.Namespaces), calico.NewJudge(after, o.Namespaces)}
	for _, j := range judges {
		if len(j.Problems) > 0 {
			return nil, &j.Problems[0]
		}
	}
	r := &Report{}
	for _, ns := range namespaces(before, after, o.Namespaces) {
		if slices.Contains(o.Without, ns) {
			continue
		}
		r.Namespaces++
		for _, d := range policy.Directions {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			c := &comparison{judges: judges, namespace: ns, direction: d, report: r, first: map[*calico.JudgedPolicy]int{}}
			if err := c.run(before, after, o); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// namespaces that are known, or that a policy is in or names for its pods.
func namespaces(before, after *calico.Set, known map[string]map[string]string) []string {
	names := map[string]bool{}
	for ns := range known {
		names[ns] = true
	}
	for _, s := range []*calico.Set{before, after} {
		for i := range s.Policies {
			for _, ns := range Named(&s.Policies[i]) {
				names[ns] = true
			}
		}
		for i := range s.Kubernetes {
			names[s.Kubernetes[i].Namespace] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Named are the namespaces that a policy is in or, of a GlobalNetworkPolicy, that it names for its pods: those it selects and those it excludes.
func Named(p *calico.Policy) []string {
	if p.Namespace != "" {
		return []string{p.Namespace}
	}
	selector, err := p.Selector()
	if err != nil {
		return nil
	}
	self := labels{}
	self.selector(selector)
	names := self[field{owner: ofNamespace}]
	slices.Sort(names)
	return slices.Compact(names)
}

// comparison of one direction of flows of one namespace's pods.
type comparison struct {
	judges    [2]*calico.Judge
	namespace string
	direction policy.Direction
	report    *Report

	selfs   []*calico.Endpoint // one of each class
	rules   [2][]*calico.JudgedRule
	first   map[*calico.JudgedPolicy]int // index of a policy's first rule
	peers   []*calico.Endpoint
	traffic []calico.Traffic
	// matches of the rules, by rule and then by peer or traffic.
	peerMatches, trafficMatches [2][][]bool
}

func (c *comparison) run(before, after *calico.Set, o Options) error {
	t := &terms{self: labels{}, peer: labels{}}
	t.add(before, c.namespace, c.direction)
	t.add(after, c.namespace, c.direction)
	podSpace := calico.PodSpace(o.PodCIDRs)
	addresses := t.addresses(podSpace)
	if n := max(t.self.count(), t.peer.count()*len(addresses)); n > maxClasses {
		return fmt.Errorf("namespace %s: its policies tell more than %d classes of pods apart, which is too many to look at each: give fewer policies at once", c.namespace, maxClasses)
	}
	c.classifySelfs(t, o.Namespaces[c.namespace], addresses)
	if len(c.selfs) == 0 {
		return nil // neither set isolates a pod
	}
	if err := t.checkTraffic(c.namespace); err != nil {
		return err
	}
	c.collectRules()
	c.classifyPeers(t, addresses)
	c.classifyTraffic(t)
	for _, self := range c.selfs {
		c.compare(self)
	}
	return nil
}

// classifySelfs finds one pod of each class, by the policies that select it and the rules that are about it.
func (c *comparison) classifySelfs(t *terms, namespaceLabels map[string]string, addresses []address) {
	delete(t.self, field{owner: ofNamespace})
	for f := range t.self {
		if f.owner == ofNamespace {
			delete(t.self, f) // known of this namespace
		}
	}
	seen := map[string]bool{}
	t.self.each(c.namespace, namespaceLabels, func(e *calico.Endpoint) {
		for _, a := range addresses {
			if !a.pod {
				continue
			}
			self := *e
			self.Addr = a.Addr
			var key []byte
			some := false
			for _, j := range c.judges {
				c.eachPolicy(j, func(p *calico.JudgedPolicy) {
					selects := p.Selects(c.direction, &self)
					some = some || selects
					key = append(key, bit(selects))
					for _, r := range p.Rules[c.direction] {
						key = append(key, bit(r.MatchesSelf(&self)))
					}
				})
			}
			if some && !seen[string(key)] {
				seen[string(key)] = true
				c.selfs = append(c.selfs, &self)
			}
		}
	})
}

func (c *comparison) eachPolicy(j *calico.Judge, f func(*calico.JudgedPolicy)) {
	for _, t := range j.Tiers {
		for _, p := range t.Policies {
			f(p)
		}
	}
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// collectRules of the policies that select a pod.
func (c *comparison) collectRules() {
	for side, j := range c.judges {
		c.eachPolicy(j, func(p *calico.JudgedPolicy) {
			if slices.ContainsFunc(c.selfs, func(e *calico.Endpoint) bool { return p.Selects(c.direction, e) }) {
				c.first[p] = len(c.rules[side])
				c.rules[side] = append(c.rules[side], p.Rules[c.direction]...)
			}
		})
	}
}

func (c *comparison) classifyPeers(t *terms, addresses []address) {
	seen := map[string]bool{}
	add := func(e *calico.Endpoint) {
		key := []byte{bit(e.Pod != nil)}
		for _, rules := range c.rules {
			for _, r := range rules {
				key = append(key, bit(r.MatchesPeer(e)))
			}
		}
		if seen[string(key)] {
			return
		}
		seen[string(key)] = true
		c.peers = append(c.peers, e)
		at := 1
		for side, rules := range c.rules {
			if c.peerMatches[side] == nil {
				c.peerMatches[side] = make([][]bool, len(rules))
			}
			for i := range rules {
				c.peerMatches[side][i] = append(c.peerMatches[side][i], key[at] == 1)
				at++
			}
		}
	}
	for _, a := range addresses {
		for _, names := range t.scenarios() {
			add(&calico.Endpoint{Addr: a.Addr, Names: names})
		}
	}
	t.peer.each(c.namespace, nil, func(e *calico.Endpoint) {
		for _, a := range addresses {
			if a.pod {
				peer := *e
				peer.Addr = a.Addr
				add(&peer)
			}
		}
	})
}

// scenarios of domain names: an address that belongs to none of them, to each alone, and to all.
func (t *terms) scenarios() []map[string]bool {
	out := []map[string]bool{nil}
	all := map[string]bool{}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(t.names))) {
		out = append(out, map[string]bool{n: true})
		all[n] = true
	}
	return append(out, all)
}

func (c *comparison) classifyTraffic(t *terms) {
	seen := map[string]bool{}
	t.eachTraffic(func(traffic calico.Traffic) {
		key := []byte{bit(traffic.Target != nil)}
		for _, rules := range c.rules {
			for _, r := range rules {
				key = append(key, bit(r.MatchesTraffic(traffic)))
			}
		}
		if seen[string(key)] {
			return
		}
		seen[string(key)] = true
		c.traffic = append(c.traffic, traffic)
		at := 1
		for side, rules := range c.rules {
			if c.trafficMatches[side] == nil {
				c.trafficMatches[side] = make([][]bool, len(rules))
			}
			for i := range rules {
				c.trafficMatches[side][i] = append(c.trafficMatches[side][i], key[at] == 1)
				at++
			}
		}
	})
}
