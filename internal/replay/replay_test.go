package replay

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy/application"
)

const denyIngress = `
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}`

const allowWeb = `
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}]`

func TestVerdictsOfOneFlow(t *testing.T) {
	web, db := pod("shop", "web", "10.50.1.20"), pod("shop", "db", "10.50.2.10")
	hidden := observerapi.End{Namespace: "shop", Workload: web.Workload, Hidden: true}
	summed := observerapi.End{Namespace: "shop", Workload: web.Workload}
	summedUp := pod("shop", "db", "")
	summedUp.Pod, summedUp.UID, summedUp.Node = "", "", ""
	noAddress := pod("shop", "web", "")
	blocks := func(cidr string) string {
		return fmt.Sprintf("metadata: {name: blocks, namespace: shop}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: %q}}]}]}", cidr)
	}
	const named = "metadata: {name: named, namespace: shop}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: http}]}]}"
	const vendor = `
metadata: {name: vendor}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{domainNames: ["*.vendor.example"]}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0]}]}`
	const nodes = `
metadata: {name: nodes}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{nodes: {matchLabels: {pool: db}}}]}]`
	const denyAll = "metadata: {name: deny}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}"
	for name, tc := range map[string]struct {
		flow        observerapi.Flow
		before      []string
		after       []string
		cluster     []string // ClusterNetworkPolicies after
		want        Verdict
		why         Reason
		clusterThen []string // and before
	}{
		"no policy":                          {flow: tcp(web, db, 5432), want: Allowed},
		"isolated":                           {flow: tcp(web, db, 5432), after: []string{denyIngress}, want: Denied},
		"a rule allows it":                   {flow: tcp(web, db, 5432), after: []string{denyIngress, allowWeb}, want: Allowed},
		"another port":                       {flow: tcp(web, db, 5433), after: []string{denyIngress, allowWeb}, want: Denied},
		"another label":                      {flow: tcp(pod("shop", "canary", "10.50.1.21"), db, 5432), after: []string{allowWeb}, want: Denied},
		"another namespace":                  {flow: tcp(pod("lab", "web", "10.50.1.21"), db, 5432), after: []string{allowWeb}, want: Denied},
		"named port":                         {flow: tcp(web, db, 8080), after: []string{named}, want: Allowed},
		"not the named port":                 {flow: tcp(web, db, 8081), after: []string{named}, want: Denied},
		"no port":                            {flow: tcp(web, db, 0), after: []string{denyIngress}, want: Unknown, why: ReasonPort},
		"no protocol":                        {flow: func() observerapi.Flow { f := tcp(web, db, 1); f.Protocol = ""; return f }(), after: []string{denyIngress}, want: Unknown, why: ReasonProtocol},
		"hidden":                             {flow: tcp(hidden, db, 5432), after: []string{denyIngress}, want: Unknown, why: ReasonHidden},
		"no labels":                          {flow: tcp(summed, db, 5432), after: []string{denyIngress}, want: Unknown, why: ReasonLabels},
		"address not needed":                 {flow: tcp(noAddress, db, 5432), after: []string{allowWeb}, want: Allowed},
		"address needed":                     {flow: tcp(noAddress, db, 5432), after: []string{blocks("10.50.0.0/16")}, want: Unknown, why: ReasonAddress},
		"every address":                      {flow: tcp(noAddress, db, 5432), after: []string{blocks("0.0.0.0/0")}, want: Allowed},
		"block of a pod":                     {flow: tcp(web, db, 5432), after: []string{blocks("10.50.1.0/24")}, want: Allowed},
		"outside":                            {flow: tcp(outside("198.51.100.7"), db, 5432), after: []string{blocks("198.51.100.0/24")}, want: Allowed},
		"outside, another block":             {flow: tcp(outside("198.51.101.7"), db, 5432), after: []string{blocks("198.51.100.0/24")}, want: Denied},
		"outside, not kept":                  {flow: tcp(observerapi.End{}, db, 5432), after: []string{blocks("198.51.100.0/24")}, want: Unknown, why: ReasonAddress},
		"outside, not kept and not needed":   {flow: tcp(observerapi.End{}, db, 5432), after: []string{denyIngress}, want: Denied},
		"address of the pods without a pod":  {flow: tcp(outside("10.50.9.9"), db, 5432), after: []string{denyIngress}, want: Unknown, why: ReasonPod},
		"own node":                           {flow: tcp(node("n1", "10.0.0.11"), db, 5432), after: []string{denyIngress}, want: Allowed},
		"other node":                         {flow: tcp(node("n2", "10.0.0.12"), db, 5432), after: []string{denyIngress}, want: Denied},
		"own node by its address":            {flow: tcp(outside("10.0.0.11"), db, 5432), after: []string{denyIngress}, want: Allowed},
		"a node, and the pod's is not kept":  {flow: tcp(node("n1", "10.0.0.11"), summedUp, 5432), after: []string{denyIngress}, want: Unknown, why: ReasonOwnNode},
		"to itself":                          {flow: tcp(db, db, 5432), after: []string{denyIngress}, want: Allowed},
		"to another pod of the workload":     {flow: tcp(db, func() observerapi.End { e := pod("shop", "db", "10.50.2.11"); e.UID = "other"; return e }(), 5432), after: []string{denyIngress}, want: Denied},
		"cluster policy":                     {flow: tcp(web, outside("192.0.2.1"), 443), cluster: []string{denyAll}, want: Denied},
		"nodes":                              {flow: tcp(web, node("n2", "10.0.0.12"), 443), cluster: []string{nodes}, want: Denied},
		"nodes, another":                     {flow: tcp(web, node("n1", "10.0.0.11"), 443), cluster: []string{nodes}, want: Allowed},
		"a node that is gone":                {flow: tcp(web, node("n9", "10.0.0.19"), 443), cluster: []string{nodes}, want: Unknown, why: ReasonNode},
		"name":                               {flow: tcp(web, outside("192.0.2.1", "api.vendor.example"), 443), cluster: []string{vendor}, want: Allowed},
		"name not learned":                   {flow: tcp(web, outside("192.0.2.1"), 443), cluster: []string{vendor}, want: Unknown, why: ReasonName},
		"another name, not learned":          {flow: tcp(web, outside("192.0.2.1", "x.example"), 443), cluster: []string{vendor}, want: Unknown, why: ReasonName},
		"name that was asked for":            {flow: tcp(web, outside("192.0.2.1"), 443), cluster: []string{vendor}, clusterThen: []string{vendor}, want: Denied},
		"as many names as are recorded":      {flow: tcp(web, outside("192.0.2.1", "a.example", "b.example", "c.example"), 443), cluster: []string{vendor}, clusterThen: []string{vendor}, want: Unknown, why: ReasonName},
		"name of a pod does not matter":      {flow: tcp(web, db, 443), cluster: []string{vendor}, want: Denied},
		"audited":                            {flow: tcp(web, db, 5432), after: []string{"metadata: {name: default-deny, namespace: shop, labels: {kidoban.dev/enforcement: audit}}\nspec: {podSelector: {}, policyTypes: [Ingress]}"}, want: Allowed},
		"ICMP, which no port matches":        {flow: func() observerapi.Flow { f := tcp(web, db, 0); f.Protocol = "ICMP"; return f }(), after: []string{allowWeb}, want: Denied},
		"a protocol that has only a number":  {flow: func() observerapi.Flow { f := tcp(web, db, 0); f.Protocol = "47"; return f }(), after: []string{denyIngress}, want: Denied},
		"a number that is none of protocols": {flow: func() observerapi.Flow { f := tcp(web, db, 0); f.Protocol = "256"; return f }(), after: []string{denyIngress}, want: Unknown, why: ReasonProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := Cluster{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.50.0.0/16")}}
			for n, address := range map[string]string{"n1": "10.0.0.11", "n2": "10.0.0.12"} {
				var is corev1.Node
				is.Name, is.Labels = n, map[string]string{"pool": map[string]string{"n1": "web", "n2": "db"}[n]}
				is.Status.Addresses = []corev1.NodeAddress{{Address: address}}
				cluster.Nodes = append(cluster.Nodes, is)
			}
			j := NewJudge(cluster, Policies{networkPolicies(t, tc.before), clusterPolicies(t, tc.clusterThen), false, nil},
				Policies{networkPolicies(t, tc.after), clusterPolicies(t, tc.cluster), false, nil})
			got := j.Decide(&tc.flow).Answers[1]
			if got.Verdict != tc.want || tc.why != "" && got.Why != string(tc.why) {
				t.Errorf("got %v, want %v %v", got, tc.want, tc.why)
			}
		})
	}
}

