package resolver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// parsePolicy reads the spec of a NetworkPolicy shop/policy.
func parsePolicy(t *testing.T, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "policy", UID: "1", Generation: 1}}
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatal(err)
	}
	return np
}

// summary describes a spec: one line for each rule, groups by their selectors.
func summary(r rendered) string {
	if r.spec == nil {
		return "nothing"
	}
	names := map[string]string{}
	for _, g := range r.groups {
		s := g.key.Namespace + ":"
		if g.set.namespaces != nil {
			s += "ns[" + selectorString(*g.set.namespaces) + "]"
		}
		s += "pods[" + selectorString(g.set.pods) + "]"
		if g.set.within != nil {
			s += "in[" + g.set.within.key() + "]"
		}
		if g.port != nil {
			s += fmt.Sprintf(":%s/%s=%d", g.port.Protocol, g.port.Name, g.port.Port)
		}
		names[g.key.Name] = s
	}
	var out []string
	for _, t := range r.spec.PolicyTypes {
		out = append(out, string(t))
	}
	lines := []string{strings.Join(out, ",")}
	write := func(direction string, rules []v1alpha1.Rule) {
		for _, rule := range rules {
			line := fmt.Sprintf("%s %v:", direction, rule.RuleIndexes)
			if rule.Peers == nil {
				line += " everyone"
			}
			for _, p := range rule.Peers {
				if p.Group != nil {
					line += " " + names[p.Group.Name]
				} else {
					line += " " + string(p.CIDR)
				}
				for _, e := range p.Except {
					line += "-" + string(e)
				}
			}
			line += " on"
			if rule.Ports == nil {
				line += " every port"
			}
			for _, p := range rule.Ports {
				line += " " + string(p.Protocol)
				switch {
				case p.Name != "":
					line += "/" + p.Name
				case p.EndPort != 0:
					line += fmt.Sprintf("/%d-%d", p.Port, p.EndPort)
				case p.Port != 0:
					line += fmt.Sprintf("/%d", p.Port)
				}
			}
			lines = append(lines, line)
		}
	}
	write("in", r.spec.Ingress)
	write("out", r.spec.Egress)
	return strings.Join(lines, "\n")
}

func selectorString(s selector) string { return metav1.FormatLabelSelector(s.labelSelector()) }

