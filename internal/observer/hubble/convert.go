package hubble

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Types of events, and subtypes of traces, as monitors of Hubble's API number them.
const (
	eventDrop          = 1
	eventTrace         = 4
	eventPolicyVerdict = 5
	traceToEndpoint    = 0
	traceToNetwork     = 11
)

// view is a flow as one of its ends' nodes shows it.
type view struct {
	flow *flowpb.Flow
	// verdicts and events that the flow can be shown with; it has the first of each unless a filter asks for another.
	verdicts []flowpb.Verdict
	events   []*flowpb.CiliumEventType
	// continues is set for packets of a connection that the kernel has forgotten.
	continues bool
}

// views returns the flow as seen from each end that decided, the end that decided the verdict first. There is at least one.
func views(f *observerapi.Flow) []view {
	directions := []flowpb.TrafficDirection{flowpb.TrafficDirection_TRAFFIC_DIRECTION_UNKNOWN}
	switch {
	case f.Egress != nil && f.Ingress != nil && decides(f.Ingress, f.Verdict) && !decides(f.Egress, f.Verdict):
		directions = []flowpb.TrafficDirection{flowpb.TrafficDirection_INGRESS, flowpb.TrafficDirection_EGRESS}
	case f.Egress != nil && f.Ingress != nil:
		directions = []flowpb.TrafficDirection{flowpb.TrafficDirection_EGRESS, flowpb.TrafficDirection_INGRESS}
	case f.Egress != nil:
		directions = []flowpb.TrafficDirection{flowpb.TrafficDirection_EGRESS}
	case f.Ingress != nil:
		directions = []flowpb.TrafficDirection{flowpb.TrafficDirection_INGRESS}
	}
	out := make([]view, len(directions))
	for i, d := range directions {
		out[i] = newView(f, d)
	}
	return out
}

// decides reports whether an end's decision is why a flow has its verdict.
func decides(d *observerapi.Decision, v observerapi.Verdict) bool {
	switch v {
	case observerapi.Denied:
		return d.Verdict == observerapi.Denied
	case observerapi.WouldBeDeny:
		return d.Audited == observerapi.Denied
	case observerapi.WouldBeAllow:
		return d.Audited == observerapi.Allowed
	case observerapi.Allowed:
	}
	return true
}

func newView(f *observerapi.Flow, direction flowpb.TrafficDirection) view {
	node := f.Source.Node
	if direction == flowpb.TrafficDirection_INGRESS || node == "" {
		node = f.Destination.Node
	}
	out := &flowpb.Flow{
		Time:             timestamppb.New(f.Last),
		Uuid:             uuid(f),
		IP:               addresses(f),
		L4:               layer4(f.Protocol, f.Port),
		Source:           endpoint(&f.Source, node),
		Destination:      endpoint(&f.Destination, node),
		Type:             flowpb.FlowType_L3_L4,
		NodeName:         node,
		DestinationNames: f.Destination.DomainNames,
		TrafficDirection: direction,
		IsReply:          wrapperspb.Bool(f.Reply),
	}
	out.Summary = summary(f) //nolint:staticcheck // the CLI prints it, and nothing else says it
	if namespace, name, ok := strings.Cut(f.Service, "/"); ok {
		out.DestinationService = &flowpb.Service{Namespace: namespace, Name: name}
	}
	out.EgressAllowedBy, out.EgressDeniedBy = decidedBy(f.Egress)
	out.IngressAllowedBy, out.IngressDeniedBy = decidedBy(f.Ingress)
	v := view{flow: out, verdicts: verdicts(f.Verdict), continues: f.Continues}
	reason := dropReason(f)
	v.events = append(v.events, &flowpb.CiliumEventType{Type: eventPolicyVerdict})
	if dropped(f) {
		v.events = append(v.events, &flowpb.CiliumEventType{Type: eventDrop, SubType: int32(reason)})
		out.DropReasonDesc = reason
		out.DropReason = uint32(reason) //nolint:staticcheck // older clients read it
	} else {
		sub := int32(traceToNetwork)
		if f.Destination.Namespace != "" {
			sub = traceToEndpoint
		}
		v.events = append(v.events, &flowpb.CiliumEventType{Type: eventTrace, SubType: sub})
	}
	v.show(v.verdicts[0], v.events[0])
	return v
}