func networkPolicies(t *testing.T, texts []string) (out []networkingv1.NetworkPolicy) {
	for _, text := range texts {
		out = append(out, networkPolicy(t, text))
	}
	return out
}

func clusterPolicies(t *testing.T, texts []string) (out []cnp.ClusterNetworkPolicy) {
	for _, text := range texts {
		out = append(out, clusterPolicy(t, text))
	}
	return out
}

func TestReport(t *testing.T) {
	web, db, idle := pod("shop", "web", "10.50.1.20"), pod("shop", "db", "10.50.2.10"), pod("shop", "idle", "10.50.2.30")
	late := tcp(db, web, 41000)
	late.Reply = true
	denied := tcp(web, idle, 8080)
	denied.Verdict = observerapi.Denied
	again := tcp(web, db, 9999)
	again.First, again.Last, again.Connections = day.Add(-time.Hour), day.Add(2*time.Hour), 1
	flows := []observerapi.Flow{
		tcp(web, db, 5432), tcp(web, db, 9999), again, denied, late,
		tcp(outside("198.51.100.7"), db, 5432), tcp(outside("198.51.100.9"), db, 5432),
		tcp(observerapi.End{Namespace: "shop", Hidden: true}, db, 5432),
		tcp(pod("lab", "a", "10.50.1.1"), pod("lab", "b", "10.50.1.2"), 80), // its namespace has no policy
		tcp(observerapi.End{Namespace: "lab", Hidden: true}, pod("lab", "b", "10.50.1.2"), 80),
	}
	staged := networkPolicy(t, "metadata: {name: web, namespace: shop, labels: {kidoban.dev/enforcement: audit}}\nspec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}")
	o := Options{
		Before: Policies{NetworkPolicies: networkPolicies(t, []string{denyIngress})},
		After:  Policies{NetworkPolicies: append(networkPolicies(t, []string{allowWeb}), staged)},
	}
	o.Before.NetworkPolicies[0].Spec.PodSelector.MatchLabels = map[string]string{"app": "idle"}
	r := run(t, recordingOf(t, observerapi.Coverage{Since: day, Until: day.Add(24 * time.Hour)}, flows...), o)
	if !r.Complete || !r.WouldDeny() {
		t.Error("complete", r.Complete, "would deny", r.WouldDeny())
	}
	if r.Judged.Records != 9 || r.Replies.Records != 1 || r.Unchanged.Records != 3 {
		t.Errorf("judged %d, replies %d, unchanged %d", r.Judged.Records, r.Replies.Records, r.Unchanged.Records)
	}
	var got []string
	for _, c := range r.Changes {
		got = append(got, fmt.Sprintf("%s > %s %s %s %d %s", c.Outside(c.From), c.Outside(c.To), c.Ports(), c.After, c.Connections, c.Why))
	}
	want := []string{
		"198.51.100.7, 198.51.100.9 > shop/db TCP 5432 Denied 20 ingress: isolated by shop/db, no rule allows it",
		"shop/web > shop/db TCP 9999 Denied 11 ingress: isolated by shop/db, no rule allows it",
		"shop/web > shop/idle TCP 8080 Allowed 10 ingress: isolated by shop/default-deny, no rule allows it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if c := r.Changes[1]; !c.First.Equal(again.First) || !c.Last.Equal(again.Last) {
		t.Errorf("from %v to %v", c.First, c.Last)
	}
	if len(r.Audited) != 2 || r.Audited[0].To.Name != "db" || r.Audited[0].Port != 5432 || r.Audited[1].To.Name != "idle" {
		t.Errorf("audited %+v", r.Audited)
	}
	if len(r.Unknown) != 1 || r.Unknown[0].Reason != ReasonHidden || r.Unknown[0].Records != 1 {
		t.Errorf("unknown %+v", r.Unknown)
	}

	shuffled := slices.Clone(flows)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	one, _ := json.Marshal(r)
	other, _ := json.Marshal(run(t, recordingOf(t, r.Coverage, shuffled...), o))
	if string(one) != string(other) {
		t.Errorf("in another order:\n%s\n%s", one, other)
	}
}

