package calico

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/policy"
)

func read(t *testing.T, documents ...string) *Set {
	t.Helper()
	s := &Set{}
	for _, d := range documents {
		raw, err := yaml.YAMLToJSON([]byte(d))
		if err != nil {
			t.Fatal(err)
		}
		if ours, err := s.Read(typeOf(raw), raw, "shop"); err != nil || !ours {
			t.Fatal(ours, err)
		}
	}
	return s
}

func document(kind, name, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {" + spec + "}"
}

func pod(namespace, app, addr string, ports ...corev1.ContainerPort) *Endpoint {
	return &Endpoint{
		Addr: netip.MustParseAddr(addr),
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: map[string]string{"app": app}},
			Spec:       corev1.PodSpec{ServiceAccountName: app, Containers: []corev1.Container{{Ports: ports}}},
		},
		NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace, "team": namespace},
	}
}

var (
	web     = pod("shop", "web", "10.0.0.1", corev1.ContainerPort{Name: "http", ContainerPort: 8080})
	db      = pod("shop", "db", "10.0.0.2")
	metrics = pod("monitoring", "db", "10.0.1.1")
	outside = &Endpoint{Addr: netip.MustParseAddr("192.0.2.1")}
)

const allowAll = `ingress: [{action: Allow}]`

// What the documentation of projectcalico.org/v3 says, on flows to web.
func TestWhatCalicosPoliciesMean(t *testing.T) {
	type flow struct {
		from    *Endpoint
		proto   policy.Protocol
		port    uint16
		allowed bool
	}
	all := func(allowed bool) []flow {
		return []flow{{db, policy.TCP, 80, allowed}, {metrics, policy.UDP, 1, allowed}, {outside, policy.ICMP, 0, allowed}}
	}
	ownOnly := []flow{{db, policy.TCP, 80, true}, {metrics, policy.TCP, 80, false}, {outside, policy.TCP, 80, false}}
	bothDBs := []flow{{db, policy.TCP, 80, true}, {metrics, policy.TCP, 80, true}, {outside, policy.TCP, 80, false}}
	metricsOnly := []flow{{db, policy.TCP, 80, false}, {metrics, policy.TCP, 80, true}, {outside, policy.TCP, 80, false}}
	outsideOnly := []flow{{db, policy.TCP, 80, false}, {metrics, policy.TCP, 80, false}, {outside, policy.TCP, 80, true}}
	np := func(name, spec string) string { return document(KindNetworkPolicy, name, spec) }
	gnp := func(name, spec string) string { return document(KindGlobalNetworkPolicy, name, spec) }
	for _, tc := range []struct {
		name      string
		documents []string
		flows     []flow
	}{
		{"without policies the profile allows", nil, all(true)},
		{"a policy without rules is of type Ingress, and its tier's end refuses", []string{np("a", "")}, all(false)},
		{"a policy with egress rules alone does not isolate in ingress", []string{np("a", "egress: [{action: Deny}]")}, all(true)},
		{"a policy of other pods", []string{np("a", "selector: app == 'db'")}, all(true)},
		{"a global policy selects in every namespace", []string{gnp("a", "selector: app == 'web'")}, all(false)},
		{"a global policy by namespace", []string{gnp("a", "namespaceSelector: team == 'monitoring'")}, all(true)},
		{"a global policy by the namespace's name", []string{gnp("a", "namespaceSelector: projectcalico.org/name == 'shop'")}, all(false)},
		{"a global policy by a pod's namespace label", []string{gnp("a", "selector: projectcalico.org/namespace == 'shop'")}, all(false)},
		{"a global policy by service account", []string{gnp("a", "serviceAccountSelector: projectcalico.org/name == 'db'")}, all(true)},
		{"the first rule that matches decides", []string{np("a", "ingress: [{action: Deny, source: {selector: app == 'db'}}, {action: Allow}]")}, []flow{{db, policy.TCP, 80, false}, {metrics, policy.TCP, 80, true}, {outside, policy.TCP, 80, true}}},
		{"Log decides nothing", []string{np("a", "ingress: [{action: Log}, {action: Allow}]")}, all(true)},
		{"policies by order", []string{np("a", "order: 2, "+allowAll), np("b", "order: 1, ingress: [{action: Deny}]")}, all(false)},
		{"one without order comes last", []string{np("a", "ingress: [{action: Deny}]"), np("b", "order: 99999, "+allowAll)}, all(true)},
		{"equal orders by name", []string{np("b", "order: 1, "+allowAll), np("a", "order: 1, ingress: [{action: Deny}]")}, all(false)},
		{"tiers by order", []string{document(KindTier, "early", "order: 1"), document(KindTier, "late", "order: 2000000"), np("late.x", "tier: late, ingress: [{action: Deny}]"), np("early.x", "tier: early, "+allowAll)}, all(true)},
		{"Pass leaves it to the next tier", []string{document(KindTier, "early", "order: 1"), np("early.x", "tier: early, ingress: [{action: Pass}]"), np("a", "")}, all(false)},
		{"what all tiers pass is allowed", []string{document(KindTier, "early", "order: 1"), np("early.x", "tier: early, ingress: [{action: Pass, source: {selector: app == 'db'}}]")}, ownOnly},
		{"the end of a tier refuses, whatever later ones say", []string{document(KindTier, "early", "order: 1"), np("early.x", "tier: early"), np("a", allowAll)}, all(false)},
		{"unless its default action is Pass", []string{document(KindTier, "early", "order: 1, defaultAction: Pass"), np("early.x", "tier: early"), np("a", allowAll)}, all(true)},
		{"a tier without a policy for the pod is skipped", []string{document(KindTier, "early", "order: 1"), np("early.x", "tier: early, selector: app == 'db'"), np("a", allowAll)}, all(true)},
		{"a selector in a NetworkPolicy means its own namespace", []string{np("a", "ingress: [{action: Allow, source: {selector: app == 'db'}}]")}, ownOnly},
		{"and any in a global one", []string{gnp("a", "ingress: [{action: Allow, source: {selector: app == 'db'}}]")}, bothDBs},
		{"a namespaceSelector alone", []string{np("a", "ingress: [{action: Allow, source: {namespaceSelector: team == 'monitoring'}}]")}, metricsOnly},
		{"all() in a namespaceSelector means every namespace, and nothing outside", []string{np("a", "ingress: [{action: Allow, source: {namespaceSelector: all()}}]")}, bothDBs},
		{"global() means network sets of no namespace", []string{document(KindGlobalNetworkSet, "s", "nets: [192.0.2.0/24]"), np("a", "ingress: [{action: Allow, source: {namespaceSelector: global()}}]")}, outsideOnly},
		{"a network set by its labels", []string{"apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s, namespace: shop, labels: {app: ext}}\nspec: {nets: [192.0.2.1]}", np("a", "ingress: [{action: Allow, source: {selector: app == 'ext'}}]")}, outsideOnly},
		{"notSelector alone means the namespace's others", []string{np("a", "ingress: [{action: Allow, source: {notSelector: app == 'x'}}]")}, ownOnly},
		{"notSelector in a global policy means everybody else", []string{gnp("a", "ingress: [{action: Allow, source: {notSelector: app == 'db'}}]")}, outsideOnly},
		{"a service account", []string{np("a", "ingress: [{action: Allow, source: {serviceAccounts: {names: [db]}}}]")}, ownOnly},
		{"nets and selector both", []string{gnp("a", "ingress: [{action: Allow, source: {selector: app == 'db', nets: [10.0.1.0/24]}}]")}, metricsOnly},
		{"notNets", []string{np("a", "ingress: [{action: Allow, source: {notNets: [10.0.0.0/8]}}]")}, outsideOnly},
		{"destination.nets of ingress", []string{np("a", "ingress: [{action: Allow, destination: {nets: [10.0.0.1/32]}}]")}, all(true)},
		{"another destination.nets of ingress", []string{np("a", "ingress: [{action: Allow, destination: {nets: [10.0.0.2/32]}}]")}, all(false)},
		{"ports", []string{np("a", "ingress: [{action: Allow, protocol: TCP, destination: {ports: [80, '90:99']}}]")}, []flow{{db, policy.TCP, 80, true}, {db, policy.TCP, 95, true}, {db, policy.TCP, 81, false}, {db, policy.UDP, 80, false}}},
		{"notPorts", []string{np("a", "ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [80]}}]")}, []flow{{db, policy.TCP, 80, false}, {db, policy.TCP, 81, true}, {db, policy.UDP, 81, false}}},
		{"a port's name is that of the pod which receives", []string{np("a", "ingress: [{action: Allow, protocol: TCP, destination: {ports: [http]}}]")}, []flow{{db, policy.TCP, 8080, true}, {db, policy.TCP, 80, false}}},
		{"a protocol by number", []string{np("a", "ingress: [{action: Allow, protocol: 47}]")}, []flow{{db, 47, 0, true}, {db, policy.TCP, 80, false}}},
		{"notProtocol", []string{np("a", "ingress: [{action: Allow, notProtocol: ICMP}]")}, []flow{{db, policy.ICMP, 0, false}, {db, policy.TCP, 80, true}}},
		{"ipVersion", []string{np("a", "ingress: [{action: Allow, ipVersion: 6}]")}, all(false)},
		{"an untracked policy is about hosts", []string{gnp("a", "doNotTrack: true, applyOnForward: true, "+allowAll)}, all(true)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := NewJudge(read(t, tc.documents...), map[string]map[string]string{"shop": {"team": "shop"}})
			if len(j.Problems) > 0 {
				t.Fatal(j.Problems)
			}
			for _, f := range tc.flows {
				if v := j.Evaluate(policy.Ingress, web, f.from, Traffic{Protocol: f.proto, Port: f.port, Target: web.Pod}); v.Allowed != f.allowed {
					t.Errorf("from %v %v %d: %+v", f.from.Addr, f.proto, f.port, v)
				}
			}
		})
	}
}

