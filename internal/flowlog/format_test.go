package flowlog

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

var update = flag.Bool("update", false, "write testdata anew")

// directory knows a frontend, its rule 7, and set 3.
type directory struct{ gone bool }

func (d directory) Pod(addr netip.Addr, _ time.Time) (Pod, bool) {
	pods := map[string]Pod{
		"10.0.1.7": {Namespace: "shop", Name: "frontend-6d4b-x2x", Workload: &agentapi.Workload{Kind: "Deployment", Name: "frontend"}},
		"10.0.2.9": {Namespace: "shop", Name: "cart-0", Workload: &agentapi.Workload{Kind: "StatefulSet", Name: "cart"}},
		"fd00::7":  {Namespace: "shop", Name: "bare"},
	}
	p, ok := pods[addr.String()]
	return p, ok && !d.gone
}

func (d directory) Rule(id compiler.RuleID) (agentapi.RuleRef, bool) {
	ref := agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "frontend"}, Rules: []int32{0, 2}}
	if id == 8 {
		ref = agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "tenants"}, RuleName: "no metadata", Rules: []int32{4}}
	}
	return ref, (id == 7 || id == 8) && !d.gone
}

func (d directory) Isolating(set compiler.SetID) []agentapi.PolicyRef {
	if set != 3 || d.gone {
		return nil
	}
	return []agentapi.PolicyRef{
		{Kind: "NetworkPolicy", Namespace: "shop", Name: "default-deny"},
		{Kind: "NetworkPolicy", Namespace: "shop", Name: "frontend"},
	}
}

func (directory) DomainNames(addr netip.Addr) []string {
	if addr == netip.MustParseAddr("203.0.113.9") {
		return []string{"a.example", "b.example", "c.example", "d.example"}
	}
	return nil
}

func (directory) NameMiss(set compiler.SetID, f policy.Flow) *agentapi.NameMiss {
	if set == 9 && f.Destination == netip.MustParseAddr("203.0.113.7") && f.Port == 443 {
		return &agentapi.NameMiss{Reason: agentapi.NameMissExpired, Name: "api.example.com"}
	}
	return nil
}

func (d directory) Audited(set compiler.SetID) ([]agentapi.PolicyRef, bool) {
	if set == 4 && !d.gone {
		return []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "staged"}, {Kind: "ClusterNetworkPolicy", Name: "tenants"}}, true
	}
	return nil, !d.gone
}

var at = time.Date(2026, 11, 22, 10, 30, 0, 123456789, time.UTC)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// events by the name of their golden files.
var samples = map[string]events.Event{
	"accept-by-rule": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Egress, Source: addrPort("10.0.1.7:41234"), Destination: addrPort("10.0.2.9:8080"),
		OriginalDestination: addrPort("10.100.0.5:80"), Protocol: policy.TCP,
		Verdict: events.Allow, Reason: events.ReasonRule, Tier: policy.TierNetworkPolicy, Rule: 7, Set: 3,
	},
	"denied-after-a-name-expired": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Egress, Source: addrPort("10.0.1.7:41234"), Destination: addrPort("203.0.113.7:443"),
		Protocol: policy.TCP, Verdict: events.Deny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: 9,
	},
	"default-deny": {
		Time: at, First: at, Packets: 1, Bytes: 73, Direction: policy.Egress, Source: addrPort("10.0.1.7:41234"), Destination: addrPort("10.0.9.9:53"),
		OriginalDestination: addrPort("10.0.9.9:53"), Protocol: policy.UDP,
		Verdict: events.Deny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: 3,
	},
	"audit-ipv6-icmp": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Ingress, Source: addrPort("[2001:db8::1]:0"), Destination: addrPort("[fd00::7]:0"), Protocol: policy.ICMPv6,
		Verdict: events.AuditDeny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: 3,
	},
	"audited-policies-would-deny": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Ingress, Source: addrPort("10.0.9.9:41234"), Destination: addrPort("10.0.1.7:80"), Protocol: policy.TCP,
		Verdict: events.AuditDeny, Reason: events.ReasonRule, Tier: policy.TierAdmin, Rule: 8, Set: 4,
	},
	"audited-policies-would-allow": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Ingress, Source: addrPort("10.0.9.9:41234"), Destination: addrPort("10.0.1.7:80"), Protocol: policy.TCP,
		Verdict: events.AuditAllow, Reason: events.ReasonRule, Tier: policy.TierNetworkPolicy, Rule: 7, Set: 4,
	},
	"audited-policies-would-allow-by-default": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Ingress, Source: addrPort("10.0.9.9:41234"), Destination: addrPort("10.0.1.7:80"), Protocol: policy.TCP,
		Verdict: events.AuditAllow, Reason: events.ReasonDefault, Tier: policy.TierBaseline, Set: 4,
	},
	"map-full": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Ingress, Source: addrPort("10.0.9.9:999"), Destination: addrPort("10.0.1.7:80"), Protocol: policy.TCP,
		Verdict: events.Deny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: dataplane.DenyAll,
	},
	"nothing-could-be-read": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Egress, Source: addrPort("0.0.0.0:0"), Destination: addrPort("0.0.0.0:0"),
		Verdict: events.Deny, Reason: events.ReasonUnparsable,
	},
	"repeats": {
		Time: at, First: at.Add(-30 * time.Second), Packets: 17, Bytes: 1241, Direction: policy.Egress, Source: addrPort("10.0.1.7:0"), Destination: addrPort("10.0.9.9:53"),
		OriginalDestination: addrPort("10.100.0.10:53"), Protocol: policy.UDP,
		Verdict: events.Deny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: 3,
	},
	"unlisted": {
		Time: at, First: at.Add(-30 * time.Second), Packets: 100_000, Bytes: 6_000_000, Unlisted: true, Direction: policy.Egress,
		Source: addrPort("10.0.1.7:0"), Destination: addrPort("[::]:0"),
		Verdict: events.Deny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: 3,
	},
	"unlisted-by-rules": {
		Time: at, First: at.Add(-30 * time.Second), Packets: 20_000, Bytes: 1_200_000, Unlisted: true, Direction: policy.Ingress,
		Source: addrPort("[::]:0"), Destination: addrPort("10.0.1.7:0"),
		Verdict: events.Allow, Reason: events.ReasonRule, Tier: policy.TierNetworkPolicy, Set: 3,
	},
	"denied-by-cluster-policy": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Egress, Source: addrPort("10.0.1.7:41234"), Destination: addrPort("169.254.169.254:80"), Protocol: policy.TCP,
		Verdict: events.Deny, Reason: events.ReasonRule, Tier: policy.TierAdmin, Rule: 8, Set: 3,
	},
	"denied-by-baseline": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Ingress, Source: addrPort("10.0.9.9:41234"), Destination: addrPort("10.0.1.7:80"), Protocol: policy.TCP,
		Verdict: events.Deny, Reason: events.ReasonRule, Tier: policy.TierBaseline, Rule: 8, Set: 3,
	},
	"allowed-by-default": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Egress, Source: addrPort("10.0.1.7:41234"), Destination: addrPort("10.0.9.9:443"), Protocol: policy.TCP,
		Verdict: events.Allow, Reason: events.ReasonDefault, Tier: policy.TierBaseline, Set: 3,
	},
	"names-are-gone": {
		Time: at, First: at, Packets: 1, Bytes: 60, Direction: policy.Egress, Source: addrPort("10.0.1.99:41234"), Destination: addrPort("10.0.9.9:443"), Protocol: 47,
		Verdict: events.Allow, Reason: events.ReasonRule, Tier: policy.TierBaseline, Rule: 1000, Set: 1000,
	},
}

