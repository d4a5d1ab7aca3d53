package serve

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// Report puts what `kubectl kidoban status` needs into one answer.
func Report(name string, node Node, events Events, metrics prometheus.Gatherer) (*agentapi.NodeReport, error) {
	n, err := nodeOf(name, metrics)
	if err != nil {
		return nil, err
	}
	out := &agentapi.NodeReport{Node: n, Pods: node.Pods(), Policies: node.Policies()}
	if agentapi.HaveDomainNames(out.Pods) {
		names, err := node.LearnedNames()
		if err != nil {
			return nil, err
		}
		names.Node = name
		out.Names = &names
	}
	for i := range out.Pods {
		p := &out.Pods[i]
		p.Ingress.Rules = nil
		p.Egress.Rules = slices.DeleteFunc(slices.Clone(p.Egress.Rules), func(r agentapi.Rule) bool { return !r.HasDomainNames() })
	}
	within, err := time.ParseDuration(agentapi.DeniedWithin)
	if err != nil {
		return nil, err
	}
	since := time.Now().Add(-within)
	recent, _ := events.From(0)
	for i := range recent {
		if e := &recent[i]; e.Verdict == agentapi.VerdictDeny && !e.Time.Before(since) {
			out.Denied += int(max(1, e.Count))
		}
	}
	return out, nil
}
