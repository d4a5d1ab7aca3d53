package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// Pods returns what is in force for each pod of the node.
func (a *Agent) Pods() (pods []agentapi.Pod) {
	a.state.read(func(n *node.Node) {
		applied, _ := a.applied.has(n.Revision())
		pods = n.DescribePods(applied)
	})
	return pods
}

// Policies returns how far each policy that selects pods of the node is in force, and what enforcing the audited ones would cut.
func (a *Agent) Policies() (policies []agentapi.Policy) {
	a.state.read(func(n *node.Node) { policies = n.DescribePolicies() })
	if !slices.ContainsFunc(policies, func(p agentapi.Policy) bool { return p.Audited }) {
		return policies
	}
	live, err := a.live.of(a.sweeper, time.Now())
	if err != nil {
		a.opts.Log.Error(err, "Cannot read the live connections that audited policies would cut")
		return policies
	}
	for i := range policies {
		if p := &policies[i]; p.Audited && p.Realised != nil {
			p.Live = cmp.Or(live[p.PolicyRef], &agentapi.LiveDenials{})
		}
	}
	return policies
}

// Names are the names of addresses and IDs, for the flow log.
func (a *Agent) Names() flowlog.Directory {
	return names{a.state, a.kernel, &nameCache{kernel: a.kernel}}
}

type names struct {
	state   *state
	kernel  Names
	learned *nameCache
}

func (d names) DomainNames(addr netip.Addr) []string { return d.learned.of(addr, time.Now()) }

func (d names) Pod(addr netip.Addr, at time.Time) (pod flowlog.Pod, ok bool) {
	d.state.read(func(n *node.Node) {
		var name node.PodName
		name, ok = n.PodThen(addr, at)
		pod = flowlog.Pod(name)
	})
	return pod, ok
}

func (d names) Rule(id compiler.RuleID) (rule agentapi.RuleRef, ok bool) {
	d.state.read(func(n *node.Node) {
		var ref compiler.RuleRef
		if ref, ok = n.Rule(id); ok {
			rule = node.RuleRef(ref.Policy, &ref.Policy.Rules[ref.Direction][ref.Rule])
		}
	})
	return rule, ok
}

func (d names) Audited(set compiler.SetID) (policies []agentapi.PolicyRef, ok bool) {
	d.state.read(func(n *node.Node) {
		all, direction := n.Set(set)
		policies, ok = node.AuditedRefs(direction, all), all != nil
	})
	return policies, ok
}

func (d names) Isolating(set compiler.SetID) (policies []agentapi.PolicyRef) {
	d.state.read(func(n *node.Node) {
		all, _ := n.Set(set)
		for _, p := range all {
			if p.Tier == policy.TierNetworkPolicy { // no other isolates
				policies = append(policies, node.PolicyRef(p.ID))
			}
		}
	})
	return policies
}
