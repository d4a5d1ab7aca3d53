package ui

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestAnEdgeIsExplainedAsOnTheCommandLine(t *testing.T) {
	s := serve(t, readShop(t))
	e := get[Edge](t, s, "/api/edge?from=shop/frontend&to=shop/database")
	if len(e.Ports) != 4 {
		t.Fatalf("ports: %+v", e.Ports)
	}
	p := e.Ports[0]
	if p.Port != 5432 || p.Answer.Allowed || len(p.Sentences) != 1 || len(p.Sentences[0]) != 2 {
		t.Fatalf("port: %+v", p)
	}
	for i, want := range []string{
		"denied: selected by 3 NetworkPolicies (shop/allow-dns, shop/default-deny, shop/frontend); none of their rules allows this connection",
		"denied: selected by 3 NetworkPolicies (shop/allow-metrics, shop/database, shop/default-deny); none of their rules allows this connection",
	} {
		if got := p.Sentences[0][i]; got != want || !strings.Contains(p.Text, want) {
			t.Errorf("sentence %q, want %q, in\n%s", got, want, p.Text)
		}
	}
	if p.Command != "kubectl kidoban explain shop/frontend shop/database:5432" {
		t.Error(p.Command)
	}
	if y := e.Policies["NetworkPolicy shop/database"]; !strings.Contains(y, "kind: NetworkPolicy") || !strings.Contains(y, "endPort: 5439") {
		t.Errorf("policy: %s", y)
	}
	e = get[Edge](t, s, "/api/edge?from=shop/backend&to=shop/database&port=6000&port=5432&port=other&port=53/UDP")
	var verdicts []string
	for _, p := range e.Ports {
		verdicts = append(verdicts, fmt.Sprintf("%d/%s %t", p.Port, p.Protocol, p.Answer.Allowed))
	}
	if want := []string{"6000/TCP false", "5432/TCP true", "0/TCP false", "53/UDP false"}; !slices.Equal(verdicts, want) {
		t.Errorf("ports that the page names: %v, want %v", verdicts, want)
	}
	if w := s.request("GET", "/api/edge?from=shop/frontend&to=shop/database&port=80/ICMP", ""); w.Code != 400 {
		t.Errorf("a protocol without ports: %d %s", w.Code, w.Body)
	}
	if w := s.request("GET", "/api/edge?from=shop/nothing&to=shop/database", ""); w.Code != 404 {
		t.Errorf("a workload that is gone: %d %s", w.Code, w.Body)
	}
}

func TestPoliciesAreInTheOrderOfEvaluation(t *testing.T) {
	s := serve(t, read(t, withOutside))
	list := get[struct{ Policies []Policy }](t, s, "/api/policies").Policies
	var ids []string
	for _, p := range list {
		ids = append(ids, p.Tier+" "+p.ID)
	}
	if !slices.Equal(ids, []string{"Admin ClusterNetworkPolicy names", "NetworkPolicy NetworkPolicy shop/web"}) {
		t.Fatalf("%v", ids)
	}
	if p := list[0]; p.Ingress.Isolates || len(p.Egress.Nodes) != 1 || p.Egress.Rules != 1 || p.Source == "" {
		t.Errorf("%+v", p)
	}
	for id, want := range map[string][]string{
		"ClusterNetworkPolicy%20names": {"spec.egress[0] Accept", "*.example.com"},
		"NetworkPolicy%20shop/web":     {"spec.ingress[0] Allow", "except:"},
	} {
		p := get[PolicyDetail](t, s, "/api/policy?id="+id)
		if p.Rules[0].Path+" "+p.Rules[0].Action != want[0] || !strings.Contains(p.Rules[0].YAML, want[1]) || !strings.Contains(p.YAML, "spec:") {
			t.Errorf("%+v", p)
		}
	}
}

func TestWhatIfIsTheDifference(t *testing.T) {
	s := serve(t, readShop(t))
	post := func(text string) (out WhatIf, status int, body string) {
		w := s.request("POST", "/api/whatif", text, "Origin", "http://"+s.listener.Addr().String())
		body = w.Body.String()
		_ = json.Unmarshal([]byte(body), &out)
		return out, w.Code, body
	}
	out, _, body := post(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database, namespace: shop}
spec: {podSelector: {matchLabels: {app.kubernetes.io/name: database}}, ingress: [{from: [{podSelector: {matchLabels: {app.kubernetes.io/name: backend}}}], ports: [{port: 5432}]}]}
`)
	if !slices.Equal(out.Changed, []string{"shop/database"}) || len(out.Pairs) != 1 || out.Pairs[0].From != "shop/backend" || out.Pairs[0].To != "shop/database" ||
		!strings.Contains(out.Pairs[0].Lost, "5433-5439") || out.Pairs[0].Gained != "" || !strings.Contains(out.Text, "not reachable any more") {
		t.Errorf("%+v %s", out, body)
	}
	for text, want := range map[string]string{
		"": "",
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelecter: {}}\n": "podSelecter",
		"\nfoo: [": "manifests",
	} {
		if _, status, body := post(text); status != 400 && text != "" || !strings.Contains(body, want) {
			t.Errorf("%q: %d %s", text, status, body)
		}
	}
}
