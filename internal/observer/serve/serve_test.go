package serve

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/certificates"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// fixture is an observer with flows of the namespaces shop and secret. The token "all" reads all, "shop" reads shop, "none" nothing;
// "other" is a token for another audience, and "broken" makes the API server fail.
type fixture struct {
	t     *testing.T
	url   string
	flows *flows.Flows
	store store.Store
	http  *http.Client
	next  uint64
}

func newFixture(t *testing.T) *fixture {
	s, err := sqlite.Open(t.TempDir(), store.Limits{Age: 24 * time.Hour, ExactAge: 24 * time.Hour, Bytes: 1 << 30, Addresses: 100}, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	client.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		if r.Spec.Token == "broken" {
			return true, nil, fmt.Errorf("the API server is away")
		}
		r.Status.User.Username = r.Spec.Token
		r.Status.Authenticated = strings.Contains(" all shop none other ", " "+r.Spec.Token+" ")
		if r.Status.Audiences = r.Spec.Audiences; r.Spec.Token == "other" {
			r.Status.Audiences = []string{"https://kubernetes.default.svc"}
		}
		return true, r, nil
	})
	client.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		attributes := r.Spec.ResourceAttributes
		if attributes.Group != "kidoban.dev" || attributes.Resource != "flows" || attributes.Verb != "get" {
			t.Errorf("%+v", attributes)
		}
		r.Status.Allowed = r.Spec.User == "all" || r.Spec.User == "shop" && attributes.Namespace == "shop"
		return true, r, nil
	})
	issuer := certificates.Issuer{ServerName: flow.ServerName, Lifetimes: certificates.Usual}
	b, _, err := issuer.Rotate(certificates.Bundle{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, store: s, flows: flows.New(flows.Options{
		Store: s, Nodes: func() []string { return []string{"n1", "n2", "silent"} }, Agents: func() []ingest.Agent { return nil }, CertificateExpires: func() time.Time { return time.Time{} },
	})}
	server, err := New(Options{
		Flag: "--api-bind-address", Address: "127.0.0.1:0", Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return issuer.Usable(b, time.Now()), nil },
		Flows: f.flows, Agents: reporters{"n1": `{"denied":1}`, "n2": "", "n3": "{"}, Log: testr.New(t),
		Guard: &access.Guard{Audience: flow.Audience, Tokens: client.AuthenticationV1().TokenReviews(), Access: client.AuthorizationV1().SubjectAccessReviews()},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.url = "https://" + server.Addr().String()
	f.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func pod(namespace, name string) *observerapi.End {
	return &observerapi.End{
		Namespace: namespace, Pod: name + "-0", UID: "uid-" + name, Node: "n1", Workload: &agentapi.Workload{Kind: "Deployment", Name: name},
		Labels: map[string]string{"app": name + "-label"}, NamespaceLabels: map[string]string{"team": namespace + "-team"}, Address: netip.MustParseAddr("10.0.0." + fmt.Sprint(len(name))),
	}
}

var (
	web, db    = pod("shop", "web"), pod("shop", "database")
	vault, key = pod("secret", "vault-server"), pod("secret", "keys")
)

func decision(namespace string, verdict observerapi.Verdict) *observerapi.Decision {
	return &observerapi.Decision{Verdict: verdict, Reason: "policy", Tier: "NetworkPolicy", Policy: &agentapi.RuleRef{
		PolicyRef: agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: namespace, Name: namespace + "-policy"}, Rules: []int32{0}}}
}

// put stores a flow with both sides, n connections of it, some time ago.
func (f *fixture) put(source, destination *observerapi.End, port uint16, verdict observerapi.Verdict, n uint64, ago time.Duration) {
	f.t.Helper()
	f.next++
	first := time.Now().Add(-ago)
	r := store.Report{First: first, Last: first, Direction: store.Egress, Source: source, Destination: destination, Protocol: "TCP", Port: port, Decision: decision(source.Namespace, observerapi.Allowed), Connections: n, Service: "secret/service"}
	i := r
	i.Direction, i.Decision, i.Service = store.Ingress, decision(destination.Namespace, verdict), ""
	batch := store.Batch{Node: "n1", Generation: "g", Sequence: f.next, Received: time.Now(), Reports: []store.Report{r, i}}
	if err := f.store.Put(f.t.Context(), []store.Batch{batch}); err != nil {
		f.t.Fatal(err)
	}
	f.flows.Stored([]store.Batch{batch})
}

func (f *fixture) request(token, path string) *http.Response {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.url+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := f.http.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return res
}

func (f *fixture) get(token, path string) (int, string) {
	f.t.Helper()
	res := f.request(token, path)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (f *fixture) list(token, path string) (out observerapi.FlowList) {
	f.t.Helper()
	status, body := f.get(token, path)
	if status != http.StatusOK || json.Unmarshal([]byte(body), &out) != nil {
		f.t.Fatalf("%s: %d %s", path, status, body)
	}
	return out
}

func connections(l observerapi.FlowList) (n uint64) {
	for _, f := range l.Flows {
		n += f.Connections
	}
	return n
}

func (f *fixture) fill() {
	f.put(web, db, 5432, observerapi.Allowed, 1, 50*time.Minute)
	f.put(web, vault, 8200, observerapi.Denied, 2, 40*time.Minute)
	f.put(key, web, 8080, observerapi.Allowed, 4, 30*time.Minute)
	f.put(key, vault, 8200, observerapi.Allowed, 8, 20*time.Minute)
}

func TestAnswers(t *testing.T) {
	f := newFixture(t)
	f.fill()
	for query, want := range map[string]uint64{
		"": 15, "?since=45m": 14, "?since=45m&until=25m": 6, "?namespace=shop": 7, "?namespace=shop&workload=database": 1, "?workload=secret/keys": 12,
		"?verdict=Denied": 2, "?port=8200": 10, "?protocol=UDP": 0, "?policy=secret/secret-policy": 14, "?policy=none": 0, "?namespace=shop&pod=database-0": 1,
		"?limit=2": 3, "?limit=2&newest": 12,
	} {
		if got := connections(f.list("all", observerapi.PathFlows+query)); got != want {
			t.Errorf("flows%s: %d connections, want %d", query, got, want)
		}
	}
	edges := f.list("all", observerapi.PathEdges)
	if connections(edges) != 15 || edges.Kind != observerapi.KindFlowList {
		t.Errorf("%+v", edges)
	}
	for _, e := range edges.Flows {
		if e.Source.Pod+e.Source.UID != "" || e.Source.Labels != nil || e.Source.Address.IsValid() || e.Source.Workload == nil || e.Sides != observerapi.Complete {
			t.Errorf("%+v", e)
		}
	}
	var absent []string
	for _, l := range edges.Coverage.Losses {
		if l.Reason == observerapi.LossAbsent {
			absent = append(absent, l.Node)
		}
	}
	if strings.Join(absent, " ") != "n2 silent" {
		t.Errorf("absent: %v", absent)
	}
	_, body := f.get("all", observerapi.PathHits+"?policy=secret/secret-policy")
	var hits observerapi.HitList
	if err := json.Unmarshal([]byte(body), &hits); err != nil || len(hits.Hits) != 3 || hits.Hits[0].Connections != 12 || hits.Hits[0].Direction != "Egress" {
		t.Errorf("%s %v", body, err)
	}
	var status observerapi.Status
	if code, body := f.get("all", observerapi.PathStatus); code != http.StatusOK || json.Unmarshal([]byte(body), &status) != nil || status.Reports != 8 || len(status.Nodes) != 3 {
		t.Errorf("%d %s", code, body)
	}
}

// A reader of one namespace sees of the others namespace and workload, whatever it asks.
func TestNamespacedReader(t *testing.T) {
	f := newFixture(t)
	f.fill()
	secrets := []string{"vault-server-0", "uid-", "vault-server-label", "secret-team", "secret-policy", "10.0.0.12", "10.0.0.4", "secret/service"}
	for query, want := range map[string]uint64{
		"": 7, "?namespace=secret": 6, "?namespace=secret&workload=keys": 4, "?verdict=Denied": 2,
		// Filters do not see what is hidden.
		"?namespace=secret&pod=vault-server-0": 0, "?policy=secret/secret-policy": 0, "?policy=NetworkPolicy/secret/secret-policy": 0,
	} {
		for _, path := range []string{observerapi.PathFlows, observerapi.PathEdges} {
			code, body := f.get("shop", path+query)
			var list observerapi.FlowList
			if code != http.StatusOK || json.Unmarshal([]byte(body), &list) != nil {
				t.Fatalf("%s%s: %d %s", path, query, code, body)
			}
			if got := connections(list); got != want {
				t.Errorf("%s%s: %d connections, want %d", path, query, got, want)
			}
			for _, flow := range list.Flows {
				for _, e := range []observerapi.End{flow.Source, flow.Destination} {
					if e.Namespace != "secret" {
						continue
					}
					text, _ := json.Marshal(e)
					if !e.Hidden || string(text) != fmt.Sprintf(`{"namespace":"secret","workload":{"kind":"Deployment","name":%q},"hidden":true}`, e.Workload.Name) {
						t.Errorf("%s%s: %s", path, query, text)
					}
				}
			}
			for _, secret := range secrets {
				if secret != "uid-" && strings.Contains(body, secret) {
					t.Errorf("%s%s reveals %s", path, query, secret)
				}
			}
		}
	}
	if _, body := f.get("shop", observerapi.PathHits); strings.Contains(body, "secret") || !strings.Contains(body, "shop-policy") {
		t.Error(body)
	}
	if code, _ := f.get("shop", observerapi.PathStatus); code != http.StatusForbidden {
		t.Error(code)
	}
	// kubectl kidoban chooses a replica by this answer.
	if c := f.list("shop", observerapi.PathFlows+"?since=1970-01-01T00:00:00Z&until=1970-01-01T00:00:01Z").Coverage; time.Since(c.CompleteSince).Abs() > time.Minute {
		t.Errorf("%+v", c)
	}
	if got := connections(f.list("none", observerapi.PathFlows)); got != 0 {
		t.Errorf("a reader without rights sees %d connections", got)
	}
}

func TestHostileReaders(t *testing.T) {
	f := newFixture(t)
	f.fill()
	for token, want := range map[string]int{"": http.StatusUnauthorized, "unknown": http.StatusUnauthorized, "other": http.StatusUnauthorized, "broken": http.StatusServiceUnavailable, strings.Repeat("x", 10_000): http.StatusUnauthorized} {
		for _, path := range []string{observerapi.PathFlows, observerapi.PathFlows + "?follow", observerapi.PathEdges, observerapi.PathHits, observerapi.PathStatus} {
			if code, body := f.get(token, path); code != want {
				t.Errorf("token %.10q, %s: %d %s", token, path, code, body)
			}
		}
	}
	for _, query := range []string{
		"since=yesterday", "until=x", "limit=0", "limit=1000000", "port=70000", "verdict=denied", "policy=a/b/c/d", "policy=/", "unknown=1", "since=1h&since=2h", "pod=x", "follow=perhaps",
		"until=1h&follow", "since=1m&until=1h", "namespace=" + strings.Repeat("x", 5000),
	} {
		if code, body := f.get("all", observerapi.PathFlows+"?"+query); code != http.StatusBadRequest || strings.Count(body, "\n") != 1 {
			t.Errorf("%.40s: %d %s", query, code, body)
		}
	}
	post, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+observerapi.PathFlows, strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := f.http.Do(post); err == nil {
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Error(res.Status)
		}
		_ = res.Body.Close()
	}
	if code, _ := f.get("all", observerapi.PathFlows+"?"+url.Values{"namespace": {"'; DROP TABLE exact; --"}, "policy": {`x"' OR 1=1`}}.Encode()); code != http.StatusOK {
		t.Error(code)
	}
	if got := connections(f.list("all", observerapi.PathFlows)); got != 15 {
		t.Errorf("%d connections", got)
	}
}

// A follower gets what is stored since a time, and then each connection once as it arrives.
func TestFollow(t *testing.T) {
	f := newFixture(t)
	f.fill()
	f.put(web, db, 5432, observerapi.Allowed, 16, time.Second)
	res := f.request("shop", observerapi.PathFlows+"?follow&since=35m")
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	read := func() (line observerapi.FollowedLine) {
		for lines.Scan() {
			if len(lines.Bytes()) == 0 {
				continue
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Fatalf("%s: %v", lines.Text(), err)
			}
			return line
		}
		t.Fatal("the answer ended", lines.Err())
		return line
	}
	if a, b := read(), read(); a.Connections != 4 || b.Connections != 16 {
		t.Errorf("%d and %d connections", a.Connections, b.Connections)
	}
	if l := read(); l.IsFlow() || len(l.Losses) != 2 || l.Losses[0].Node != "n2" || l.Losses[1].Reason != observerapi.LossAbsent {
		t.Errorf("what is missing in the time before: %+v", l)
	}
	f.flows.Stored([]store.Batch{{Node: "n1", Generation: "h", Sequence: 1, Losses: []observerapi.Loss{{Node: "n1", Reason: "map", Packets: 7}}}})
	if l := read(); l.IsFlow() || len(l.Losses) != 1 || l.Losses[0].Packets != 7 {
		t.Errorf("what is missing in what arrives: %+v", l)
	}
	f.put(key, vault, 8200, observerapi.Allowed, 32, 0) // not for this reader
	f.put(web, vault, 8200, observerapi.Denied, 64, 0)
	if flow := read(); flow.Connections != 64 || !flow.Destination.Hidden || flow.Verdict != observerapi.Denied {
		t.Errorf("%+v", flow)
	}
}

// Hubble's API is on the same port, and knows the token as a password, too.
func TestTokenOf(t *testing.T) {
	for header, want := range map[string]string{"Bearer a": "a", "bearer  a ": "a", "Basic dXNlcjphOmI=": "a:b", "Basic x": "", "Digest a": "", "": ""} {
		if got := TokenOf(header); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}
