package lab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// An address in a policy's block that a pod has is the pod's: two hosts with one address would take each other's packets.
func TestTheWorldOutsideHasNoPodsAddress(t *testing.T) {
	env := command.NewEnv()
	env.In = strings.NewReader(`
kind: Pod
apiVersion: v1
metadata: {name: a, namespace: shop}
spec: {containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.7}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: np, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.7/32}}, {ipBlock: {cidr: 10.0.0.8/32}}]}]}
`)
	o := &options{source: &command.Source{Files: []string{"-"}}, replicas: 2}
	_, m, err := o.read(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.8")}; !slices.Equal(m.Outside, want) {
		t.Errorf("%v, want %v", m.Outside, want)
	}
}
