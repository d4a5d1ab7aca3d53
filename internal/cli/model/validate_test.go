package model

import (
	"strings"
	"testing"
)

// Each field error of networking/v1, in the API server's words.
func TestPoliciesThatTheAPIServerRejects(t *testing.T) {
	const selector = "podSelector: {}"
	ingress := func(rule string) string { return selector + ", ingress: [" + rule + "]" }
	egress := func(rule string) string { return selector + ", egress: [" + rule + "]" }
	for spec, want := range map[string]string{
		selector + ", policyTypes: [ingress]":                                          `spec.policyTypes[0]: Unsupported value: "ingress": supported values: "Ingress", "Egress"`,
		selector + ", policyTypes: [Ingress, Egress, Ingress]":                         "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes",
		"podSelector: {matchLabels: {app: \"no spaces\"}}":                             "spec.podSelector.matchLabels: Invalid value: \"no spaces\"",
		"podSelector: {matchExpressions: [{key: app, operator: in, values: [a]}]}":     "spec.podSelector.matchExpressions[0].operator: Invalid value: \"in\": not a valid selector operator",
		"podSelector: {matchExpressions: [{key: app, operator: In}]}":                  "spec.podSelector.matchExpressions[0].values: Required value",
		"podSelector: {matchExpressions: [{key: app, operator: Exists, values: [a]}]}": "spec.podSelector.matchExpressions[0].values: Forbidden",
		ingress("{ports: [{port: 80, protocol: tcp}]}"):                                `spec.ingress[0].ports[0].protocol: Unsupported value: "tcp"`,
		ingress("{ports: [{protocol: ICMP}]}"):                                         `spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP"`,
		ingress("{ports: [{port: 0}]}"):                                                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535",
		ingress("{ports: [{port: 70000}]}"):                                            "spec.ingress[0].ports[0].port: Invalid value: 70000",
		ingress("{ports: [{port: \"80\"}]}"):                                           "spec.ingress[0].ports[0].port: Invalid value: \"80\": must contain at least one letter",
		ingress("{ports: [{port: a-name-that-is-too-long}]}"):                          "must be no more than 15 characters",
		ingress("{ports: [{endPort: 90}]}"):                                            "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is not specified",
		ingress("{ports: [{port: http, endPort: 90}]}"):                                "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
		ingress("{ports: [{port: 90, endPort: 80}]}"):                                  "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
		ingress("{from: [{}]}"):                                                        "spec.ingress[0].from[0]: Required value: must specify a peer",
		ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}"):            "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
		egress("{to: [{namespaceSelector: {}}, {ipBlock: {cidr: \"\"}}]}"):             "spec.egress[0].to[1].ipBlock.cidr: Required value",
		egress("{to: [{ipBlock: {cidr: 10.0.0.1}}]}"):                                  "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.1\": must be a valid CIDR value",
		egress("{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}"):         "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
		egress("{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}"):          "must be a strict subset of `cidr`",
		egress("{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [\"fd00::/64\"]}}]}"):       "must be a strict subset of `cidr`",
		egress("{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}"):                   "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"x\": must be a valid CIDR value",
		egress("{to: [{namespaceSelector: {matchLabels: {\"a b\": c}}}]}"):             "spec.egress[0].to[0].namespaceSelector.matchLabels: Invalid value",
	} {
		text := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {" + spec + "}\n"
		c := mustRead(t, text)
		if err := c.InvalidPolicies(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "NetworkPolicy here/p") {
			t.Errorf("%s:\n%v\nwant\n%s", spec, err, want)
		}
	}
	for _, spec := range []string{
		selector, selector + ", policyTypes: [Egress, Ingress]", selector + ", policyTypes: [Ingress, Ingress]", ingress("{}"), ingress("{from: [], ports: []}"),
		ingress("{ports: [{port: 1, endPort: 65535, protocol: SCTP}, {port: http}, {protocol: UDP}]}"),
		egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 10.1.0.0/16]}}, {ipBlock: {cidr: \"::/0\", except: [\"fc00::/7\"]}}]}"),
		"podSelector: {matchExpressions: [{key: app.kubernetes.io/name, operator: NotIn, values: [a]}, {key: b, operator: DoesNotExist}]}",
	} {
		c := mustRead(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {"+spec+"}\n")
		if err := c.InvalidPolicies(); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
	for name, want := range map[string]string{"Upper": "metadata.name: Invalid value", "\"\"": "metadata.name: Required value"} {
		c := mustRead(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: "+name+"}\nspec: {podSelector: {}}\n")
		if err := c.InvalidPolicies(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Blocks that Kubernetes took until 1.35 are valid, with a warning.
func TestBlocksThatNewerServersReject(t *testing.T) {
	for cidr, want := range map[string]string{"10.0.0.1/8": "10.0.0.0/8", "010.0.0.0/8": "10.0.0.0/8", "10.0.0.0/8": "", "fd00::1/64": "fd00::/64"} {
		c := mustRead(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: \""+cidr+"\"}}]}]}\n")
		if err := c.InvalidPolicies(); err != nil {
			t.Error(err)
		}
		warnings := strings.Join(PolicyWarnings(&c.Policies[0]), "\n")
		if (warnings == "") != (want == "") || !strings.Contains(warnings, want) {
			t.Errorf("%s: %q", cidr, warnings)
		}
	}
}
