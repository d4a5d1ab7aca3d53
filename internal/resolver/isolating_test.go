package resolver

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// oversized is a policy that selects the pods of an app and has more different rules than fit.
func oversized(t *testing.T, app string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := parsePolicy(t, "{podSelector: {matchLabels: {app: "+app+"}}, policyTypes: [Ingress, Egress]}")
	for i := range v1alpha1.MaxRules + 1 {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{IntVal: int32(i + 1)}}},
		})
	}
	return np
}

// A policy isolates its pods in its directions whatever its state.
func TestHostilePoliciesStillIsolate(t *testing.T) {
	fits := func(app, types string) *networkingv1.NetworkPolicy {
		return parsePolicy(t, "{podSelector: {matchLabels: {app: "+app+"}}, policyTypes: "+types+", ingress: [{from: [{podSelector: {}}]}]}")
	}
	unreadable := parsePolicy(t, "{podSelector: {matchExpressions: [{key: a, operator: Near}]}, policyTypes: [Egress]}")
	for _, tc := range []struct {
		name           string
		before, now    *networkingv1.NetworkPolicy
		selects, types string
		rules          int
		reason         string
	}{
		{"too large from the start", nil, oversized(t, "db"), "db", "Ingress Egress", 0, v1alpha1.ReasonTooLarge},
		{"too large after an edit: the version before stays", fits("db", "[Ingress, Egress]"), oversized(t, "db"), "db", "Ingress Egress", 1, v1alpha1.ReasonTooLarge},
		{"too large, and now it selects other pods", fits("web", "[Ingress, Egress]"), oversized(t, "db"), "db", "Ingress Egress", 0, v1alpha1.ReasonTooLarge},
		{"too large, and now it isolates in both directions", fits("db", "[Ingress]"), oversized(t, "db"), "db", "Ingress Egress", 0, v1alpha1.ReasonTooLarge},
		{"too large twice", oversized(t, "web"), oversized(t, "db"), "db", "Ingress Egress", 0, v1alpha1.ReasonTooLarge},
		{"an unreadable selector may select any pod", fits("db", "[Ingress]"), unreadable, "", "Egress", 0, v1alpha1.ReasonInvalidSelector},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := started()
			if tc.before != nil {
				r.SetPolicy(named(tc.before, "shop", "p", "1"))
			}
			r.SetPolicy(named(tc.now, "shop", "p", "1"))
			e := r.endpointOf(t, "shop", "p")
			if e.Spec == nil {
				t.Fatal("nothing isolates its pods")
			}
			var types []string
			for _, d := range e.Spec.PolicyTypes {
				types = append(types, string(d))
			}
			if got := e.Spec.PodSelector.MatchLabels["app"]; got != tc.selects || strings.Join(types, " ") != tc.types {
				t.Errorf("it isolates %q in %v", got, types)
			}
			if len(e.Spec.Ingress) != tc.rules || len(e.Groups) != tc.rules {
				t.Errorf("%d rules, groups %v, want %d", len(e.Spec.Ingress), e.Groups, tc.rules)
			}
			if len(e.Problems) == 0 || e.Problems[0].Reason != tc.reason {
				t.Errorf("problems %v", e.Problems)
			}
		})
	}
}

// After a restart, too: an earlier resolver's object stays if it isolates the same pods.
func TestHostilePoliciesStillIsolateAfterARestart(t *testing.T) {
	r := started()
	r.SetPolicy(named(parsePolicy(t, "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]}"), "shop", "p", "1"))
	before := r.endpointOf(t, "shop", "p")
	for app, rules := range map[string]int{"db": 1, "web": 0} {
		next := New(Options{SharedNamespace: "kidoban", MaxAddresses: 4})
		existing := Existing{Slices: map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{}}
		existing.Endpoints = map[types.NamespacedName]*v1alpha1.PolicyEndpointSpec{before.Name: before.Spec}
		next.SetPolicy(named(oversized(t, app), "shop", "p", "1"))
		next.Start(existing)
		e := next.endpointOf(t, "shop", "p")
		if e.Spec == nil || len(e.Spec.Ingress) != rules || e.Spec.PodSelector.MatchLabels["app"] != app {
			t.Errorf("%s: %+v", app, e.Spec)
		}
	}
}