func TestMeaningOfPolicies(t *testing.T) {
	for _, c := range []struct{ name, spec, want, problems string }{
		{name: "no types and no rules: isolated for ingress", spec: `podSelector: {}`, want: "Ingress"},
		{name: "no types, egress rules: both directions", spec: `{podSelector: {}, egress: [{}]}`, want: "Ingress,Egress\nout [0]: everyone on every port"},
		{name: "no types, an empty list of egress rules: ingress only", spec: `{podSelector: {}, egress: []}`, want: "Ingress"},
		{name: "egress only", spec: `{podSelector: {}, policyTypes: [Egress]}`, want: "Egress"},
		{name: "rules of a direction that is not among the types mean nothing", spec: `{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`, want: "Egress"},
		{name: "so for egress", spec: `{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`, want: "Ingress"},
		{name: "types in any order", spec: `{podSelector: {}, policyTypes: [Egress, Ingress]}`, want: "Ingress,Egress"},
		{name: "an empty list of rules allows nothing", spec: `{podSelector: {}, ingress: []}`, want: "Ingress"},
		{name: "an empty rule allows everything", spec: `{podSelector: {}, ingress: [{}]}`, want: "Ingress\nin [0]: everyone on every port"},
		{name: "empty from is everyone", spec: `{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}`, want: "Ingress\nin [0]: everyone on TCP/80"},
		{name: "empty ports are every port", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: []}]}`, want: "Ingress\nin [0]: shop:pods[<none>] on every port"},
		{name: "a pod selector alone stays in the namespace", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`,
			want: "Ingress\nin [0]: shop:pods[app=web] on every port"},
		{name: "a namespace selector alone takes all their pods", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}`,
			want: "Ingress\nin [0]: kidoban:ns[team=a]pods[<none>] on every port"},
		{name: "both in one peer: these pods in those namespaces", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}`,
			want: "Ingress\nin [0]: kidoban:ns[<none>]pods[app=web] on every port"},
		{name: "both in two peers: either", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}, {podSelector: {}}]}]}`,
			want: "Ingress\nin [0]: kidoban:ns[team=a]pods[<none>] shop:pods[<none>] on every port"},
		{name: "expressions", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [b, a, b]}, {key: x, operator: DoesNotExist}]}}]}]}`,
			want: "Ingress\nin [0]: shop:pods[app notin (a,b),!x] on every port"},
		{name: "two rules for one CIDR: one peer, both ports", spec: `{podSelector: {}, ingress: [
			{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]},
			{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}]}`,
			want: "Ingress\nin [0 1]: 10.0.0.0/8 on TCP/80 TCP/443"},
		{name: "one CIDR with and without excepts: two peers", spec: `{podSelector: {}, ingress: [
			{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80}]},
			{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}]}`,
			want: "Ingress\nin [0]: 10.0.0.0/8-10.1.0.0/16 on TCP/80\nin [1]: 10.0.0.0/8 on TCP/443"},
		{name: "blocks are masked, excepts sorted and each once", spec: `{podSelector: {}, egress: [{to: [
			{ipBlock: {cidr: 10.1.2.3/8, except: [10.9.0.0/16, 10.1.2.0/24, 10.9.9.0/24, 10.1.2.0/24]}},
			{ipBlock: {cidr: "2001:DB8:0::/32"}}, {ipBlock: {cidr: "::ffff:192.168.0.0/112"}}]}]}`,
			want: "Ingress,Egress\nout [0]: 10.0.0.0/8-10.1.2.0/24-10.9.0.0/16 192.168.0.0/16 2001:db8::/32 on every port"},
		{name: "peers of the same rules share an entry, others do not", spec: `{podSelector: {}, ingress: [
			{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 11.0.0.0/8}}], ports: [{port: 80}]},
			{from: [{ipBlock: {cidr: 11.0.0.0/8}}, {ipBlock: {cidr: 12.0.0.0/8}}], ports: [{port: 81}]}]}`,
			want: "Ingress\nin [0]: 10.0.0.0/8 on TCP/80\nin [0 1]: 11.0.0.0/8 on TCP/80-81\nin [1]: 12.0.0.0/8 on TCP/81"},
		{name: "rules for everyone are one entry", spec: `{podSelector: {}, ingress: [{ports: [{port: 80}]}, {ports: [{port: 90, endPort: 99}]}]}`,
			want: "Ingress\nin [0 1]: everyone on TCP/80 TCP/90-99"},
		{name: "0.0.0.0/0 is not everyone", spec: `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
			want: "Ingress,Egress\nout [0]: 0.0.0.0/0 on every port"},
		{name: "ranges are joined, by protocol", spec: `{podSelector: {}, ingress: [{ports: [
			{port: 90, endPort: 99}, {port: 80}, {port: 81, endPort: 89}, {protocol: UDP, port: 100}, {port: 95, endPort: 97}, {port: 101}]}]}`,
			want: "Ingress\nin [0]: everyone on TCP/80-99 TCP/101 UDP/100"},
		{name: "a protocol without port is all of it", spec: `{podSelector: {}, ingress: [{ports: [{protocol: UDP}, {protocol: UDP, port: 53}, {protocol: SCTP, port: 1, endPort: 65535}, {}]}]}`,
			want: "Ingress\nin [0]: everyone on TCP UDP SCTP/1-65535"},
		{name: "every port swallows some ports", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{podSelector: {}}]}]}`,
			want: "Ingress\nin [0 1]: shop:pods[<none>] on every port"},
		{name: "an ingress name stays a name", spec: `{podSelector: {}, ingress: [{ports: [{port: known}, {protocol: UDP, port: known}, {port: 80}, {port: known}]}]}`,
			want: "Ingress\nin [0]: everyone on TCP/80 TCP/known UDP/known"},
		{name: "a whole protocol swallows its names", spec: `{podSelector: {}, ingress: [{ports: [{port: known}, {protocol: UDP, port: known}, {protocol: TCP}]}]}`,
			want: "Ingress\nin [0]: everyone on TCP UDP/known"},
		{name: "an egress name is the pods that have it, by number", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: known}, {port: 80}]}]}`,
			want: "Egress\nout [0]: shop:pods[<none>] on TCP/80\nout [0]: shop:pods[<none>]:TCP/known=8080 on TCP/8080\nout [0]: shop:pods[<none>]:TCP/known=9090 on TCP/9090"},
		{name: "an egress name to everyone is all pods that have it", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: known}]}]}`,
			want: "Egress\nout [0]: kidoban:ns[<none>]pods[<none>]:TCP/known=8080 on TCP/8080\nout [0]: kidoban:ns[<none>]pods[<none>]:TCP/known=9090 on TCP/9090"},

		{name: "a name that no peer has", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: unknown}, {port: 80}]}]}`,
			want:     "Egress\nout [0]: shop:pods[<none>] on TCP/80",
			problems: `UnresolvedNamedPort spec.egress[0].ports: no pod among the peers has a TCP port "unknown"`},
		{name: "a name that no selected pod has", spec: `{podSelector: {}, ingress: [{ports: [{port: unknown}]}]}`,
			want:     "Ingress\nin [0]: everyone on TCP/unknown",
			problems: `UnresolvedNamedPort spec.ingress: no pod that the policy selects has a TCP port "unknown"`},
		{name: "a name at an ipBlock", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: known}]}]}`,
			want: "Egress\nout [0]: kidoban:ns[<none>]pods[<none>]in[10.0.0.0/8]:TCP/known=8080 on TCP/8080\n" +
				"out [0]: kidoban:ns[<none>]pods[<none>]in[10.0.0.0/8]:TCP/known=9090 on TCP/9090"},
		{name: "ports that are all wrong open none", spec: `{podSelector: {}, ingress: [{ports: [{port: 0}, {port: 90, endPort: 80}, {port: 70000}, {protocol: ICMP, port: 8}, {port: http, endPort: 90}, {endPort: 9}, {port: "80"}]}]}`,
			want: "Ingress",
			problems: `InvalidPort spec.ingress[0].ports[0]: port 0 to 0 is not a range within 1 to 65535
InvalidPort spec.ingress[0].ports[1]: port 90 to 80 is not a range within 1 to 65535
InvalidPort spec.ingress[0].ports[2]: port 70000 to 70000 is not a range within 1 to 65535
InvalidPort spec.ingress[0].ports[3]: protocol "ICMP" is not one of TCP, UDP and SCTP
InvalidPort spec.ingress[0].ports[4]: endPort 90 needs a numeric port, not "http"
InvalidPort spec.ingress[0].ports[5]: endPort 9 needs a port
InvalidPort spec.ingress[0].ports[6]: "80" is not a valid port name: must contain at least one letter (a-z)`},
		{name: "peers that are all wrong are not everyone", spec: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: banana}}, {ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}},
			{podSelector: {matchLabels: {"a b": c}}}, {}, {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}, {from: [{podSelector: {}}]}]}`,
			want: "Ingress\nin [1]: shop:pods[<none>] on every port",
			problems: `InvalidSelector spec.ingress[0].from[2].podSelector: key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
