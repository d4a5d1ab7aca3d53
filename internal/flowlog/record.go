package flowlog

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/plain"
	"github.com/kidoban/kidoban/internal/policy"
)

// Directory knows the names behind what the dataplane reports. It is asked from one goroutine.
type Directory interface {
	// Pod that had an address at a time a moment ago; false where no pod of this node is known under it.
	Pod(addr netip.Addr, at time.Time) (Pod, bool)
	// Rule that an ID stands for; false where it is not in use any more.
	Rule(id compiler.RuleID) (agentapi.RuleRef, bool)
	// Isolating are the policies that a set is made of; nil where it is not in use any more.
	Isolating(set compiler.SetID) []agentapi.PolicyRef
	// Audited are the audited ones among the policies that a set is made of; false where the set is not in use any more.
	Audited(set compiler.SetID) ([]agentapi.PolicyRef, bool)
	// NameMiss is why no rule with names allowed what a set denied; nil where that is not known.
	NameMiss(set compiler.SetID, f policy.Flow) *agentapi.NameMiss
	// DomainNames are the DNS names of policies under which the node has learned an address, in ascending order.
	DomainNames(addr netip.Addr) []string
}

// Pod has an address. Workload is nil while the pod's object is not known.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Workload        *agentapi.Workload
}

// IDs are never given out again, so what was found out about one stays true, also when a policy is gone
// before the last line about it.
const namesKept = 4096

// Recorder gives events the names of pods, policies and rules. It is not safe for concurrent use.
type Recorder struct {
	node      string
	directory Directory
	rules     *lru.Cache // compiler.RuleID → agentapi.RuleRef
	sets      *lru.Cache // compiler.SetID → []agentapi.PolicyRef
	audited   *lru.Cache // the same, of the audited ones
}

// NewRecorder returns a Recorder of a node.
func NewRecorder(node string, directory Directory) *Recorder {
	return &Recorder{
		node: plain.Line(node), directory: directory, rules: lru.New(namesKept), sets: lru.New(namesKept), audited: lru.New(namesKept),
	}
}

// verdictOf is a verdict as lines of the flow log have it.
func verdictOf(v events.Verdict) string {
	switch v {
	case events.Allow:
		return agentapi.VerdictAccept
	case events.Deny:
		return agentapi.VerdictDeny
	case events.AuditDeny:
		return agentapi.VerdictAuditDeny
	case events.AuditAllow:
		return agentapi.VerdictAuditAllow
	}
	return v.String()
}

// reasonOf is a reason as lines of the flow log have it.
func reasonOf(r events.Reason) string {
	switch r {
	case events.ReasonRule:
		return agentapi.ReasonPolicy
	case events.ReasonDefault:
		return agentapi.ReasonDefaultDeny
	case events.ReasonUnparsable:
		return agentapi.ReasonUnparsable
	case events.ReasonInvalid:
		return agentapi.ReasonInvalid
	case events.ReasonRevoked:
		return agentapi.ReasonRevoked
	case events.ReasonSpoofed:
		return agentapi.ReasonSpoofed
	case events.ReasonUnknown:
		return agentapi.ReasonUnknown
	case events.ReasonEncapsulated:
		return agentapi.ReasonEncapsulated
	}
	return r.String()
}

