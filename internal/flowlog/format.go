package flowlog

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/plain"
)

// Format is how a line is written.
type Format string

// The formats. docs/flow-log.md describes both.
const (
	Text Format = "text" // Node: …;SIP: …;PolicyVerdict: DENY;Tier: … as users of Amazon's agent know it, and more
	JSON Format = "json" // an agentapi.Event
)

// ParseFormat reads a Format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Text, JSON:
		return f, nil
	}
	return "", fmt.Errorf("%q is not a format: text or json", s)
}

// tiers are the names of tiers in the text format, as users of Amazon's agent know them, by agentapi's. DEFAULT: no policy decided.
var tiers = map[string]string{
	"Admin": "ADMIN", "NetworkPolicy": "NETWORK_POLICY", "Baseline": "BASELINE", "": "DEFAULT",
}

// Line writes an event as one line, with its line feed.
func (f Format) Line(e *agentapi.Event) ([]byte, error) {
	if f == JSON {
		b, err := json.Marshal(e)
		return append(b, '\n'), err
	}
	var t textLine
	t.field("Node", e.Node)
	t.field("SIP", address(e.Source.IP))
	t.field("SPORT", strconv.Itoa(int(e.Source.Port)))
	t.field("DIP", address(e.Destination.IP))
	t.field("DPORT", strconv.Itoa(int(e.Destination.Port)))
	t.field("PROTOCOL", e.Protocol)
	t.field("PolicyVerdict", e.Verdict)
	t.field("Tier", tiers[e.Tier])
	// From here on the keys are ours.
	t.field("Time", e.Time.UTC().Format(time.RFC3339Nano))
	t.field("Direction", e.Direction)
	t.field("Reason", e.Reason)
	if e.Policy != nil {
		t.field("Policy", e.Policy.String())
		t.known("RuleName", e.Policy.RuleName)
		t.known("Rules", join(e.Policy.Rules, func(i int32) string { return strconv.Itoa(int(i)) }))
	}
	if m := e.NameMiss; m != nil {
		t.field("NameMiss", m.Reason)
		t.known("NameMissName", m.Name)
	}
	t.known("IsolatedBy", join(e.IsolatedBy, agentapi.PolicyRef.String))
	t.known("Audited", join(e.Audited, agentapi.PolicyRef.String))
	t.end("Src", &e.Source)
	t.end("Dst", &e.Destination)
	t.known("DName", strings.Join(e.Destination.DomainNames, ","))
	if o := e.OriginalDestination; o != nil {
		t.field("OriginalDst", netip.AddrPortFrom(o.IP, o.Port).String())
	}
	t.field("Count", strconv.FormatUint(e.Count, 10))
	t.field("Bytes", strconv.FormatUint(e.Bytes, 10))
	if e.First != nil {
		t.field("First", e.First.UTC().Format(time.RFC3339Nano))
	}
	if e.Unlisted {
		t.field("Unlisted", "true")
	}
	return append(t, '\n'), nil
}

// textLine is a line of fields. Names come from objects that tenants write: they contain neither control characters nor
// the separator.
type textLine []byte

func (t *textLine) field(key, value string) {
	if len(*t) > 0 {
		*t = append(*t, ';')
	}
	*t = append(*t, key...)
	*t = append(*t, ": "...)
	*t = append(*t, strings.ReplaceAll(plain.Line(value), ";", "_")...)
}

// known is a field that a line has only where there is something to say.
func (t *textLine) known(key, value string) {
	if value != "" {
		t.field(key, value)
	}
}

func (t *textLine) end(side string, e *agentapi.Endpoint) {
	if e.Pod != "" {
		t.field(side+"Pod", e.Namespace+"/"+e.Pod)
	}
	if e.Workload != nil {
		t.field(side+"Workload", e.Workload.Kind+" "+e.Workload.Name)
	}
}

func join[T any](list []T, text func(T) string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = text(v)
	}
	return strings.Join(parts, ",")
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
