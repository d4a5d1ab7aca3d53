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