// show gives the flow a verdict and a type of event out of those that the view has.
func (v *view) show(verdict flowpb.Verdict, event *flowpb.CiliumEventType) {
	v.flow.Verdict, v.flow.EventType = verdict, event
	v.flow.TraceObservationPoint, v.flow.TraceReason = flowpb.TraceObservationPoint_UNKNOWN_POINT, flowpb.TraceReason_TRACE_REASON_UNKNOWN
	if event.GetType() != eventTrace {
		return
	}
	v.flow.TraceObservationPoint, v.flow.TraceReason = flowpb.TraceObservationPoint_TO_NETWORK, flowpb.TraceReason_NEW
	if event.GetSubType() == traceToEndpoint {
		v.flow.TraceObservationPoint = flowpb.TraceObservationPoint_TO_ENDPOINT
	}
	switch {
	case v.flow.GetIsReply().GetValue():
		v.flow.TraceReason = flowpb.TraceReason_REPLY
	case v.continues:
		v.flow.TraceReason = flowpb.TraceReason_ESTABLISHED
	}
}

func dropped(f *observerapi.Flow) bool {
	return f.Verdict == observerapi.Denied || f.Verdict == observerapi.WouldBeAllow
}

// verdicts returns the verdict of a flow, and the others under which a client may look for it: what audited policies would have
// changed was forwarded, or dropped, all the same.
func verdicts(v observerapi.Verdict) []flowpb.Verdict {
	switch v {
	case observerapi.Allowed:
		return []flowpb.Verdict{flowpb.Verdict_FORWARDED}
	case observerapi.Denied:
		return []flowpb.Verdict{flowpb.Verdict_DROPPED}
	case observerapi.WouldBeDeny:
		return []flowpb.Verdict{flowpb.Verdict_AUDIT, flowpb.Verdict_FORWARDED}
	case observerapi.WouldBeAllow:
		return []flowpb.Verdict{flowpb.Verdict_AUDIT, flowpb.Verdict_DROPPED}
	}
	return []flowpb.Verdict{flowpb.Verdict_VERDICT_UNKNOWN}
}

// dropReason returns why a flow is denied, in the closest of Hubble's words.
func dropReason(f *observerapi.Flow) flowpb.DropReason {
	d := f.Egress
	if d == nil || d.Verdict != observerapi.Denied {
		d = f.Ingress
	}
	if d == nil || d.Verdict != observerapi.Denied {
		return flowpb.DropReason_DROP_REASON_UNKNOWN
	}
	switch d.Reason {
	case agentapi.ReasonPolicy:
		return flowpb.DropReason_POLICY_DENY
	case agentapi.ReasonSpoofed:
		return flowpb.DropReason_INVALID_SOURCE_IP
	case agentapi.ReasonUnparsable:
		return flowpb.DropReason_CT_TRUNCATED_OR_INVALID_HEADER
	case agentapi.ReasonInvalid:
		return flowpb.DropReason_INVALID_PACKET_DROPPED
	case agentapi.ReasonEncapsulated:
		return flowpb.DropReason_ENCAPSULATION_TRAFFIC_IS_PROHIBITED
	}
	return flowpb.DropReason_POLICY_DENIED
}

func addresses(f *observerapi.Flow) *flowpb.IP {
	source, destination := f.Source.Address.Unmap(), f.Destination.Address.Unmap()
	if !source.IsValid() && !destination.IsValid() {
		return nil
	}
	version := flowpb.IPVersion_IPv6
	if source.Is4() || destination.Is4() {
		version = flowpb.IPVersion_IPv4
	}
	return &flowpb.IP{Source: text(source), Destination: text(destination), IpVersion: version}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// layer4 returns nil for a protocol that Hubble's API has no message for.
func layer4(protocol string, port uint16) *flowpb.Layer4 {
	p := uint32(port)
	switch protocol {
	case "TCP":
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{DestinationPort: p}}}
	case "UDP":
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{DestinationPort: p}}}
	case "SCTP":
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{DestinationPort: p}}}
	case "ICMP":
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{}}}
	case "ICMPv6":
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{}}}
	}
	return nil
}