// numbersOf makes pods of a namespace that give numbers to the name http.
func numbersOf(r *Resolver, namespace string, first, count int) {
	r.SetNamespace(namespace, map[string]string{"kubernetes.io/metadata.name": namespace})
	for i := range count {
		p := runningPod(namespace, fmt.Sprint("p", first+i), 1000+first+i, map[string]string{"app": "web"})
		p.Addresses = []netip.Addr{addr(first + i).ip()}
		p.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: uint16(first + i)}}
		r.SetPod(p)
	}
}

// Pods of other tenants give hundreds of numbers to a port name. The policy stays in force with the numbers that fit.
func TestHostileNumbersBehindAPortName(t *testing.T) {
	r := started()
	np := parsePolicy(t, "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}, {ports: [{port: 53}]}]}")
	r.SetPolicy(named(np, "shop", "p", "1"))
	numbersOf(r, "victim", 8080, 1)
	numbersOf(r, "evil", 20000, 2*v1alpha1.MaxRules)
	ports := func() (out []int32) {
		for _, rule := range r.endpointOf(t, "shop", "p").Spec.Egress {
			for _, p := range rule.Ports {
				out = append(out, p.Port)
			}
		}
		slices.Sort(out)
		return out
	}
	got := ports()
	if len(got) != 2+numbersOfNamespace || got[0] != 53 || got[1] != 8080 {
		t.Errorf("ports %v", got)
	}
	problems := r.endpointOf(t, "shop", "p").Problems
	if len(problems) != 1 || problems[0].Reason != v1alpha1.ReasonUnresolvedNamedPort || !strings.Contains(problems[0].Message, "left out") {
		t.Errorf("problems %v", problems)
	}
	// Many namespaces in concert.
	for i := range 100 {
		numbersOf(r, fmt.Sprint("evil", i), 30000+10*i, 10)
	}
	if got := ports(); len(got) != 1+numbersOfName[0] || got[0] != 53 {
		t.Errorf("ports %v", got)
	}
}

// A policy that nearly fills its object has room for few numbers, and is in force all the same.
func TestHostileNumbersDoNotMakeAPolicyTooLarge(t *testing.T) {
	r := started()
	np := oversized(t, "db")
	np.Spec.Ingress = np.Spec.Ingress[:v1alpha1.MaxRules]
	for i := range 40 {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
			To:    []networkingv1.NetworkPolicyPeer{{NamespaceSelector: parsePolicy(t, fmt.Sprintf("{podSelector: {matchExpressions: [{key: x, operator: NotIn, values: [a%d]}]}}", i)).Spec.PodSelector.DeepCopy()}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{Type: intstr.String, StrVal: "http"}}},
		})
	}
	r.SetPolicy(named(np, "shop", "p", "1"))
	for i := range 8 {
		numbersOf(r, fmt.Sprint("evil", i), 30000+10*i, 8)
	}
	e := r.endpointOf(t, "shop", "p")
	if len(e.Spec.Ingress) != v1alpha1.MaxRules {
		t.Errorf("%d rules are in force", len(e.Spec.Ingress))
	}
	if len(e.Problems) == 0 || e.Problems[0].Reason != v1alpha1.ReasonUnresolvedNamedPort {
		t.Errorf("problems %.300v", e.Problems)
	}
}

