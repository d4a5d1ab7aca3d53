package lint

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"slices"
	"strings"
	"testing"
)

// Each check has a heading, which is the anchor that its findings link to.
func TestEachCheckIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/cli/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if !bytes.Contains(page, []byte("\n### "+c.name+"\n")) {
			t.Errorf("docs/cli/lint.md has no heading ### %s", c.name)
		}
	}
}

// What an annotation names is left out and counted; a name that no check has is found.
func TestAnnotationsLeaveFindingsOut(t *testing.T) {
	const policy = `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: a, annotations: {kidoban.dev/lint-ignore: "NAMES"}}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}, {from: [{podSelector: {matchLabels: {app: wbe}}}]}]}
`
	for names, want := range map[string]struct {
		checks     []string
		suppressed int
	}{
		"":                                 {[]string{"open-peer", "peer-matches-nothing"}, 0},
		"open-peer":                        {[]string{"peer-matches-nothing"}, 1},
		" open-peer ,peer-matches-nothing": {nil, 2},
		"open-pear":                        {[]string{"open-peer", "peer-matches-nothing", "unknown-check"}, 0},
		"open-pear,unknown-check":          {[]string{"open-peer", "peer-matches-nothing"}, 1},
	} {
		found, suppressed := Run(read(t, good+strings.Replace(policy, "NAMES", names, 1)), Options{})
		var got []string
		for _, f := range found {
			got = append(got, f.Check)
		}
		slices.Sort(got)
		if !slices.Equal(got, want.checks) || suppressed != want.suppressed {
			t.Errorf("%q: %v and %d left out, want %v and %d", names, got, suppressed, want.checks, want.suppressed)
		}
	}
	const ns = `
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a}, spec: {containers: [{name: web}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: a, annotations: {kidoban.dev/lint-ignore: no-default-deny}}}
`
	if found, suppressed := Run(read(t, ns), Options{}); len(found) > 0 || suppressed == 0 {
		t.Errorf("of a namespace: %+v and %d left out", found, suppressed)
	}
}

// A finding has the line of its field, also in a List, in JSON and behind an alias.
func TestFindingsHaveLines(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line int
	}{
		"block style":                {"# comment\n\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: a\nspec:\n  podSelector: {}\n  ingress:\n  - ports:\n    - port: 1\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/40\n", 15},
		"second document, with CRLF": {"kind: Namespace\r\napiVersion: v1\r\nmetadata: {name: a}\r\n---\r\napiVersion: networking.k8s.io/v1\r\nkind: NetworkPolicy\r\nmetadata: {name: p, namespace: a}\r\nspec:\r\n  podSelector: {}\r\n  ingress:\r\n  - from: [{ipBlock: {cidr: 10.0.0.0/40}}]\r\n", 11},
		"List":                       {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: p, namespace: a}\n  spec:\n    podSelector: {}\n    ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/40}}]}]\n", 10},
		"JSON":                       {"{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\"}}\n\n{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\",\n \"metadata\": {\"name\": \"p\", \"namespace\": \"a\"},\n \"spec\": {\"podSelector\": {}, \"ingress\": [\n  {\"from\": [{\"ipBlock\": {\"cidr\": \"10.0.0.0/40\"}}]}]}}\n", 6},
		"alias":                      {"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec:\n  podSelector: {}\n  egress:\n  - to: &peers\n    - ipBlock: {cidr: 10.0.0.0/40}\n  ingress:\n  - from: *peers\n", 8},
	} {
		found := findings(read(t, tc.text), Options{})
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.Check == "invalid" && f.File == "test" && f.Line == tc.line }) {
			t.Errorf("%s: no finding at line %d: %+v", name, tc.line, found)
		}
	}
}

// The reports for machines are what their formats ask for, and have all findings.
func TestReportsForMachines(t *testing.T) {
	r := &Report{Findings: findings(read(t, strings.Replace(good, "port: http}]\n  egress", "port: https}]\n  egress", 1)), Options{}), objects: []string{"NetworkPolicy a/web", "NetworkPolicy a/default-deny"}}
	var out bytes.Buffer
	if err := r.sarif(&out); err != nil {
		t.Fatal(err)
	}
	var log sarifLog
	if err := json.Unmarshal(out.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if len(run.Results) != 1 || run.Results[0].RuleID != "named-port" || run.Results[0].Level != "warning" || run.Results[0].Locations[0].Physical.Region.StartLine == 0 ||
		!slices.ContainsFunc(run.Tool.Driver.Rules, func(r sarifRule) bool { return r.ID == "named-port" && strings.HasSuffix(r.HelpURI, "#named-port") }) {
		t.Errorf("%s", out.String())
	}
	for failing, want := range map[bool]int{true: 1, false: 0} {
		out.Reset()
		if err := r.junit(&out, func(Finding) bool { return failing }); err != nil {
			t.Fatal(err)
		}
		var suite junitSuite
		if err := xml.Unmarshal(out.Bytes(), &suite); err != nil {
			t.Fatal(err)
		}
		if suite.Tests != 2 || suite.Failures != want || len(suite.Cases[0].Failures) != want || (suite.Cases[0].Out == "") != failing {
			t.Errorf("%s", out.String())
		}
	}
}