// decidedBy returns the policies that allow and those that deny: the one whose rule decided, the isolating ones for a default, and the
// audited ones on the side that they would have decided for.
func decidedBy(d *observerapi.Decision) (allowed, denied []*flowpb.Policy) {
	if d == nil {
		return nil, nil
	}
	switch {
	case d.Verdict == observerapi.Allowed && d.Policy != nil:
		allowed = append(allowed, ruleOf(d))
	case d.Verdict == observerapi.Denied && d.Policy != nil:
		denied = append(denied, ruleOf(d))
	case d.Verdict == observerapi.Denied:
		denied = policies(d.IsolatedBy)
	}
	switch d.Audited {
	case observerapi.Allowed:
		allowed = append(allowed, policies(d.AuditedBy, "kidoban:audited=true")...)
	case observerapi.Denied:
		denied = append(denied, policies(d.AuditedBy, "kidoban:audited=true")...)
	case observerapi.WouldBeAllow, observerapi.WouldBeDeny:
	}
	return allowed, denied
}

func policies(refs []agentapi.PolicyRef, labels ...string) []*flowpb.Policy {
	out := make([]*flowpb.Policy, len(refs))
	for i, r := range refs {
		out[i] = &flowpb.Policy{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Labels: labels}
	}
	return out
}

func ruleOf(d *observerapi.Decision) *flowpb.Policy {
	p := policies([]agentapi.PolicyRef{d.Policy.PolicyRef})[0]
	if d.Tier != "" {
		p.Labels = append(p.Labels, "kidoban:tier="+d.Tier)
	}
	if d.Policy.RuleName != "" {
		p.Labels = append(p.Labels, "kidoban:ruleName="+d.Policy.RuleName)
	}
	if len(d.Policy.Rules) > 0 {
		p.Labels = append(p.Labels, "kidoban:rules="+commaSeparated(d.Policy.Rules))
	}
	return p
}

func commaSeparated(rules []int32) string {
	parts := make([]string, len(rules))
	for i, r := range rules {
		parts[i] = strconv.Itoa(int(r))
	}
	return strings.Join(parts, ",")
}

// summary describes the flow in a line, as the CLI prints it in brackets.
func summary(f *observerapi.Flow) string {
	var b strings.Builder
	b.WriteString(f.Protocol)
	if f.Port != 0 {
		fmt.Fprintf(&b, " %d", f.Port)
	}
	switch {
	case f.Reply:
		b.WriteString(" reply; " + count(f.Packets, "packet"))
	case f.Continues:
		b.WriteString("; " + count(f.Packets, "packet") + " of a connection that is forgotten")
	default:
		b.WriteString("; " + count(f.Connections, "connection"))
	}
	describe(&b, "egress", f.Egress)
	describe(&b, "ingress", f.Ingress)
	if f.Sides == observerapi.OneSide {
		b.WriteString("; reported by one side")
	}
	return b.String()
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func describe(b *strings.Builder, direction string, d *observerapi.Decision) {
	if d == nil {
		return
	}
	verdict := strings.ToLower(string(d.Verdict))
	switch {
	case d.Policy != nil:
		fmt.Fprintf(b, "; %s %s by %s", direction, verdict, d.Policy.PolicyRef)
	case d.Reason != "":
		fmt.Fprintf(b, "; %s %s: %s", direction, verdict, d.Reason)
	default:
		fmt.Fprintf(b, "; %s %s", direction, verdict)
	}
	if d.Audited == "" {
		return
	}
	fmt.Fprintf(b, ", would be %s", strings.ToLower(string(d.Audited)))
	for i, p := range d.AuditedBy {
		separator := " by "
		if i > 0 {
			separator = ", "
		}
		b.WriteString(separator + p.String())
	}
}