// Kubernetes' policies are in the default tier, at order 1000.
func TestKubernetesPoliciesAmongCalicos(t *testing.T) {
	for order, allowed := range map[string]bool{"999": false, "1001": true} {
		s := read(t, document(KindNetworkPolicy, "deny", "order: "+order+", ingress: [{action: Deny}]"))
		np := networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{}}}}
		np.Namespace, np.Name = "shop", "k"
		s.Kubernetes = append(s.Kubernetes, np)
		if v := NewJudge(s, nil).Evaluate(policy.Ingress, web, db, Traffic{Protocol: policy.TCP, Port: 80}); v.Allowed != allowed {
			t.Errorf("order %s: %+v", order, v)
		}
	}
}

func TestTypesOfStoredObjects(t *testing.T) {
	s := read(t, strings.Replace(document(KindNetworkPolicy, "default.a", "ingress: []"), Group, GroupStored, 1))
	if p := &s.Policies[0]; p.Isolates() != [2]bool{true, true} || p.Name != "a" {
		t.Errorf("%+v isolates %v", p, p.Isolates())
	}
}

func TestWhatCannotBeReadIsToldAndNotSkipped(t *testing.T) {
	for _, tc := range []struct{ document, want string }{
		{document(KindNetworkPolicy, "a", "ingres: []"), "NetworkPolicy shop/a: spec.ingres: the field is not known"},
		{document(KindNetworkPolicy, "a", "ingress: [{action: Allow, source: {nets: [x], foo: 1}}]"), "spec.ingress[0].source.foo"},
		{document(KindNetworkPolicy, "a", "ingress: [{action: Allow, protocol: TCPP}]"), `spec.ingress[0].protocol: "TCPP" is not a protocol`},
		{document(KindNetworkPolicy, "a", "egress: [{action: Allow}, {action: Allow, protocol: TCP, destination: {notPorts: [80, '80-90']}}]"), `spec.egress[1].destination.notPorts[1]: "80-90" is not a port`},
		{document(KindNetworkPolicy, "a", "order: ten"), "spec.order: a string where"},
		{document(KindNetworkPolicy, "a", "ingress: {action: Allow}"), "spec.ingress: an object where"},
		{document(KindNetworkPolicy, "a", "namespaceSelector: all()"), "spec.namespaceSelector: a NetworkPolicy has no such field"},
		{document(KindNetworkPolicy, "a", "preDNAT: true"), "spec.preDNAT: a NetworkPolicy has no such field"},
		{document(KindNetworkPolicy, "a", "doNotTrack: true"), "spec.doNotTrack: a NetworkPolicy has no such field"},
		{document(KindNetworkPolicy, "a", "applyOnForward: true"), "spec.applyOnForward: a NetworkPolicy has no such field"},
		{document(KindNetworkPolicy, "a", "ingress: [{action: Allow, destination: {ports: ['90:80']}}]"), "is not a range of ports"},
		{document(KindGlobalNetworkSet, "a", "nets: [10.0.0.0/33]"), "spec.nets"},
		{document(KindTier, "a", "defaultAction: Allow"), "spec.defaultAction"},
	} {
		s := read(t, tc.document)
		if len(s.Invalid) == 0 || !strings.Contains(s.Invalid[0].String(), tc.want) {
			t.Errorf("%s: %v", tc.document, s.Invalid)
		}
	}
	if s := read(t, document("StagedNetworkPolicy", "a", "")); len(s.Inert) != 1 {
		t.Errorf("%+v", s)
	}
}

func typeOf(raw []byte) (t metav1.TypeMeta) {
	_ = yaml.Unmarshal(raw, &t)
	return t
}
