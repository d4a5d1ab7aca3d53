package flowpush

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/policy"
)

var verdicts = map[string]flow.Record_Verdict{
	agentapi.VerdictAccept:     flow.Record_ALLOW,
	agentapi.VerdictDeny:       flow.Record_DENY,
	agentapi.VerdictAuditDeny:  flow.Record_AUDIT_DENY,
	agentapi.VerdictAuditAllow: flow.Record_AUDIT_ALLOW,
}

// recordOf is an event with its names as observers read it.
func recordOf(e *events.Event, named *agentapi.Event) *flow.Record {
	r := &flow.Record{
		First:       e.First.UnixMilli(),
		Last:        e.Time.UnixMilli(),
		Direction:   flow.Record_INGRESS,
		Verdict:     verdicts[named.Verdict],
		Reason:      named.Reason,
		Tier:        named.Tier,
		Protocol:    named.Protocol,
		IsolatedBy:  policiesOf(named.IsolatedBy),
		Audited:     policiesOf(named.Audited),
		Source:      endOf(&named.Source),
		Destination: endOf(&named.Destination),
		Packets:     e.Packets,
		Bytes:       e.Bytes,
		Unlisted:    e.Unlisted,
		Reply:       e.Reply,
		Continues:   e.Continues,
		WouldBe:     e.WouldBe,
	}
	if e.Direction == policy.Egress {
		r.Direction = flow.Record_EGRESS
	}
	if p := named.Policy; p != nil {
		r.Policy = &flow.Rule{Policy: policyOf(&p.PolicyRef), Indexes: p.Rules, Name: p.RuleName}
	}
	if o := named.OriginalDestination; o != nil {
		r.OriginalDestination = endOf(o)
	}
	return r
}

func endOf(e *agentapi.Endpoint) *flow.End {
	return &flow.End{
		Address: addressOf(e.IP), Port: uint32(e.Port), Uid: e.UID, Namespace: e.Namespace, Name: e.Pod, DomainNames: e.DomainNames,
	}
}

func addressOf(a netip.Addr) []byte {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

func policyOf(p *agentapi.PolicyRef) *flow.Policy {
	return &flow.Policy{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
}

func policiesOf(refs []agentapi.PolicyRef) []*flow.Policy {
	var out []*flow.Policy
	for i := range refs {
		out = append(out, policyOf(&refs[i]))
	}
	return out
}
