package hubbletest

import (
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Ends of flows.
var (
	// Web is a pod of a Deployment.
	Web = observerapi.End{
		Namespace: "shop", Pod: "web-1", UID: "u1", Workload: &agentapi.Workload{Kind: "Deployment", Name: "web"},
		Labels: map[string]string{"app": "web", "tier": "front"}, NamespaceLabels: map[string]string{"team": "a"},
		Node: "node-1", Address: netip.MustParseAddr("10.0.0.1"),
	}
	// DB is a pod of a StatefulSet on another node.
	DB = observerapi.End{
		Namespace: "shop", Pod: "db-0", UID: "u2", Workload: &agentapi.Workload{Kind: "StatefulSet", Name: "db"},
		Labels: map[string]string{"app": "db"}, Node: "node-2", Address: netip.MustParseAddr("10.0.1.2"),
	}
	// Vendor is outside the cluster, and has a name.
	Vendor = observerapi.End{Address: netip.MustParseAddr("2001:db8::20"), DomainNames: []string{"api.vendor.example"}}

	// Allowed is by a rule of a ClusterNetworkPolicy.
	Allowed = observerapi.Decision{
		Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Tier: "Admin",
		Policy: &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "base"}, RuleName: "dns", Rules: []int32{0, 2}},
	}
	// ByDefault denies: no rule of the isolating policy allows the connection.
	ByDefault = observerapi.Decision{
		Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny, Tier: "NetworkPolicy",
		IsolatedBy: []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "db"}},
	}
)

// FlowAt returns an allowed flow from Web to DB, by its port and time.
func FlowAt(port uint16, at time.Time) observerapi.Flow {
	egress := Allowed
	return observerapi.Flow{
		First: at, Last: at, Source: Web, Destination: DB, Service: "shop/database", Protocol: "TCP", Port: port,
		Verdict: observerapi.Allowed, Egress: &egress, Sides: observerapi.Complete, Connections: 1,
	}
}