InvalidPeer spec.ingress[0].from[0].ipBlock: "banana" is not a valid CIDR
InvalidPeer spec.ingress[0].from[1].ipBlock: except 11.0.0.0/8 is not inside cidr 10.0.0.0/8
InvalidPeer spec.ingress[0].from[3]: a peer needs one of podSelector, namespaceSelector and ipBlock
InvalidPeer spec.ingress[0].from[4]: a peer with an ipBlock cannot have a selector`},
		{name: "a policy that selects nothing intelligible", spec: `{podSelector: {matchExpressions: [{key: a, operator: Near}]}, ingress: [{}]}`,
			want: "nothing", problems: `InvalidSelector spec.podSelector: "Near" is not a valid label selector operator`},
	} {
		t.Run(c.name, func(t *testing.T) {
			np := parsePolicy(t, c.spec)
			r := renderer{namespace: "shop", shared: "kidoban", numbers: func(_ *podSet, n portName) portNumbers {
				if n.name == "known" {
					return portNumbers{kept: []uint16{8080, 9090}}
				}
				return portNumbers{}
			}}
			out := r.render(NetworkPolicy(np), normalize(NetworkPolicy(np)))
			var problems []string
			for _, p := range out.problems {
				problems = append(problems, p.Reason+" "+p.Message)
			}
			if diff := cmp.Diff(c.want, summary(out)); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.problems, strings.Join(problems, "\n")); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestManyPeersOfOneRuleComeToSeveralEntries(t *testing.T) {
	np := parsePolicy(t, `podSelector: {}`)
	rule := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{IntVal: 80}}}}
	for i := range 1000 {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}})
	}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{rule}
	out := (&renderer{namespace: "shop"}).render(NetworkPolicy(np), normalize(NetworkPolicy(np)))
	seen := map[v1alpha1.CIDR]bool{}
	for _, r := range out.spec.Ingress {
		if len(r.Peers) > v1alpha1.MaxPeersPerRule || len(r.Peers) == 0 || len(r.Ports) != 1 {
			t.Errorf("an entry of %d peers and %d ports", len(r.Peers), len(r.Ports))
		}
		for _, p := range r.Peers {
			if seen[p.CIDR] {
				t.Errorf("%s is there twice", p.CIDR)
			}
			seen[p.CIDR] = true
		}
	}
	if len(seen) != 1000 || len(out.problems) != 0 {
		t.Errorf("%d peers, problems %v", len(seen), out.problems)
	}
}

func TestASpecBeyondTheSchemaIsTooLarge(t *testing.T) {
	np := parsePolicy(t, `podSelector: {}`)
	for i := range v1alpha1.MaxRules + 1 {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{IntVal: int32(i + 1)}}},
		})
	}
	expectTooLarge(t, np)
}

func TestASpecBeyondEtcdsLimitIsTooLarge(t *testing.T) {
	np := parsePolicy(t, `podSelector: {}`)
	var rule networkingv1.NetworkPolicyIngressRule // small as a policy: its ports are said again for every few of its peers
	for i := range 1000 {
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: &intstr.IntOrString{IntVal: int32(2*i + 1)}})
	}
	for i := range 2400 {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}})
	}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{rule}
	expectTooLarge(t, np)
}

func expectTooLarge(t *testing.T, np *networkingv1.NetworkPolicy) {
	t.Helper()
	out := (&renderer{namespace: "shop"}).render(NetworkPolicy(np), normalize(NetworkPolicy(np)))
	if out.spec != nil || len(out.problems) != 1 || out.problems[0].Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("problems %v", out.problems)
	}
}

// A group that the schema would reject is left out: less is allowed.
func TestANamedPortWithTooManyExceptsIsTooLarge(t *testing.T) {
	np := parsePolicy(t, `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}, {port: 80}]}]}`)
	for i := range v1alpha1.MaxExceptsPerBlock + 1 {
		b := np.Spec.Egress[0].To[0].IPBlock
		b.Except = append(b.Except, fmt.Sprintf("10.%d.%d.0/24", i/250, i%250))
	}
	out := (&renderer{namespace: "shop", numbers: func(*podSet, portName) portNumbers { return portNumbers{kept: []uint16{80}} }}).render(NetworkPolicy(np), normalize(NetworkPolicy(np)))
	if len(out.groups) != 0 || len(out.problems) == 0 || out.problems[0].Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("groups %v, problems %v", out.groups, out.problems)
	}
}

func TestRenderingIsDeterministic(t *testing.T) {
	np := parsePolicy(t, `{podSelector: {}, ingress: [
		{from: [{podSelector: {matchLabels: {a: b, c: d, e: f}}}, {ipBlock: {cidr: 10.0.0.0/8}}, {podSelector: {}}, {namespaceSelector: {}}], ports: [{port: 80}, {port: x}]},
		{from: [{ipBlock: {cidr: 11.0.0.0/8}}, {podSelector: {}}], ports: [{port: 81}]}, {ports: [{port: 82}]}]}`)
	r := renderer{namespace: "shop", shared: "kidoban", numbers: func(*podSet, portName) portNumbers { return portNumbers{} }}
	want := r.render(NetworkPolicy(np), normalize(NetworkPolicy(np)))
	for range 50 {
		if diff := cmp.Diff(want.spec, r.render(NetworkPolicy(np), normalize(NetworkPolicy(np))).spec); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestPodsAsPeers(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	p := PodOf(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "setup", ContainerPort: 1}}},
				{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 2, Protocol: corev1.ProtocolUDP}}},
			},
			Containers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {ContainerPort: 81}}},
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "sctp", ContainerPort: 3, Protocol: corev1.ProtocolSCTP}}},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "2001:DB8::1"}, {IP: ""}}},
	})
	if got, want := fmt.Sprint(p.Addresses), "[10.0.0.1 2001:db8::1]"; got != want {
		t.Errorf("addresses %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(p.Ports), "[{TCP http 80} {TCP http 8080} {SCTP sctp 3} {UDP proxy 2}]"; got != want {
		t.Errorf("ports %s, want %s", got, want)
	}
	for name, c := range map[string]struct {
		change func(*Pod)
		want   bool
	}{
		"running":                        {func(*Pod) {}, true},
		"pending with an address":        {func(p *Pod) { p.Phase = corev1.PodPending }, true},
		"unknown: its node is away":      {func(p *Pod) { p.Phase = corev1.PodUnknown }, true},
		"succeeded: its address is free": {func(p *Pod) { p.Phase = corev1.PodSucceeded }, false},
		"failed":                         {func(p *Pod) { p.Phase = corev1.PodFailed }, false},
		"without an address":             {func(p *Pod) { p.Addresses = nil }, false},
		"of the host network":            {func(p *Pod) { p.HostNetwork = true }, false},
	} {
		q := p
		c.change(&q)
		if New(Options{}).newPod(&q).isPeer() != c.want {
			t.Errorf("%s: peer %t", name, !c.want)
		}
	}
}
