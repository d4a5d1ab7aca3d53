//go:build e2e && hubble

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestHubble asks the observer of the cluster with the hubble command, through a forwarded port, over TLS and with a token as the password.
func TestHubble(t *testing.T) {
	program := filepath.Join(test.Repo, "dist", "hubble")
	build := exec.Command("go", "-C", filepath.Join(test.Repo, "hack", "hubbleenv"), "build", "-trimpath", "-o", program, "github.com/cilium/cilium/hubble")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the hubble command: %v\n%s", err, out)
	}
	installObserver(t)
	create(t, ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")}))
	awaitInForce(t)
	frontend, backend, database := pods(t, "frontend")[0], pods(t, "backend")[0], pods(t, "database")[0]
	began := time.Now().Add(-time.Second)
	if r := dial(t, &backend, &database, 5432); r.Outcome != reach.Open {
		t.Fatalf("the backend does not reach the database: %+v", r)
	}
	if r := dial(t, &frontend, &database, 5432); r.Outcome != reach.TimedOut {
		t.Fatalf("the frontend is not denied: %+v", r)
	}
	o := connectToObserver(t)
	authority := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(authority, o.authority, 0o600); err != nil {
		t.Fatal(err)
	}
	hubble := func(ctx context.Context, args ...string) (string, error) {
		return cluster.Output(test.Outside(ctx, append(append([]string{program}, args...),
			"--server="+strings.TrimPrefix(o.url, "https://"), "--tls", "--tls-server-name="+engine.Observer, "--tls-ca-cert-files="+authority,
			"--basic-auth-username=kidoban", "--basic-auth-password="+o.token)...))
	}
	for name, tc := range map[string]struct {
		filters []string
		wanted  []string
		not     string
	}{
		"a denied connection": {
			[]string{"--verdict=DROPPED", "--to-port=5432", "--protocol=tcp"},
			[]string{frontend.Name, database.Name, `"DROPPED"`, `"ingress_denied_by"`, `"database"`}, `"FORWARDED"`,
		},
		"an allowed one": {
			[]string{"--verdict=FORWARDED", "--to-pod=shop/" + database.Name, "--to-port=5432"},
			[]string{backend.Name, database.Name, `"FORWARDED"`, `"ingress_allowed_by"`}, `"DROPPED"`,
		},
		"an address":             {[]string{"--from-ip=" + frontend.Status.PodIP}, []string{frontend.Name}, `"ip":{"source":"` + backend.Status.PodIP},
		"a namespace":            {[]string{"--namespace=shop"}, []string{frontend.Name, backend.Name}, ""},
		"the flows of both pods": {[]string{"--pod=shop/" + database.Name}, []string{frontend.Name, backend.Name}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"observe", "--output=json", "--since=" + began.UTC().Format(time.RFC3339)}, tc.filters...)
			eventually(t, "hubble shows it", func(ctx context.Context) error {
				out, err := hubble(ctx, args...)
				if err != nil {
					return err
				}
				if tc.not != "" && strings.Contains(out, tc.not) {
					return fmt.Errorf("%q is in\n%s", tc.not, out)
				}
				for _, text := range tc.wanted {
					if !strings.Contains(out, text) {
						return errors.New("without " + text + ":\n" + out)
					}
				}
				return nil
			})
		})
	}
	if out, err := hubble(t.Context(), "status"); err != nil || !strings.Contains(out, "Connected Nodes") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := hubble(t.Context(), "list", "nodes"); err != nil || !strings.Contains(out, frontend.Spec.NodeName) {
		t.Errorf("%v: %s", err, out)
	}
	o.token = "wrong"
	if out, err := hubble(t.Context(), "observe", "--last=1"); err == nil {
		t.Errorf("with a wrong token: %s", out)
	}
}