// Record returns an event with its names.
func (r *Recorder) Record(e *events.Event) agentapi.Event {
	out := agentapi.Event{
		Time:        e.Time,
		Node:        r.node,
		Direction:   e.Direction.String(),
		Verdict:     verdictOf(e.Verdict),
		Reason:      reasonOf(e.Reason),
		Source:      r.endpoint(e.Source, e.First),
		Destination: r.endpoint(e.Destination, e.First),
		Count:       e.Packets,
		Bytes:       e.Bytes,
		Unlisted:    e.Unlisted,
	}
	if e.Packets > 1 {
		out.First = &e.First
	}
	if !e.Unlisted && (out.Source.IP.IsValid() || out.Destination.IP.IsValid()) {
		out.Protocol = e.Protocol.String()
	}
	if o := e.OriginalDestination; o.IsValid() && o != e.Destination {
		out.OriginalDestination = &agentapi.Endpoint{IP: o.Addr(), Port: o.Port()}
	}
	if to := &out.Destination; e.Direction == policy.Egress && to.IP.IsValid() && to.Pod == "" {
		names := r.directory.DomainNames(to.IP)
		to.DomainNames = names[:min(len(names), agentapi.MaxDomainNames)]
	}
	if e.Direction == policy.Egress && out.Destination.IP.IsValid() && isDenial(e) {
		out.NameMiss = r.nameMiss(e)
	}
	if e.Verdict == events.AuditDeny || e.Verdict == events.AuditAllow {
		out.Audited = r.auditedIn(e.Set)
	}
	switch e.Reason {
	case events.ReasonRule:
		if e.Rule != 0 { // 0 where rules differ
			out.Tier = e.Tier.String()
			out.Policy = r.rule(e.Rule)
		}
	case events.ReasonDefault:
		if e.Verdict == events.Allow || e.Verdict == events.AuditAllow { // no tier decided
			out.Reason = agentapi.ReasonDefaultAllow
			break
		}
		out.Tier = e.Tier.String()
		out.IsolatedBy = r.isolating(e.Set)
		if e.Set == dataplane.DenyAll {
			out.Reason = agentapi.ReasonMapFull
		}
	case events.ReasonUnparsable, events.ReasonInvalid, events.ReasonRevoked, events.ReasonSpoofed, events.ReasonUnknown,
		events.ReasonEncapsulated:
		// No policy decided.
	}
	return out
}

// isDenial reports whether policies denied the packets, or would.
func isDenial(e *events.Event) bool {
	return (e.Verdict == events.Deny || e.Verdict == events.AuditDeny) && (e.Reason == events.ReasonRule || e.Reason == events.ReasonDefault)
}

func (r *Recorder) nameMiss(e *events.Event) *agentapi.NameMiss {
	miss := r.directory.NameMiss(e.Set, policy.Flow{
		Source: e.Source.Addr(), Destination: e.Destination.Addr(), Protocol: e.Protocol, Port: e.Destination.Port(),
	})
	if miss != nil {
		miss.Name = plain.Line(miss.Name)
	}
	return miss
}

func (r *Recorder) endpoint(a netip.AddrPort, at time.Time) agentapi.Endpoint {
	if !a.IsValid() || a.Addr().IsUnspecified() {
		return agentapi.Endpoint{}
	}
	out := agentapi.Endpoint{IP: a.Addr(), Port: a.Port()}
	if pod, ok := r.directory.Pod(a.Addr(), at); ok {
		out.Namespace, out.Pod, out.UID = plain.Line(pod.Namespace), plain.Line(pod.Name), string(pod.UID)
		if pod.Workload != nil {
			out.Workload = &agentapi.Workload{Kind: plain.Line(pod.Workload.Kind), Name: plain.Line(pod.Workload.Name)}
		}
	}
	return out
}

func (r *Recorder) rule(id compiler.RuleID) *agentapi.RuleRef {
	if known, ok := r.rules.Get(id); ok {
		return known.(*agentapi.RuleRef)
	}
	ref, ok := r.directory.Rule(id)
	if !ok {
		return nil
	}
	ref.PolicyRef, ref.RuleName = plainRef(ref.PolicyRef), plain.Line(ref.RuleName)
	r.rules.Add(id, &ref)
	return &ref
}

// plainRef has no control characters: the name comes from a PolicyEndpoint, which a tenant may write.
func plainRef(r agentapi.PolicyRef) agentapi.PolicyRef {
	return agentapi.PolicyRef{Kind: plain.Line(r.Kind), Namespace: plain.Line(r.Namespace), Name: plain.Line(r.Name)}
}

func (r *Recorder) isolating(set compiler.SetID) []agentapi.PolicyRef {
	if known, ok := r.sets.Get(set); ok {
		return known.([]agentapi.PolicyRef)
	}
	refs := plainRefs(r.directory.Isolating(set))
	if len(refs) > 0 {
		r.sets.Add(set, refs)
	}
	return refs
}

func (r *Recorder) auditedIn(set compiler.SetID) []agentapi.PolicyRef {
	if known, ok := r.audited.Get(set); ok {
		return known.([]agentapi.PolicyRef)
	}
	refs, ok := r.directory.Audited(set)
	refs = plainRefs(refs)
	if ok {
		r.audited.Add(set, refs)
	}
	return refs
}

// plainRefs are as many names as a line has room for.
func plainRefs(refs []agentapi.PolicyRef) []agentapi.PolicyRef {
	refs = slices.Clone(refs[:min(len(refs), agentapi.MaxIsolatedBy)])
	for i := range refs {
		refs[i] = plainRef(refs[i])
	}
	return refs
}
