package flowlog

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/plain"
	"github.com/kidoban/kidoban/internal/policy"
)

const hostile = "a\nNode: x;b\x1b[2J\u009b31m\u2028\u202e\u2066c"

// hostileDirectory has names that no API server admits, and owners' names, which it does.
type hostileDirectory struct{}

func (hostileDirectory) Pod(netip.Addr, time.Time) (Pod, bool) {
	return Pod{Namespace: hostile, Name: hostile, Workload: &agentapi.Workload{Kind: hostile, Name: hostile}}, true
}

func (hostileDirectory) Rule(compiler.RuleID) (agentapi.RuleRef, bool) {
	return agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: hostile, Namespace: hostile, Name: hostile}, RuleName: hostile}, true
}

func (hostileDirectory) Isolating(compiler.SetID) []agentapi.PolicyRef {
	return []agentapi.PolicyRef{{Kind: hostile, Namespace: hostile, Name: hostile}}
}

func (hostileDirectory) DomainNames(netip.Addr) []string { return nil }

func (hostileDirectory) NameMiss(compiler.SetID, policy.Flow) *agentapi.NameMiss {
	return &agentapi.NameMiss{Reason: agentapi.NameMissOther, Name: hostile}
}

func (hostileDirectory) Audited(compiler.SetID) ([]agentapi.PolicyRef, bool) {
	return []agentapi.PolicyRef{{Kind: hostile, Namespace: hostile, Name: hostile}}, true
}

// No name brings a control character into the log, in either format, nor a field of its own.
func TestNamesWithControlCharacters(t *testing.T) {
	recorder := NewRecorder(hostile, hostileDirectory{})
	for _, reason := range []events.Reason{events.ReasonRule, events.ReasonDefault} {
		e := events.Event{Source: addrPort("10.0.1.7:1"), Destination: addrPort("10.0.2.9:2"), Protocol: policy.TCP, Reason: reason, Rule: 7, Set: 3, Packets: 1}
		record := recorder.Record(&e)
		for _, format := range []Format{Text, JSON} {
			line, err := format.Line(&record)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := strings.CutSuffix(string(line), "\n")
			if plain.Line(text) != text {
				t.Errorf("%s: %q", format, text)
			}
			if format == Text && strings.Count(text, "Node: x;") > 0 {
				t.Errorf("a field of a name's own: %q", text)
			}
			if format == JSON {
				var decoded map[string]any
				if err := json.Unmarshal(line, &decoded); err != nil {
					t.Fatal(err)
				}
				visit(t, decoded)
			}
		}
	}
}

// visit looks at every string of a JSON value.
func visit(t *testing.T, v any) {
	t.Helper()
	switch v := v.(type) {
	case string:
		if plain.Line(v) != v {
			t.Errorf("JSON has %q", v)
		}
	case []any:
		for _, e := range v {
			visit(t, e)
		}
	case map[string]any:
		for _, e := range v {
			visit(t, e)
		}
	}
}
