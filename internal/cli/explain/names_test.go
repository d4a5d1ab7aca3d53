package explain

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
)

const named = `
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: client}]}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: open, namespace: tools}
spec: {containers: [{name: client}]}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.0.3, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  egress:
  - {name: not-these, action: Deny, to: [{networks: [203.0.113.0/24]}], protocols: [{tcp: {destinationPort: {number: 80}}}]}
  - {name: vendor, action: Accept, to: [{domainNames: [API.Vendor.example., "*.cdn.example"]}], protocols: [{tcp: {destinationPort: {number: 443}}}, {tcp: {destinationPort: {number: 80}}}]}
  - {name: rest, action: Deny, to: [{networks: [0.0.0.0/0]}]}
`

func TestANameAsTarget(t *testing.T) {
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("named", strings.NewReader(named)); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		from, to string
		verdict  Verdict
		rule     string
	}{
		{"shop/client", "api.vendor.example:443", Allowed, "vendor"},
		{"shop/client", "Api.Vendor.Example.:443", Allowed, "vendor"},
		{"shop/client", "a.b.cdn.example:443", Allowed, "vendor"},
		{"shop/client", "cdn.example:443", Denied, "rest"},
		{"shop/client", "api.vendor.example:22", Denied, "rest"},
		{"shop/client", "other.example:443", Denied, "rest"},
		{"tools/open", "other.example:443", Allowed, ""},
		{"192.0.2.9", "other.example:443", Allowed, ""},
		{"shop/client", "web.shop.svc.cluster.local:80", Denied, "rest"},
	} {
		answer, err := Ask(c, "default", tc.from, tc.to)
		if err != nil {
			t.Errorf("%s → %s: %v", tc.from, tc.to, err)
			continue
		}
		rule := ""
		if r := answer.Flows[0].Halves[0].Rule; r != nil {
			rule = r.Name
		}
		if answer.Verdict != tc.verdict || rule != tc.rule || len(answer.Flows) != 1 {
			t.Errorf("%s → %s: %s by %q, want %s by %q; %+v", tc.from, tc.to, answer.Verdict, rule, tc.verdict, tc.rule, answer.Flows)
		}
	}

	answer, err := Ask(c, "default", "shop/client", "api.vendor.example:80") // the name may have addresses that are denied
	if err != nil {
		t.Fatal(err)
	}
	if h := answer.Flows[0].Halves[0]; answer.Verdict != Depends || len(h.Depends) != 2 {
		t.Errorf("%s: %+v", answer.Verdict, h)
	}
	for to, want := range map[string]string{
		"api.vendor.example":       "a name needs a port, as api.vendor.example:443",
		"api.vendor.example:https": "port",
		"nosuch:443":               "no pod or workload",
	} {
		if _, err := Ask(c, "default", "shop/client", to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// With --live, what the node has learned decides about an address, and is listed for a name.
func TestWhatTheNodeHasLearned(t *testing.T) {
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("named", strings.NewReader(strings.Replace(named, "spec: {containers: [{name: client}]}", "spec: {nodeName: n1, containers: [{name: client}]}", 1))); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	says := func(string) (*said, error) {
		return &said{
			pods: []agentapi.Pod{{Namespace: "shop", Name: "client", State: agentapi.StateInForce}},
			names: []agentapi.LearnedName{
				{Name: "a.cdn.example", Pattern: "*.cdn.example", Addresses: []agentapi.LearnedAddress{
					{Address: netip.MustParseAddr("198.51.100.9"), Until: now.Add(time.Minute)}, {Address: netip.MustParseAddr("198.51.100.8"), Until: now.Add(-time.Minute)},
				}},
			},
		}, nil
	}
	for to, want := range map[string]struct {
		verdict Verdict
		learned string
	}{
		"198.51.100.9:443":  {Allowed, "198.51.100.9 is learned as a.cdn.example, and expires in 1m0s"},
		"198.51.100.8:443":  {Denied, "198.51.100.8 was learned as a.cdn.example, and has expired"},
		"198.51.100.7:443":  {Denied, ""},
		"198.51.100.9:22":   {Denied, ""},
		"a.cdn.example:443": {Allowed, "198.51.100.9 is learned as a.cdn.example, and expires in 1m0s; 198.51.100.8 was learned as a.cdn.example, and has expired"},
		"b.cdn.example:443": {Allowed, ""},
	} {
		answer, err := Ask(c, "default", "shop/client", to)
		if err != nil {
			t.Fatal(err)
		}
		if err := inForce(c, answer, says); err != nil {
			t.Fatal(err)
		}
		var learned []string
		for _, l := range answer.Flows[0].Halves[0].InForce.Learned {
			learned = append(learned, l.describe(now))
		}
		if got := strings.Join(learned, "; "); answer.Verdict != want.verdict || got != want.learned {
			t.Errorf("%s: %s, %q, want %s, %q", to, answer.Verdict, got, want.verdict, want.learned)
		}
		if noted := strings.Contains(strings.Join(answer.Flows[0].Notes, " "), "no address is known"); noted != (to == "b.cdn.example:443") {
			t.Errorf("%s: notes %q", to, answer.Flows[0].Notes)
		}
	}
}
