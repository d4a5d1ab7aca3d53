package lint

import (
	"slices"
	"strings"
	"testing"
)

// TestNameCases: of each check of domain names what it must find, as "severity path", and what it must not.
func TestNameCases(t *testing.T) {
	egress := func(rules ...string) string {
		return clusterPolicy("one", adminTeam+"egress: ["+strings.Join(rules, ", ")+"]")
	}
	names := func(list string) string {
		return "{name: names, action: Accept, to: [{domainNames: [" + list + "]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}"
	}
	service := func(name, spec string) string {
		return "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: shop}\nspec: {selector: {app: cart}, ports: [{port: 80}], " + spec + "}\n"
	}
	pod := func(spec string) string {
		return "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: other, namespace: team}\nspec: {containers: [{name: c}], " + spec + "}\nstatus: {phase: Running, podIP: 10.1.0.77}\n"
	}
	application := func(rules ...string) string {
		return "\n---\napiVersion: networking.k8s.aws/v1alpha1\nkind: ApplicationNetworkPolicy\nmetadata: {name: web, namespace: team}\n" +
			"spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [" + strings.Join(rules, ", ") + "]}\n"
	}
	const (
		first = "spec.egress[0].to[0].domainNames[0]"
		all4  = "to: [{networks: [0.0.0.0/0]}]"
	)
	for _, tc := range []struct {
		check, name, manifests string
		want                   string // severity path, or empty for no finding
	}{
		{"name-invalid", "an address", egress(names("10.0.0.1")), "error " + first},
		{"name-invalid", "brackets", egress(names(`"[b.example"`)), "error " + first},
		{"name-invalid", "a label that is too long", egress(names(strings.Repeat("a", 64) + ".example")), "error " + first},
		{"name-invalid", "twice", egress(names("a.example, b.example, A.example.")), "info spec.egress[0].to[0].domainNames[2]"},
		{"name-invalid", "underscores", egress(names("_sip._tcp.example.com")), ""},
		{"name-public-suffix", "of a country", egress(names(`"*.co.uk"`)), "warning " + first},
		{"name-public-suffix", "of a host", egress(names(`"*.github.io"`)), "warning " + first},
		{"name-public-suffix", "of a cloud", egress(names(`"*.amazonaws.com."`)), "warning " + first},
		{"name-public-suffix", "a name below", egress(names(`"*.example.co.uk", example.github.io`)), ""},
		{"name-of-service", "in full", egress(names("web.shop.svc.cluster.local")) + service("web", ""), "warning " + first},
		{"name-of-service", "of none that was read", egress(names("other.shop.svc")), "warning " + first},
		{"name-of-service", "all of them", egress(names(`"*.svc.cluster.local"`)), "warning " + first},
		{"name-of-service", "a headless one", egress(names("web.shop.svc.cluster.local")) + service("web", "clusterIP: None"), ""},
		{"name-of-service", "pods of a headless one", egress(names(`"*.web.shop.svc.cluster.local", web-0.web.shop.svc.cluster.local`)) + service("web", "clusterIP: None"), ""},
		{"name-of-service", "outside", egress(names("svc.example.com, web.shop.svc.example.com")), ""},
		{"name-useless", "beside a network for all", egress("{action: Accept, to: [{domainNames: [a.example]}, {networks: [0.0.0.0/0]}]}"), "warning spec.egress[0]"},
		{"name-useless", "before one", egress(names("a.example"), "{action: Accept, "+all4+"}"), "warning spec.egress[0]"},
		{"name-useless", "behind a Deny for all", egress("{action: Deny, "+all4+"}", names("a.example")), "error spec.egress[1]"},
		{"name-useless", "before a Deny for all", egress(names("a.example"), "{action: Deny, "+all4+"}"), ""},
		{"name-useless", "other ports", egress(names("a.example"), "{action: Accept, "+all4+", protocols: [{tcp: {destinationPort: {number: 80}}}]}"), ""},
		{"name-resolvers", "of the node", egress(names("a.example")) + pod("dnsPolicy: Default"), "warning spec.egress[0]"},
		{"name-resolvers", "of its own", egress(names("a.example")) + pod("dnsPolicy: None, dnsConfig: {nameservers: [9.9.9.9]}"), "warning spec.egress[0]"},
		{"name-resolvers", "the cluster's DNS as its own", egress(names("a.example")) + pod("dnsPolicy: None, dnsConfig: {nameservers: [10.1.0.3]}"), ""},
		{"name-resolvers", "without names", egress("{action: Deny, "+all4+"}") + pod("dnsPolicy: Default"), ""},
		{"name-encrypted-dns", "a resolver's name", egress(names("dns.google")), "info " + first},
		{"name-encrypted-dns", "DNS over TLS", egress(names("a.example"), "{action: Accept, "+all4+", protocols: [{tcp: {destinationPort: {number: 853}}}]}"), "info spec.egress[1]"},
		{"name-encrypted-dns", "neither", egress(names("a.example")), ""},
		{"name-searched", "a wildcard", egress(names(`"*.corp.example"`)) + pod("dnsConfig: {searches: [corp.example]}"), "warning " + first},
		{"name-searched", "another domain", egress(names(`"*.vendor.example"`)) + pod("dnsConfig: {searches: [corp.example]}"), ""},
		{"name-nat64", "metadata", egress("{action: Deny, to: [{networks: [169.254.169.254/32]}]}", names("a.example")), "info spec.egress[0]"},
		{"name-nat64", "with its form for NAT64", egress(`{action: Deny, to: [{networks: [169.254.169.254/32, "64:ff9b::a9fe:a9fe/128"]}]}`, names("a.example")), ""},
		{"name-nat64", "without names", egress("{action: Deny, to: [{networks: [169.254.169.254/32]}]}"), ""},

		{"invalid", "an ApplicationNetworkPolicy", application("{to: [{domainNames: [a.example]}], ports: [{port: 443}]}", "{to: [{podSelector: {}}]}"), ""},
		{"invalid", "an ApplicationNetworkPolicy with a wrong block", application("{to: [{ipBlock: {cidr: 10.0.0.300/8}}]}"), "error spec.egress[0].to[0].ipBlock.cidr"},
		{"peer-matches-nothing", "an ApplicationNetworkPolicy's names", application("{to: [{domainNames: [a.example]}]}"), ""},
		{"peer-matches-nothing", "an ApplicationNetworkPolicy's selector", application("{to: [{podSelector: {matchLabels: {app: gone}}}]}"), "warning spec.egress[0].to[0].podSelector"},
		{"shadowed-rule", "other names in an ApplicationNetworkPolicy", application("{to: [{domainNames: [a.example]}]}", "{to: [{domainNames: [b.example]}]}"), ""},
		{"shadowed-rule", "fewer names in an ApplicationNetworkPolicy", application("{to: [{domainNames: [a.example, b.example]}]}", "{to: [{domainNames: [b.example]}]}"), "warning spec.egress[1]"},
		{"shadowed-rule", "names beside all addresses in an ApplicationNetworkPolicy", application("{}", "{to: [{domainNames: [b.example]}]}"), "warning spec.egress[1]"},
		{"name-invalid", "an ApplicationNetworkPolicy's address", application("{to: [{domainNames: [10.0.0.1]}]}"), "error spec.egress[0].to"},
		{"name-public-suffix", "an ApplicationNetworkPolicy's", application(`{to: [{domainNames: ["*.co.uk"]}]}`), "warning spec.egress[0].to"},
		{"name-of-service", "an ApplicationNetworkPolicy's", application("{to: [{domainNames: [web.shop.svc.cluster.local]}]}"), "warning spec.egress[0].to"},
		{"name-useless", "an ApplicationNetworkPolicy's, beside a block for all", application("{to: [{domainNames: [a.example]}], ports: [{port: 443}]}", "{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}"), "warning spec.egress[0]"},
		{"name-useless", "an ApplicationNetworkPolicy's, on other ports", application("{to: [{domainNames: [a.example]}], ports: [{port: 443}]}", "{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}]}"), ""},
		{"name-resolvers", "an ApplicationNetworkPolicy's", application("{to: [{domainNames: [a.example]}]}") + strings.Replace(pod("dnsPolicy: Default"), "namespace: team", "namespace: team, labels: {app: client}", 1), "warning spec.egress[0]"},
		{"name-resolvers", "pods that an ApplicationNetworkPolicy does not select", application("{to: [{domainNames: [a.example]}]}") + pod("dnsPolicy: Default"), ""},
		{"name-encrypted-dns", "an ApplicationNetworkPolicy's", application("{to: [{domainNames: [dns.google]}]}"), "info spec.egress[0].to"},
		{"name-encrypted-dns", "DNS over TLS beside an ApplicationNetworkPolicy's", application("{to: [{domainNames: [a.example]}]}", "{ports: [{port: 853}]}"), "info spec.egress[1]"},
		{"name-searched", "an ApplicationNetworkPolicy's", application(`{to: [{domainNames: ["*.corp.example"]}]}`) + strings.Replace(pod("dnsConfig: {searches: [corp.example]}"), "namespace: team", "namespace: team, labels: {app: client}", 1), "warning spec.egress[0].to"},
		{"dns-forgotten", "an ApplicationNetworkPolicy with names alone", application("{to: [{domainNames: [a.example]}]}"), "warning spec.egress"},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			findings, _ := Run(read(t, clusterWorld+tc.manifests), Options{})
			of := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Check != tc.check })
			switch {
			case tc.want == "" && len(of) > 0:
				t.Errorf("found %+v", of)
			case tc.want != "" && !slices.ContainsFunc(of, func(f Finding) bool {
				return string(f.Severity)+" "+f.Path == tc.want && f.Fix != "" && f.File == "test"
			}):
				t.Errorf("not found; but %+v", findings)
			}
		})
	}
}
