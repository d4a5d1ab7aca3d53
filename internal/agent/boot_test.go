package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/node"
)

// In guarded and strict, no pod starts on a node before its policies are in force, except those on the host's network: kube-proxy, the CNI
// plugin and the agent itself are needed first.
func TestPodsOfANodeThatBoots(t *testing.T) {
	for _, test := range []struct {
		mode    node.Mode
		audit   bool
		rejects bool
	}{
		{node.Standard, false, false}, {node.Guarded, false, true}, {node.Strict, false, true}, {node.Strict, true, false},
	} {
		kernel := newFakeKernel()
		a := New(nil, kernel, Options{SharedNamespace: "kidoban-system", Mode: test.mode, Audit: test.audit, Log: testr.New(t), Registry: prometheus.NewRegistry()})
		over, end := context.WithCancel(t.Context())
		end() // so that the hook does not wait for the pod's namespace
		if err := a.Plugin().RunPodSandbox(over, sandbox("web", "10.0.0.1")); errors.Is(err, errEarlyPod) != test.rejects {
			t.Errorf("%s, audit %t, before policies are in force: %v", test.mode, test.audit, err)
		}
		host := sandbox("kube-proxy", "192.0.2.1")
		host.Linux.Namespaces[0].Path = ""
		if err := a.Plugin().RunPodSandbox(over, host); err != nil {
			t.Errorf("%s, on the host's network: %v", test.mode, err)
		}
		a.applied.setInForce()
		if err := a.Plugin().RunPodSandbox(over, sandbox("web", "10.0.0.1")); err != nil {
			t.Errorf("%s, once policies are in force: %v", test.mode, err)
		}
	}
}
