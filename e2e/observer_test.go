//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// TestObserver installs the observer and asks it for flows of the shop: allowed and denied ones, with the decisions of both ends, and those of
// pods that no policy isolates.
func TestObserver(t *testing.T) {
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
	if r := dial(t, &frontend, &backend, 8000); r.Outcome != reach.Open {
		t.Fatalf("the frontend does not reach the backend: %+v", r)
	}
	o := connectToObserver(t)
	t.Run("status through the observer", func(t *testing.T) {
		var s struct {
			Observer string
			Observed int
			Nodes    []struct{}
		}
		kidobanJSON(t, 0, &s, "status", "--wait")
		if s.Observer == "" || s.Observed != len(s.Nodes) || len(s.Nodes) == 0 {
			t.Errorf("the observer %q answered for %d of %d nodes", s.Observer, s.Observed, len(s.Nodes))
		}
		contains(t, kidoban(t, 0, "status", "policy", "shop/database"), "From the observer, pod "+s.Observer)
	})
	for _, want := range []struct {
		name     string
		from, to corev1.Pod
		port     uint16
		verdict  observerapi.Verdict
		ingress  string // reason
		policy   string // that decided, or isolates
	}{
		{"a rule allows", backend, database, 5432, observerapi.Allowed, agentapi.ReasonPolicy, "database"},
		{"the default denies", frontend, database, 5432, observerapi.Denied, agentapi.ReasonDefaultDeny, "database"},
		{"no policy isolates the pods", frontend, backend, 8000, observerapi.Allowed, agentapi.ReasonDefaultAllow, ""},
	} {
		t.Run(want.name, func(t *testing.T) {
			eventually(t, "a flow with both decisions", func(ctx context.Context) error {
				var list observerapi.FlowList
				query := url.Values{"namespace": {"shop"}, "since": {began.UTC().Format(time.RFC3339)}, "pod": {want.to.Name}}
				if err := o.get(ctx, observerapi.PathFlows, query, &list); err != nil {
					return err
				}
				err := fmt.Errorf("none of %d flows", len(list.Flows))
				for i := range list.Flows { // some may be of the time before the policy
					f := &list.Flows[i]
					if f.Source.Pod != want.from.Name || f.Destination.Pod != want.to.Name || f.Port != want.port {
						continue
					}
					switch {
					case f.Egress == nil || f.Ingress == nil || f.Sides != observerapi.Complete:
						err = fmt.Errorf("a decision is missing: %+v", f)
					case f.Verdict != want.verdict || f.Egress.Verdict != observerapi.Allowed || f.Egress.Reason != agentapi.ReasonDefaultAllow || f.Ingress.Reason != want.ingress:
						err = fmt.Errorf("got %s: egress %+v, ingress %+v", f.Verdict, f.Egress, f.Ingress)
					case f.Connections == 0 || f.Continues || f.Source.Node != want.from.Spec.NodeName || f.Destination.Node != want.to.Spec.NodeName:
						err = fmt.Errorf("got %+v", f)
					case policyNames(f.Ingress) != want.policy:
						err = fmt.Errorf("the ingress decision is of policy %q: %+v", policyNames(f.Ingress), f.Ingress)
					default:
						return nil
					}
				}
				return err
			})
		})
	}
	t.Run("a token of another audience", func(t *testing.T) {
		o.token = createToken(t, agentapi.Audience)
		var list observerapi.FlowList
		if err := o.get(t.Context(), observerapi.PathFlows, nil, &list); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("it gets %v and %d flows", err, len(list.Flows))
		}
	})
}

// policyNames are those that decided or that isolate the pod.
func policyNames(d *observerapi.Decision) string {
	if d.Policy != nil {
		return d.Policy.Name
	}
	var names []string
	for _, p := range d.IsolatedBy {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

// installObserver installs the component, and removes it when the test ends.
func installObserver(t *testing.T) {
	t.Helper()
	ctx := context.Background() // this also runs as a cleanup
	t.Cleanup(func() {
		if err := engine.RemoveObserver(ctx, test); err != nil {
			t.Error(err)
		}
	})
	if err := engine.InstallObserver(ctx, test); err != nil {
		t.Fatal(err)
	}
}

// observer is a connection to the observer's API.
type observer struct {
	client *http.Client
	url    string
	token  string
	// authority has the certificates that it is verified with, PEM.
	authority []byte
}

// connectToObserver forwards a port, as kubectl kidoban does.
func connectToObserver(t *testing.T) *observer {
	t.Helper()
	forward := test.Kubectl(t.Context(), "-n", engine.Namespace, "port-forward", "deployment/"+engine.Observer, fmt.Sprint(":", observerapi.Port))
	out, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endForward(t, forward) })
	address := ""
	for lines := bufio.NewScanner(out); address == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Forwarding from "); ok {
			address, _, _ = strings.Cut(rest, " -> ")
		}
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		t.Fatalf("kubectl forwards no port: %v", err)
	}
	var authority corev1.ConfigMap
	key := client.ObjectKey{Namespace: engine.Namespace, Name: engine.Observer + "-ca"}
	if err := store.Client.Get(t.Context(), key, &authority); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(authority.Data["ca.crt"])) {
		t.Fatalf("ConfigMap %s has no certificate", key)
	}
	return &observer{
		url: "https://" + address, token: createToken(t, engine.Observer), authority: []byte(authority.Data["ca.crt"]),
		client: &http.Client{
			Timeout:   30 * time.Second,
			Transport: &http.Transport{DialContext: test.DialControlPlane, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: engine.Observer}},
		},
	}
}

func endForward(t *testing.T, forward *exec.Cmd) {
	if err := forward.Process.Kill(); err != nil {
		t.Log(err)
	}
	_ = forward.Wait() // it was killed
}

func createToken(t *testing.T, audience string) string {
	t.Helper()
	token, err := cluster.Output(test.Kubectl(t.Context(), "-n", engine.Namespace, "create", "token", agentapi.Viewer, "--audience="+audience))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(token)
}

func (o *observer) get(ctx context.Context, path string, query url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+o.token)
	response, err := o.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}
