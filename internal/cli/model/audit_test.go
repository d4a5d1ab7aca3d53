package model

import (
	"slices"
	"strings"
	"testing"
)

const auditLabel = "labels: {kidoban.dev/enforcement: audit}, "

const ofShop = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: db, ports: [{containerPort: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {LABEL name: deny, namespace: shop}
spec: {podSelector: {}}
`

func labelled(t *testing.T, value string) *Cluster {
	t.Helper()
	m := &Manifests{Namespace: "shop"}
	if err := m.Read("shop", strings.NewReader(strings.ReplaceAll(ofShop, "LABEL ", value))); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnAuditedPolicyHasNoSay(t *testing.T) {
	audited, enforced := labelled(t, auditLabel), labelled(t, "")
	if got := audited.Audited(); !slices.Equal(got, []string{"NetworkPolicy shop/deny"}) || len(enforced.Audited()) != 0 {
		t.Errorf("audited: %v", got)
	}
	web, db := Workload{"shop", "Pod", "web"}, Workload{"shop", "Pod", "db"}
	port := Port{Number: 5432, Protocol: 6}
	for name, tc := range map[string]struct {
		cluster *Cluster
		want    Verdict
	}{
		"audited": {audited, Allowed}, "enforced": {enforced, Denied},
		"as if audited policies were enforced": {audited.EnforceAudited(), Denied},
	} {
		if got := NewReach(tc.cluster).Verdict(web, db, port); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	d := NewDifference(audited, enforced)
	if !slices.Equal(d.Changed, []string{"shop/deny"}) || len(d.Pairs) == 0 {
		t.Errorf("a change of the label: changed %v, pairs %v", d.Changed, d.Pairs)
	}
	if d := NewDifference(audited, audited); !d.Empty() {
		t.Errorf("no change: %+v", d)
	}
}