func TestLines(t *testing.T) {
	r := NewRecorder("ip-10-0-1-1", directory{})
	for name, e := range samples {
		for _, f := range []Format{Text, JSON} {
			t.Run(name+"."+string(f), func(t *testing.T) {
				event := r.Record(&e)
				got, err := f.Line(&event)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, name+"."+string(f), got)
				if f == JSON {
					var back agentapi.Event
					if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, event) {
						t.Errorf("reads back as %+v, %v; want %+v", back, err, event)
					}
				}
			})
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestANameCannotForgeFieldsOrLines(t *testing.T) {
	e := agentapi.Event{Policy: &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "K;PolicyVerdict: ACCEPT", Name: "a\nNode: b"}}}
	got, err := Text.Line(&e)
	if err != nil {
		t.Fatal(err)
	}
	const want = "Node: ;SIP: ;SPORT: 0;DIP: ;DPORT: 0;PROTOCOL: ;PolicyVerdict: ;Tier: DEFAULT;Time: 0001-01-01T00:00:00Z;Direction: ;Reason: ;" +
		"Policy: K_PolicyVerdict: ACCEPT a_Node: b;Count: 0;Bytes: 0\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestNamesOutliveTheirPolicy(t *testing.T) {
	r := NewRecorder("node", directory{})
	accept, deny := samples["accept-by-rule"], samples["default-deny"]
	before, beforeDeny := r.Record(&accept), r.Record(&deny)
	r.directory = directory{gone: true}
	after, afterDeny := r.Record(&accept), r.Record(&deny)
	if !reflect.DeepEqual(after.Policy, before.Policy) || after.Policy == nil {
		t.Errorf("policy %+v, before %+v", after.Policy, before.Policy)
	}
	if !reflect.DeepEqual(afterDeny.IsolatedBy, beforeDeny.IsolatedBy) || afterDeny.IsolatedBy == nil {
		t.Errorf("isolated by %+v, before %+v", afterDeny.IsolatedBy, beforeDeny.IsolatedBy)
	}
}

// A line has the DNS names of an address outside the cluster in the direction in which policies can name it.
func TestNamesOfADestination(t *testing.T) {
	e := &events.Event{Time: time.Unix(0, 0), Direction: policy.Egress, Source: netip.MustParseAddrPort("10.0.0.1:4000"), Destination: netip.MustParseAddrPort("203.0.113.9:443"), Protocol: policy.TCP, Packets: 1}
	r := NewRecorder("node", directory{})
	out := r.Record(e)
	line, err := Text.Line(&out)
	if err != nil || !strings.Contains(string(line), ";DName: a.example,b.example,c.example;") {
		t.Errorf("%s, %v", line, err)
	}
	e.Direction = policy.Ingress
	if out = r.Record(e); out.Destination.DomainNames != nil {
		t.Errorf("ingress: %v", out.Destination.DomainNames)
	}
}
