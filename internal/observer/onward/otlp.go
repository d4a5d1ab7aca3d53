package onward

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/sink"
)

// OTLPOptions say where flows go as OTLP logs.
type OTLPOptions struct {
	// Endpoint is the URL of a receiver: over HTTP its base, such as http://collector.monitoring:4318, to which /v1/logs is added, and over
	// gRPC one without a path, such as http://collector.monitoring:4317.
	Endpoint string
	// Header of each request, such as Authorization.
	Header http.Header
	// Version of the observer.
	Version string
}

// url parses the endpoint; port is the protocol's usual one.
func (o *OTLPOptions) url(port string) (*url.URL, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not a valid OTLP endpoint: it has the form http://HOST:%s or https://HOST:%[2]s", o.Endpoint, port)
	}
	return u, nil
}

// OTLP is a sink that sends flows as OTLP logs, in binary protobuf over HTTP.
func OTLP(o OTLPOptions) (sink.Sink, error) {
	u, err := o.url("4318")
	if err != nil {
		return nil, err
	}
	header := o.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/x-protobuf")
	return sink.HTTP(sink.HTTPOptions{
		Name: "otlp", URL: u.JoinPath("v1", "logs").String(), Header: header, Refused: refused,
		Body: func(lines [][]byte) ([]byte, error) { return request(lines, o.Version, time.Now()) },
	}), nil
}

// request is an ExportLogsServiceRequest. It has the same form as LogsData, whose package needs no gateway.
func request(lines [][]byte, version string, now time.Time) ([]byte, error) {
	records := make([]*logspb.LogRecord, len(lines))
	for i, line := range lines {
		r, err := record(line)
		if err != nil {
			return nil, err
		}
		r.ObservedTimeUnixNano = uint64(now.UnixNano())
		records[i] = r
	}
	return proto.Marshal(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		Resource: &resourcepb.Resource{Attributes: attributes(map[string]any{
			"service.name": "kidoban-observer", "service.version": version,
		})},
		ScopeLogs: []*logspb.ScopeLogs{{
			Scope: &commonpb.InstrumentationScope{Name: "github.com/kidoban/kidoban", Version: version}, LogRecords: records,
		}},
	}}})
}

// eventName of a record that is a flow.
const eventName = "kidoban.flow"

// record is the flow of a line: with all of it in its body, and attributes to search by.
func record(line []byte) (*logspb.LogRecord, error) {
	var f observerapi.Flow
	if err := json.Unmarshal(line, &f); err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal(line, &all); err != nil {
		return nil, err
	}
	severity, name := logspb.SeverityNumber_SEVERITY_NUMBER_INFO, "INFO"
	if f.Verdict != observerapi.Allowed {
		severity, name = logspb.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	return &logspb.LogRecord{
		TimeUnixNano: uint64(f.Last.UnixNano()), SeverityNumber: severity, SeverityText: name, EventName: eventName,
		Body: value(all), Attributes: attributes(attributesOf(&f)),
	}, nil
}

func attributesOf(f *observerapi.Flow) map[string]any {
	out := map[string]any{
		"kidoban.verdict": string(f.Verdict), "kidoban.sides": string(f.Sides), "kidoban.connections": float64(f.Connections),
		"network.transport": strings.ToLower(f.Protocol), "destination.port": float64(f.Port), "kidoban.service": f.Service,
	}
	for side, e := range map[string]*observerapi.End{"source": &f.Source, "destination": &f.Destination} {
		if e.Address.IsValid() {
			out[side+".address"] = e.Address.String()
		}
		prefix := "kidoban." + side + "."
		out[prefix+"namespace"], out[prefix+"pod"], out[prefix+"node"] = e.Namespace, e.Pod, e.Node
		if e.Workload != nil {
			out[prefix+"workload.kind"], out[prefix+"workload.name"] = e.Workload.Kind, e.Workload.Name
		}
	}
	for direction, d := range map[string]*observerapi.Decision{"egress": f.Egress, "ingress": f.Ingress} {
		if d == nil {
			continue
		}
		prefix := "kidoban." + direction + "."
		out[prefix+"verdict"], out[prefix+"reason"], out[prefix+"tier"] = string(d.Verdict), d.Reason, d.Tier
		if d.Policy != nil {
			out[prefix+"policy"] = d.Policy.PolicyRef.String()
		}
	}
	return out
}

// attributes are values by name, less the empty ones, in the order of names.
func attributes(values map[string]any) []*commonpb.KeyValue {
	var out []*commonpb.KeyValue
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if v := values[k]; v != "" && v != float64(0) {
			out = append(out, &commonpb.KeyValue{Key: k, Value: value(v)})
		}
	}
	return out
}

// value of JSON as OTLP has it.
func value(v any) *commonpb.AnyValue {
	switch v := v.(type) {
	case string:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}
	case bool:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v}}
	case float64: // all numbers of a flow are integers
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: int64(v)}}
	case []any:
		list := &commonpb.ArrayValue{}
		for _, e := range v {
			list.Values = append(list.Values, value(e))
		}
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: list}}
	case map[string]any:
		list := &commonpb.KeyValueList{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list.Values = append(list.Values, &commonpb.KeyValue{Key: k, Value: value(v[k])})
		}
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: list}}
	}
	return &commonpb.AnyValue{}
}

// Numbers of fields of an answer: ExportLogsServiceResponse.partial_success, and rejected_log_records in that.
const (
	fieldPartialSuccess protowire.Number = 1
	fieldRejected       protowire.Number = 1
)

// refused reads how many records a receiver left out.
func refused(answer []byte) int {
	partial, ok := field(answer, fieldPartialSuccess, protowire.BytesType)
	if !ok {
		return 0
	}
	partial, _ = protowire.ConsumeBytes(partial)
	rejected, ok := field(partial, fieldRejected, protowire.VarintType)
	if !ok {
		return 0
	}
	n, _ := protowire.ConsumeVarint(rejected)
	return int(min(n, 1<<30))
}

// field returns what follows the tag of a field in a message.
func field(message []byte, number protowire.Number, kind protowire.Type) ([]byte, bool) {
	for len(message) > 0 {
		got, gotKind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, false
		}
		message = message[n:]
		if got == number && gotKind == kind {
			return message, true
		}
		if n = protowire.ConsumeFieldValue(got, gotKind, message); n < 0 {
			return nil, false
		}
		message = message[n:]
	}
	return nil, false
}