// Groups are compared by their selectors, too: a peer whose group has the name of another one is left out.
func TestHostileGroupNames(t *testing.T) {
	r := started()
	np := named(parsePolicy(t, "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}"), "shop", "p", "1")
	r.SetPolicy(np)
	e := r.endpointOf(t, "shop", "p")
	group := r.groups[e.Groups[0]]
	if digits := len(group.key.Name) - len("g-"); digits*4 < 128 {
		t.Errorf("names have %d bits", digits*4)
	}
	everything := selector{}
	other := normalize(NetworkPolicy(named(parsePolicy(t, "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: evil}}}]}]}"), "shop", "q", "2")))
	set := other.peers[policy.Ingress][0].peer.pods
	for name, tc := range map[string]struct {
		ref  groupRef
		want bool
	}{
		"the group itself":    {groupRef{group.key, &podSet{namespaces: group.matcher.scope.selector, pods: group.matcher.selector}, nil}, false},
		"other pods":          {groupRef{group.key, set, nil}, true},
		"of a port":           {groupRef{group.key, &podSet{namespaces: group.matcher.scope.selector, pods: group.matcher.selector}, &policy.NamedPort{Port: 80}}, true},
		"of one namespace":    {groupRef{group.key, &podSet{pods: group.matcher.selector}, nil}, true},
		"of another selector": {groupRef{group.key, &podSet{namespaces: group.matcher.scope.selector, pods: everything}, nil}, true},
		"a new group":         {groupRef{policy.GroupKey{Namespace: "kidoban", Name: "g-new"}, set, nil}, false},
	} {
		if got := r.collides(tc.ref); got != tc.want {
			t.Errorf("%s: collides %t", name, got)
		}
	}
	renderer := renderer{namespace: "shop", shared: "kidoban", collides: func(groupRef) bool { return true }}
	out := renderer.render(NetworkPolicy(np), normalize(NetworkPolicy(np)))
	if len(out.spec.Ingress) != 0 || len(out.groups) != 0 || len(out.problems) != 1 || out.problems[0].Reason != v1alpha1.ReasonInvalidPeer {
		t.Errorf("rules %v, problems %v", out.spec.Ingress, out.problems)
	}
}

func TestTheVersionOfARejectedClusterPolicyIsClosed(t *testing.T) {
	rule := func(name string, action v1alpha1.Action) v1alpha1.Rule {
		return v1alpha1.Rule{Name: name, Action: action, RuleIndexes: []int32{1}, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/8"}}}
	}
	e := ClusterEndpoint{Name: "c", Groups: []policy.GroupKey{{Name: "g"}}, Spec: &v1alpha1.ClusterPolicyEndpointSpec{
		Tier: v1alpha1.TierAdmin, Priority: 3,
		Ingress: []v1alpha1.Rule{rule("accept", v1alpha1.ActionAccept), rule("pass", v1alpha1.ActionPass), rule("deny", v1alpha1.ActionDeny)},
		Egress:  []v1alpha1.Rule{rule("accept", v1alpha1.ActionAccept)},
	}}
	got := e.Isolating()
	want := []v1alpha1.Rule{{Name: "pass", Action: v1alpha1.ActionDeny, RuleIndexes: []int32{1}}}
	if !reflect.DeepEqual(got.Spec.Ingress, want) || got.Spec.Egress != nil || got.Groups != nil {
		t.Errorf("got %+v with groups %v", got.Spec, got.Groups)
	}
	if len(e.Spec.Ingress) != 3 || len(e.Groups) != 1 {
		t.Errorf("the endpoint itself has become %+v", e)
	}
	other := *e.Spec
	if other.Subject.PodSelector.MatchLabels = map[string]string{"app": "web"}; !IsolatesCluster(got.Spec, e.Spec) || IsolatesCluster(got.Spec, &other) {
		t.Error("the closed version does not stand for the same pods alone")
	}
	audited := *e.Spec
	if audited.Enforcement = v1alpha1.EnforcementAudit; IsolatesCluster(&audited, e.Spec) || IsolatesCluster(e.Spec, &audited) {
		t.Error("an audited version stands for an enforced one")
	}
}
