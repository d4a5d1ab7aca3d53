package lab_test

import (
	"cmp"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/replay"
)

// checkReplay records what was measured before a change, replays it with the policies after the change, and compares the verdicts that change with
// what was measured then.
func checkReplay(t *testing.T, before, after *model.Cluster, was, is map[pair]cell) bool {
	for _, c := range [...]*model.Cluster{before, after} {
		c.FixAddresses() // as the lab does: where nothing shows that pods have IPv6 addresses, they have none
	}
	o := replay.Options{Cluster: replay.Cluster{Nodes: before.Nodes, PodCIDRs: before.Addressing.PodCIDRs}, Before: policiesOf(before), After: policiesOf(after)}
	compared, changed := 0, 0
	for at, now := range is {
		then, ok := was[at]
		switch {
		case !ok || then.Assumed || now.Assumed || then.Measured == "partial" && now.Measured == "partial":
			continue
		case isPodAddress(before, at.from) || isPodAddress(before, at.to): // unknown to replay, which has no pod there
			continue
		}
		list := &observerapi.FlowList{Flows: flowsOf(before, at, then.Measured)}
		r, err := replay.Run(t.Context(), replay.New(list, nil), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Judged.Records == 0 || len(r.Unknown) > 0 {
			t.Errorf("%v → %v TCP %d: replay judges %d records, unknown %v", at.from, at.to, at.port, r.Judged.Records, r.Unknown)
			continue
		}
		lost, gained := uint64(0), uint64(0)
		for _, c := range r.Changes {
			if c.After == replay.Denied {
				lost += c.Records
			} else {
				gained += c.Records
			}
		}
		// of each connection between the pods of two workloads, "partial" tells only that some are allowed
		all := r.Judged.Records
		change := then.Measured + " to " + now.Measured
		agrees := map[string]bool{
			"allowed to allowed": lost+gained == 0, "denied to denied": lost+gained == 0,
			"allowed to denied": lost == all, "denied to allowed": gained == all,
			"allowed to partial": 0 < lost && lost < all && gained == 0, "denied to partial": 0 < gained && gained < all && lost == 0,
			"partial to allowed": 0 < gained && gained < all && lost == 0, "partial to denied": 0 < lost && lost < all && gained == 0,
		}[change]
		if compared++; !agrees {
			t.Errorf("%v → %v TCP %d: measured %s; replay: of %d records %d would be denied and %d allowed", at.from, at.to, at.port, change, all, lost, gained)
		}
		if then.Measured != now.Measured {
			changed++
		}
	}
	t.Logf("replay: %d pairs, %d of them changed", compared, changed)
	if compared == 0 {
		t.Error("nothing was replayed")
	}
	return !t.Failed()
}

// isPodAddress reports whether an address outside is in the pods' networks.
func isPodAddress(c *model.Cluster, w model.Workload) bool {
	return w.Kind == "Address" && slices.ContainsFunc(c.Addressing.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(w.Name)) })
}

func policiesOf(c *model.Cluster) replay.Policies {
	return replay.Policies{NetworkPolicies: c.Policies, ClusterPolicies: c.ClusterPolicies}
}

// flowsOf are records of the connections between two workloads that the lab makes.
func flowsOf(c *model.Cluster, at pair, measured string) (out []observerapi.Flow) {
	verdict := observerapi.Allowed
	if measured == "denied" {
		verdict = observerapi.Denied
	}
	now := time.Unix(1, 0)
	for _, from := range endsOf(c, at.from) {
		for _, to := range endsOf(c, at.to) {
			if from.Address.Is4() != to.Address.Is4() || from.Pod != "" && from.Namespace == to.Namespace && from.Pod == to.Pod {
				continue
			}
			out = append(out, observerapi.Flow{First: now, Last: now, Source: from, Destination: to, Protocol: policy.TCP.String(), Port: at.port,
				Verdict: verdict, Connections: 1, Sides: observerapi.Complete})
		}
	}
	return out
}

// endsOf a workload: each address of each pod, as an observer records it.
func endsOf(c *model.Cluster, w model.Workload) (out []observerapi.End) {
	if w.Kind == "Address" {
		return []observerapi.End{{Address: netip.MustParseAddr(w.Name)}}
	}
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Workload != w {
			continue
		}
		e := observerapi.End{Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Workload: &agentapi.Workload{Kind: w.Kind, Name: w.Name}, Labels: p.Labels,
			NamespaceLabels: map[string]string{}, Node: p.Spec.NodeName}
		for _, ns := range c.Namespaces {
			if ns.Name == p.Namespace {
				e.NamespaceLabels = ns.Labels
			}
		}
		for _, container := range p.Spec.Containers {
			for _, port := range container.Ports {
				if port.Name != "" {
					e.NamedPorts = append(e.NamedPorts, observerapi.NamedPort{Name: port.Name, Protocol: cmp.Or(string(port.Protocol), "TCP"), Number: uint16(port.ContainerPort)})
				}
			}
		}
		for _, a := range policy.PodAddresses(&p.Pod) {
			e.Address = a
			out = append(out, e)
		}
	}
	return out
}
