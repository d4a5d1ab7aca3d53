package recommend

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

// Input is what recommendations are made from.
type Input struct {
	Coverage observerapi.Coverage
	Hidden   []string
	Traffic  []replay.Traffic
	// Objects of the cluster today. Their policies count as those of today.
	Objects *replay.Objects
	replay.Cluster
}

// Read the flows of a recording that did not end before a time.
func Read(ctx context.Context, recording *replay.Recording, since time.Time, podCIDRs []netip.Prefix) (in *Input, err error) {
	in = &Input{Coverage: recording.Coverage, Hidden: recording.Hidden, Objects: recording.Objects}
	in.PodCIDRs = podCIDRs
	if in.Objects != nil {
		in.Nodes = in.Objects.Nodes
	}
	if since.After(in.Coverage.Since) {
		in.Coverage = replay.CoverageSince(in.Coverage, since)
	}
	in.Traffic, err = replay.Distinct(ctx, recording, since)
	return in, err
}

// Options of Run.
type Options struct {
	// Namespaces whose workloads get policies.
	Namespaces []string
	// Audit adds the label that stages policies.
	Audit bool
	// OnlyMissing leaves out what policies of today already allow, with audited ones counted as enforced.
	OnlyMissing bool
	// RequireComplete makes it an error if something is missing in the recording.
	RequireComplete bool
}

// Result is policies with their proof.
type Result struct {
	Coverage observerapi.Coverage `json:"coverage"`
	// Complete is set if nothing is missing in the recording that concerns the namespaces.
	Complete bool     `json:"complete"`
	Policies []Policy `json:"policies"`
	Proof    Proof    `json:"proof"`
	// Decisions are traffic that is not allowed by the policies until a person decides.
	Decisions []Decision `json:"decisions,omitempty"`
	// Silent are workloads, by direction, that are not isolated because no traffic was seen.
	Silent []Silent `json:"silent,omitempty"`
	// Unselectable are workloads that no labels select alone. They get no policy.
	Unselectable []replay.Party `json:"unselectable,omitempty"`
	Notes        []string       `json:"notes,omitempty"`
}

// Policy is a recommended policy of one of two kinds, with the reason for each of its rules.
type Policy struct {
	NetworkPolicy *networkingv1.NetworkPolicy `json:"networkPolicy,omitempty"`
	ClusterPolicy *cnp.ClusterNetworkPolicy   `json:"clusterNetworkPolicy,omitempty"`
	Workloads     []replay.Party              `json:"workloads"`
	// Ingress and Egress are by the index of the rule.
	Ingress []Reason `json:"ingress,omitempty"`
	Egress  []Reason `json:"egress,omitempty"`
	// Staged is set if it adds to audited policies, so that it must be audited until they are enforced.
	Staged bool `json:"staged,omitempty"`
}

// Reason is the traffic that needs a rule.
type Reason struct {
	// DNS rules are there whether or not they were needed.
	DNS bool `json:"dns,omitempty"`
	// Traffic by peer.
	Traffic []Seen `json:"traffic,omitempty"`
	// Notes about peers, such as addresses without a name.
	Notes []string `json:"notes,omitempty"`

	items []*item
}

// Seen is recorded traffic with a peer.
type Seen struct {
	Peer  string `json:"peer"`
	Ports string `json:"ports"`
	replay.Count
}

// Why traffic is left to a decision.
type Why string

// The reasons for a decision.
const (
	SeenOnce    Why = "seen once"
	Scanner     Why = "from a scanner: few connections to many ports"
	SNATed      Why = "from a node that is not the pod's own: the address of the real source is not known (SNAT, or a pod of the host's network)"
	DeniedToday Why = "denied today"
	NoPorts     Why = "a protocol without ports, which NetworkPolicies cannot allow alone"
	NoLabels    Why = "no labels select the peer alone"
	ServiceIP   Why = "to the address of a Service that has no endpoints"
	Continued   Why = "only packets of connections that were opened before the recording"
	Undecidable Why = "cannot be decided"
)

// Decision is traffic that a person should decide about.
type Decision struct {
	Why      Why          `json:"why"`
	From     replay.Party `json:"from"`
	To       replay.Party `json:"to"`
	FromText string       `json:"-"`
	ToText   string       `json:"-"`
	Protocol string       `json:"protocol"`
	Port     uint16       `json:"port,omitempty"`
	replay.Count
	// Denied is set if it is denied once the policies are enforced.
	Denied bool `json:"denied"`
	// Allowed is set if it is denied today and allowed once the policies are in force: by the rule for DNS, or because no label distinguishes it from
	// traffic that is allowed.
	Allowed bool `json:"allowed,omitempty"`
	// Reason why it cannot be decided.
	Reason replay.Reason `json:"reason,omitempty"`
}

// Silent is a workload that is not isolated in a direction.
type Silent struct {
	Workload  replay.Party `json:"workload"`
	Direction string       `json:"direction"`
}

// Proof is what was checked before the result was returned.
type Proof struct {
	// Allowed are the recorded flows that are allowed today and stay allowed.
	Allowed replay.Count `json:"allowed"`
	// Denied are those that are denied from then on: each is among the decisions.
	Denied replay.Count `json:"denied"`
	// Rules that were taken away one by one, each of which a recorded flow needs.
	Rules int `json:"rules"`
}

// ErrIncomplete is returned for a recording with gaps if a complete one is required.
var ErrIncomplete = errors.New("the recording is incomplete")

// Run recommends policies.
func Run(in *Input, o Options) (*Result, error) {
	complete := replay.IsComplete(in.Coverage) && !slices.ContainsFunc(o.Namespaces, func(ns string) bool { return slices.Contains(in.Hidden, ns) })
	if o.RequireComplete && !complete {
		return nil, ErrIncomplete
	}
	// Networks are made of addresses unless that allows what is denied today.
	var out *Result
	var failed error
	for _, widen := range [...]bool{true, false} {
		w := newWriter(in, o, widen)
		out = w.write()
		if failed = w.prove(out); failed == nil || !errors.Is(failed, errOpens) {
			break
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("the policies that were written failed their proof, so they are not shown: %w", failed)
	}
	out.Coverage, out.Complete = in.Coverage, complete
	return out, nil
}

// NamespacesOf objects, for a recommendation about all of them.
func NamespacesOf(o *replay.Objects) (out []string) {
	for i := range o.Namespaces {
		out = append(out, o.Namespaces[i].Name)
	}
	slices.Sort(out)
	return out
}

// isOwn reports whether a policy was recommended before, so that a new one of its name takes its place.
func isOwn(labels map[string]string) bool { return labels[managedByKey] == managedBy }

const (
	managedByKey = "app.kubernetes.io/managed-by"
	managedBy    = "kidoban-recommend"
)
