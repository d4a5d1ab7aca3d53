package hubble_test

import (
	"net/netip"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// some are flows that differ in everything that can be filtered by. Their ports are 1 to 5.
func some() []observerapi.Flow {
	toDB := hubbletest.FlowAt(1, noon)
	denied := hubbletest.FlowAt(2, noon)
	denied.Ingress, denied.Verdict = &hubbletest.ByDefault, observerapi.Denied
	out := hubbletest.FlowAt(3, noon)
	out.Destination, out.Service = hubbletest.Vendor, ""
	in := hubbletest.FlowAt(4, noon)
	in.Source, in.Destination, in.Service, in.Protocol = observerapi.End{Address: netip.MustParseAddr("192.0.2.9")}, hubbletest.Web, "", "UDP"
	in.Egress, in.Ingress = nil, &hubbletest.Allowed
	reply := hubbletest.FlowAt(5, noon)
	reply.Source, reply.Destination, reply.Service, reply.Reply = hubbletest.DB, hubbletest.Web, "", true
	return []observerapi.Flow{toDB, denied, out, in, reply}
}

func TestFilters(t *testing.T) {
	type list = []*flowpb.FlowFilter
	event := func(kind int32, sub ...int32) *flowpb.FlowFilter {
		e := &flowpb.EventTypeFilter{Type: kind}
		if len(sub) > 0 {
			e.MatchSubType, e.SubType = true, sub[0]
		}
		return &flowpb.FlowFilter{EventType: []*flowpb.EventTypeFilter{e}}
	}
	for name, tc := range map[string]struct {
		allow, deny list
		want        []uint32
	}{
		"none":                         {want: []uint32{1, 2, 3, 4, 5}},
		"empty":                        {allow: list{{}}, want: []uint32{1, 2, 3, 4, 5}},
		"source pod":                   {allow: list{{SourcePod: []string{"shop/web"}}}, want: []uint32{1, 2, 3}},
		"pod in another namespace":     {allow: list{{SourcePod: []string{"bank/web"}}}},
		"namespace":                    {allow: list{{SourcePod: []string{"shop/"}}, {DestinationPod: []string{"shop/"}}}, want: []uint32{1, 2, 3, 4, 5}},
		"pod in any namespace":         {allow: list{{DestinationPod: []string{"/db"}}}, want: []uint32{1, 2}},
		"pod without namespace":        {allow: list{{DestinationPod: []string{"db"}}}, want: []uint32{1, 2}},
		"address":                      {allow: list{{SourceIp: []string{"192.0.2.9"}}}, want: []uint32{4}},
		"CIDR":                         {allow: list{{DestinationIp: []string{"2001:db8::/64", "203.0.113.0/24"}}}, want: []uint32{3}},
		"CIDR with host bits":          {allow: list{{DestinationIp: []string{"2001:db8::1/64"}}}, want: []uint32{3}},
		"domain name":                  {allow: list{{DestinationFqdn: []string{"*.Vendor.example."}}}, want: []uint32{3}},
		"domain name of either end":    {allow: list{{SourceFqdn: []string{"*.vendor.example"}}, {DestinationFqdn: []string{"*.vendor.example"}}}, want: []uint32{3}},
		"label":                        {allow: list{{SourceLabel: []string{"app=web,tier!=back"}}}, want: []uint32{1, 2, 3}},
		"label with source":            {allow: list{{SourceLabel: []string{"k8s:app in (db, cache)"}}}, want: []uint32{5}},
		"label of any source":          {allow: list{{SourceLabel: []string{"any:tier, !x"}}}, want: []uint32{1, 2, 3}},
		"label of an unknown source":   {allow: list{{SourceLabel: []string{"container:app=web"}}}},
		"reserved label":               {allow: list{{DestinationLabel: []string{"reserved:world"}}}, want: []uint32{3}},
		"label of the namespace":       {allow: list{{SourceLabel: []string{"io.kubernetes.pod.namespace=shop"}}}, want: []uint32{1, 2, 3, 5}},
		"service":                      {allow: list{{DestinationService: []string{"shop/data"}}}, want: []uint32{1, 2}},
		"service of either end":        {allow: list{{SourceService: []string{"shop/data"}}, {DestinationService: []string{"shop/data"}}}, want: []uint32{1, 2}},
		"workload":                     {allow: list{{DestinationWorkload: []*flowpb.Workload{{Kind: "StatefulSet"}}}}, want: []uint32{1, 2}},
		"workload by name":             {allow: list{{SourceWorkload: []*flowpb.Workload{{Name: "db"}}}}, want: []uint32{5}},
		"port":                         {allow: list{{DestinationPort: []string{"2", "4"}}}, want: []uint32{2, 4}},
		"port of either end":           {allow: list{{SourcePort: []string{"2"}}, {DestinationPort: []string{"2"}}}, want: []uint32{2}},
		"not port of either end":       {deny: list{{SourcePort: []string{"2"}}, {DestinationPort: []string{"2"}}}, want: []uint32{1, 3, 4, 5}},
		"identity":                     {allow: list{{DestinationIdentity: []uint32{2}}}, want: []uint32{3}},
		"source identity":              {allow: list{{SourceIdentity: []uint32{2}}}, want: []uint32{4}},
		"direction":                    {allow: list{{TrafficDirection: []flowpb.TrafficDirection{flowpb.TrafficDirection_INGRESS}}}, want: []uint32{2, 4}},
		"verdict":                      {allow: list{{Verdict: []flowpb.Verdict{flowpb.Verdict_DROPPED}}}, want: []uint32{2}},
		"not verdict":                  {deny: list{{Verdict: []flowpb.Verdict{flowpb.Verdict_FORWARDED}}}, want: []uint32{2}},
		"drop reason":                  {allow: list{{DropReasonDesc: []flowpb.DropReason{flowpb.DropReason_POLICY_DENIED}}}, want: []uint32{2}},
		"no drop reason":               {allow: list{{DropReasonDesc: []flowpb.DropReason{flowpb.DropReason_DROP_REASON_UNKNOWN}}}},
		"drops":                        {allow: list{event(1)}, want: []uint32{2}},
		"drops for a reason":           {allow: list{event(1, 133)}, want: []uint32{2}},
		"drops for another reason":     {allow: list{event(1, 181)}},
		"no drops":                     {deny: list{event(1)}, want: []uint32{1, 3, 4, 5}},
		"traces":                       {allow: list{event(4)}, want: []uint32{1, 3, 4, 5}},
		"traces to the network":        {allow: list{event(4, 11)}, want: []uint32{3}},
		"verdict events":               {allow: list{event(5)}, want: []uint32{1, 2, 3, 4, 5}},
		"protocol":                     {allow: list{{Protocol: []string{"UDP"}}}, want: []uint32{4}},
		"reply":                        {allow: list{{Reply: []bool{true}}}, want: []uint32{5}},
		"node":                         {allow: list{{NodeName: []string{"node-*"}}}, want: []uint32{1, 2, 3, 4, 5}},
		"node by name, in any cluster": {allow: list{{NodeName: []string{"*/node-2"}}}, want: []uint32{2, 5}},
		"version 6":                    {allow: list{{IpVersion: []flowpb.IPVersion{flowpb.IPVersion_IPv6}}}},
		"two fields":                   {allow: list{{SourcePod: []string{"shop/web"}, DestinationPort: []string{"3", "5"}}}, want: []uint32{3}},
		"allow without deny":           {allow: list{{SourcePod: []string{"shop/web"}}}, deny: list{{DestinationPort: []string{"1"}}}, want: []uint32{2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			got := flowsOf(t, serve(t, hubbletest.New(some()...)), &observerpb.GetFlowsRequest{Whitelist: tc.allow, Blacklist: tc.deny})
			if d := cmp.Diff(tc.want, ports(got)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestAFlowShowsWhatAFilterAsksFor(t *testing.T) {
	denied := hubbletest.FlowAt(2, noon)
	denied.Ingress, denied.Verdict = &hubbletest.ByDefault, observerapi.Denied
	egress := []flowpb.TrafficDirection{flowpb.TrafficDirection_EGRESS}
	got := only(t, denied, &flowpb.FlowFilter{TrafficDirection: egress, EventType: []*flowpb.EventTypeFilter{{Type: 1}}})
	if got.GetTrafficDirection() != flowpb.TrafficDirection_EGRESS || got.GetNodeName() != "node-1" {
		t.Errorf("asked for egress: %s on %s", got.GetTrafficDirection(), got.GetNodeName())
	}
	if e := got.GetEventType(); e.GetType() != 1 || e.GetSubType() != 133 {
		t.Errorf("asked for drops: %v", e)
	}
	got = only(t, hubbletest.FlowAt(2, noon), &flowpb.FlowFilter{EventType: []*flowpb.EventTypeFilter{{Type: 4}}})
	if got.GetTraceObservationPoint() != flowpb.TraceObservationPoint_TO_ENDPOINT || got.GetTraceReason() != flowpb.TraceReason_NEW {
		t.Errorf("asked for traces: %v", got)
	}
}

// TestEachFieldOfAFilterWorksOrIsAnError gives each field of the module's FlowFilter a value that no flow has. A field that a later
// version of the module adds is an error that names it, until it is implemented.
func TestEachFieldOfAFilterWorksOrIsAnError(t *testing.T) {
	c := serve(t, hubbletest.New(some()[:4]...)) // without the reply
	fields := (&flowpb.FlowFilter{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		t.Run(string(fd.Name()), func(t *testing.T) {
			ff := &flowpb.FlowFilter{}
			set(ff.ProtoReflect(), fd)
			got, err := answerOf(t, c, &observerpb.GetFlowsRequest{Whitelist: []*flowpb.FlowFilter{ff}})
			checkFilter(t, string(fd.Name()), len(got), 0, err)
			got, err = answerOf(t, c, &observerpb.GetFlowsRequest{Blacklist: []*flowpb.FlowFilter{ff}})
			checkFilter(t, string(fd.Name()), len(got), 4, err)
		})
	}
}

// checkFilter checks that an answer has so many flows, or an error that names the field.
func checkFilter(t *testing.T, field string, got, want int, err error) {
	t.Helper()
	if err != nil {
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "."+field+":") {
			t.Errorf("got error %v, want InvalidArgument that names %s", err, field)
		}
		return
	}
	if got != want {
		t.Errorf("got %d flows, want %d", got, want)
	}
}

// set gives a field a value that passes for valid.
func set(m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if !fd.IsList() {
		sub := m.Mutable(fd).Message()
		set(sub, sub.Descriptor().Fields().Get(0))
		return
	}
	l := m.Mutable(fd).List()
	v := l.NewElement()
	switch fd.Kind() {
	case protoreflect.StringKind:
		v = protoreflect.ValueOfString(map[protoreflect.Name]string{
			"source_ip": "203.0.113.1", "destination_ip": "203.0.113.1", "source_port": "9999", "destination_port": "9999", "protocol": "sctp",
		}[fd.Name()])
		if v.String() == "" {
			v = protoreflect.ValueOfString("nothing-has-this")
		}
	case protoreflect.Uint32Kind:
		v = protoreflect.ValueOfUint32(99)
	case protoreflect.Uint64Kind:
		v = protoreflect.ValueOfUint64(99)
	case protoreflect.EnumKind:
		v = protoreflect.ValueOfEnum(map[protoreflect.Name]protoreflect.EnumNumber{
			"verdict": protoreflect.EnumNumber(flowpb.Verdict_AUDIT), "drop_reason_desc": 130, "ip_version": 2,
		}[fd.Name()])
	case protoreflect.MessageKind:
		for i := range v.Message().Descriptor().Fields().Len() {
			if sub := v.Message().Descriptor().Fields().Get(i); sub.Kind() == protoreflect.StringKind {
				v.Message().Set(sub, protoreflect.ValueOfString("nothing-has-this"))
			} else if sub.Name() == "type" {
				v.Message().Set(sub, protoreflect.ValueOfInt32(129))
			}
		}
	case protoreflect.BoolKind:
		v = protoreflect.ValueOfBool(true)
	default: // the zero value
	}
	l.Append(v)
}

func TestAFieldOfALaterVersionIsAnError(t *testing.T) {
	c := serve(t, hubbletest.New(some()...))
	for number, want := range map[protowire.Number]string{40: "whitelist[0].encrypted:", 99: "whitelist[0].field 99:"} {
		ff := &flowpb.FlowFilter{}
		ff.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 1))
		_, err := answerOf(t, c, &observerpb.GetFlowsRequest{Whitelist: []*flowpb.FlowFilter{ff}})
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), want) {
			t.Errorf("got error %v, want InvalidArgument with %q", err, want)
		}
	}
}

func TestInvalidFilters(t *testing.T) {
	c := serve(t, hubbletest.New(some()...))
	for name, ff := range map[string]*flowpb.FlowFilter{
		"source_ip":         {SourceIp: []string{"10.0.0"}},
		"source_pod":        {SourcePod: []string{""}},
		"destination_port":  {DestinationPort: []string{"65536"}},
		"destination_label": {DestinationLabel: []string{"a=b=c"}},
		"destination_fqdn":  {DestinationFqdn: []string{"a b"}},
		"protocol":          {Protocol: []string{"http"}},
		"verdict":           {Verdict: []flowpb.Verdict{flowpb.Verdict_REDIRECTED}},
		"event_type":        {EventType: []*flowpb.EventTypeFilter{{Type: 129}}},
		"node_name":         {NodeName: []string{"east/node-1"}},
		"source_port":       {SourcePort: []string{"1"}},
	} {
		_, err := answerOf(t, c, &observerpb.GetFlowsRequest{Blacklist: []*flowpb.FlowFilter{ff}})
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "blacklist[0]."+name+":") {
			t.Errorf("got error %v, want InvalidArgument that names %s", err, name)
		}
	}
}