// A change of the domain names of an ApplicationNetworkPolicy is one, though its spec as a NetworkPolicy stays.
func TestNamesOfApplicationNetworkPolicies(t *testing.T) {
	named := func(name string) networkingv1.NetworkPolicy {
		p := &application.Policy{}
		if err := yaml.UnmarshalStrict([]byte("metadata: {name: vendor, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{domainNames: ["+name+"]}]}]}"), p); err != nil {
			t.Fatal(err)
		}
		return *p.NetworkPolicy()
	}
	file := recordingOf(t, observerapi.Coverage{}, tcp(pod("shop", "web", "10.50.1.20"), outside("192.0.2.1", "a.vendor.example"), 443))
	for name, want := range map[string]int{"a.vendor.example": 0, "b.vendor.example": 1} {
		r := run(t, file, Options{Before: Policies{NetworkPolicies: []networkingv1.NetworkPolicy{named("a.vendor.example")}}, After: Policies{NetworkPolicies: []networkingv1.NetworkPolicy{named(name)}}})
		if len(r.Changes)+len(r.Unknown) != want {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestSinceAndLosses(t *testing.T) {
	web, db := pod("shop", "web", "10.50.1.20"), pod("shop", "db", "10.50.2.10")
	old := tcp(web, db, 1)
	old.First, old.Last = day.Add(-2*time.Hour), day.Add(-time.Hour)
	file := recordingOf(t, observerapi.Coverage{Since: day.Add(-2 * time.Hour), Until: day.Add(time.Hour), CompleteSince: day.Add(-90 * time.Minute),
		Losses: []observerapi.Loss{{Node: "n7", First: day.Add(-80 * time.Minute), Last: day.Add(-79 * time.Minute), Reason: "rate", Packets: 7}}}, old, tcp(web, db, 2))
	o := Options{After: Policies{NetworkPolicies: networkPolicies(t, []string{denyIngress})}}
	if r := run(t, file, o); r.Complete || len(r.Changes) != 2 {
		t.Errorf("with losses: complete %v, %d changes", r.Complete, len(r.Changes))
	}
	o.Since = day.Add(-time.Minute)
	if r := run(t, file, o); !r.Complete || len(r.Changes) != 1 || !r.Coverage.Since.Equal(o.Since) {
		t.Errorf("after the losses: complete %v, %d changes, since %v", r.Complete, len(r.Changes), r.Coverage.Since)
	}
}
