package streamserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/stream"
)

const namespace = "kidoban-system"

// fakeToken returns a token with these claims. The fake API server accepts those with the signature "good".
func fakeToken(node, pod, signature string, change ...func(map[string]any)) string {
	c := map[string]any{
		"aud": []string{stream.Audience}, "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": namespace, "serviceaccount": map[string]any{"name": stream.AgentServiceAccount},
			"pod": map[string]any{"name": "agent-" + node, "uid": pod}, "node": map[string]any{"name": node},
		},
	}
	for _, f := range change {
		f(c)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + "." + signature
}

// fakeReviews is an API server that accepts the tokens with the signature "good".
type fakeReviews struct {
	count atomic.Int64
	// unbound leaves the node's name out, as Kubernetes before 1.30 does.
	unbound bool
}

func (f *fakeReviews) Create(_ context.Context, r *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	f.count.Add(1)
	c, ok := parseClaims(r.Spec.Token)
	if !ok || !strings.HasSuffix(r.Spec.Token, ".good") {
		return r, nil
	}
	k := c.Kubernetes
	r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: r.Spec.Audiences, User: authenticationv1.UserInfo{
		Username: "system:serviceaccount:" + k.Namespace + ":" + k.ServiceAccount.Name,
		Extra:    map[string]authenticationv1.ExtraValue{extraNode: {k.Node.Name}, extraPodUID: {k.Pod.UID}},
	}}
	if f.unbound {
		delete(r.Status.User.Extra, extraNode)
	}
	return r, nil
}

// fakeCluster has the agents' pods, by UID, with their nodes, all on 127.0.0.1.
type fakeCluster struct {
	mu     sync.Mutex
	agents map[string]string
	remote bool // the nodes have other addresses
}

func (f *fakeCluster) IsAgent(node, uid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.agents[uid] == node
}

func (f *fakeCluster) IsNodeAddress(string, netip.Addr) bool { return !f.remote }

// recorder is a Handler that records.
type recorder struct {
	mu        sync.Mutex
	connected map[string]*Session
	received  map[string]int
	ended     int
	flood     bool // answers each message with many
}

func (r *recorder) Connected(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected[s.Node] = s
	s.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Role{Role: &stream.Role{Leader: true}}})
}

func (r *recorder) Received(s *Session, _ *stream.AgentMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received[s.Node]++
	if r.flood {
		big := &stream.Published{Uid: strings.Repeat("x", 4096)}
		for range 64 {
			s.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Published{Published: big}})
		}
	}
}

func (r *recorder) Ended(*Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
}

func (r *recorder) messages(node string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.received[node]
}

type fixture struct {
	t       testing.TB
	server  *Server
	handler *recorder
	reviews *fakeReviews
	cluster *fakeCluster
	roots   *x509.CertPool
	address string // of the server
}

func newFixture(t testing.TB, agents map[string]string) *fixture {
	t.Helper()
	certificate, roots := newCertificate(t)
	f := &fixture{
		t: t, handler: &recorder{connected: map[string]*Session{}, received: map[string]int{}}, reviews: &fakeReviews{},
		cluster: &fakeCluster{agents: agents}, roots: roots,
	}
	server, err := New(Options{
		Flag: "--stream-bind-address", Address: "127.0.0.1:0",
		Certificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil },
		Authenticator: &Authenticator{Audience: stream.Audience, Namespace: namespace, Reviews: f.reviews, Cluster: f.cluster},
		Handler:       f.handler, Registry: prometheus.NewRegistry(), Log: logr.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.server, f.address = server, server.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func newCertificate(t testing.TB) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{stream.ServerName}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, roots
}

type client = grpc.BidiStreamingClient[stream.AgentMessage, stream.ControllerMessage]

// dial returns a connection.
func (f *fixture) dial(options ...grpc.DialOption) *grpc.ClientConn {
	f.t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: f.roots, ServerName: stream.ServerName})))
	conn, err := grpc.NewClient(f.address, options...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// open opens a stream and waits for the server's first message.
func (f *fixture) open(conn *grpc.ClientConn, token string) (client, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	c, err := stream.NewStreamClient(conn).Connect(ctx)
	if err != nil {
		return nil, err
	}
	// An error is the stream's, which Recv returns.
	_ = c.Send(&stream.AgentMessage{Message: &stream.AgentMessage_Hello{Hello: &stream.Hello{Version: "v1"}}})
	_, err = c.Recv()
	return c, err
}

// expectEnd waits until the server ends a stream.
func expectEnd(t *testing.T, c client, code codes.Code) {
	t.Helper()
	for {
		if _, err := c.Recv(); err != nil {
			if status.Code(err) != code {
				t.Errorf("the stream ended with %v, want %s", err, code)
			}
			return
		}
	}
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestRefusals(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1"})
	conn := f.dial(grpc.WithMaxHeaderListSize(1 << 20)) // one for all: an address may have perSource of them
	kubernetes := func(key string, value any) func(map[string]any) {
		return func(c map[string]any) { c["kubernetes.io"].(map[string]any)[key] = value }
	}
	for name, tc := range map[string]struct {
		token   string
		want    Refusal
		reviews int64
	}{
		"no token":         {"", NoToken, 0},
		"random":           {"random", Malformed, 0},
		"random claims":    {"a.b.c", Malformed, 0},
		"too long":         {fakeToken("n1", "uid-1", "good") + strings.Repeat("x", MaxToken), Malformed, 0},
		"the API server's": {fakeToken("n1", "uid-1", "good", func(c map[string]any) { c["aud"] = "https://kubernetes.default.svc" }), WrongAudience, 0},
		"expired":          {fakeToken("n1", "uid-1", "good", func(c map[string]any) { c["exp"] = 1 }), Expired, 0},
		"other account":    {fakeToken("n1", "uid-1", "good", kubernetes("serviceaccount", map[string]any{"name": "default"})), WrongServiceAccount, 0},
		"other namespace":  {fakeToken("n1", "uid-1", "good", kubernetes("namespace", "default")), WrongServiceAccount, 0},
		"no pod":           {fakeToken("n1", "uid-1", "good", kubernetes("pod", nil)), NotBound, 0},
		"unknown pod":      {fakeToken("n1", "uid-2", "good"), UnknownPod, 0},
		"another node":     {fakeToken("n2", "uid-1", "good"), UnknownPod, 0},
		"forged":           {fakeToken("n1", "uid-1", "bad"), Rejected, 1},
	} {
		before, refused := f.reviews.count.Load(), testutil.ToFloat64(f.server.metrics.refused.WithLabelValues(string(tc.want)))
		_, err := f.open(conn, tc.token)
		if err == nil || !strings.Contains(err.Error(), string(tc.want)) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
		if n := f.reviews.count.Load() - before; n != tc.reviews {
			t.Errorf("%s: %d reviews", name, n)
		}
		if n := testutil.ToFloat64(f.server.metrics.refused.WithLabelValues(string(tc.want))) - refused; n != 1 {
			t.Errorf("%s: the metric counts %v", name, n)
		}
	}
	if len(f.handler.connected) > 0 {
		t.Errorf("connected are %v", f.handler.connected)
	}
}

// A Kubernetes that does not name the node in its answer has no streams.
func TestNodeIsNotInTheReview(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1"})
	f.reviews.unbound = true
	if _, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good")); err == nil || !strings.Contains(err.Error(), string(NotBound)) {
		t.Errorf("%v", err)
	}
}

// An agent does not talk to a server with another certificate, and a caller without TLS gets nothing.
func TestForgedCertificate(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1"})
	_, f.roots = newCertificate(t)
	if _, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good")); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	if f.reviews.count.Load() != 0 {
		t.Error("the token was sent")
	}
}

func TestStream(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1", "uid-2": "n2"})
	first, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good"))
	if err != nil {
		t.Fatal(err)
	}
	if s := f.server.Session("n1"); s == nil || s.Version != "v1" {
		t.Fatalf("the session is %+v", s)
	}
	for range 3 {
		if err := first.Send(&stream.AgentMessage{}); err != nil { // as one of a newer version
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if n := f.handler.messages("n1"); n != 3 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})

	// A second stream of the node ends the first; its token needs no review.
	second, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good"))
	if err != nil {
		t.Fatal(err)
	}
	expectEnd(t, first, codes.AlreadyExists)
	if n := f.reviews.count.Load(); n != 1 {
		t.Errorf("%d reviews", n)
	}

	// The pod is deleted: its stream ends, its token is not accepted again, and the other agent keeps its stream.
	other, err := f.open(f.dial(), fakeToken("n2", "uid-2", "good"))
	if err != nil {
		t.Fatal(err)
	}
	f.cluster.mu.Lock()
	delete(f.cluster.agents, "uid-1")
	f.cluster.mu.Unlock()
	f.server.EndPod("n1", "uid-1")
	expectEnd(t, second, codes.Unauthenticated)
	if _, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good")); err == nil {
		t.Error("a deleted pod gets a stream")
	}
	if f.server.Session("n2") == nil || other.Context().Err() != nil {
		t.Error("the other agent lost its stream")
	}
	eventually(t, func() error {
		f.handler.mu.Lock()
		defer f.handler.mu.Unlock()
		if f.handler.ended != 2 {
			return fmt.Errorf("%d streams ended", f.handler.ended)
		}
		return nil
	})
}

func TestTokenExpires(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1"})
	c, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good", func(c map[string]any) { c["exp"] = time.Now().Add(2 * time.Second).Unix() }))
	if err != nil {
		t.Fatal(err)
	}
	expectEnd(t, c, codes.Unauthenticated)
}

func TestMessageIsTooLarge(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1"})
	c, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good"))
	if err != nil {
		t.Fatal(err)
	}
	large := &stream.SandboxEnded{Uid: strings.Repeat("x", stream.MaxMessageSize)}
	if err := c.Send(&stream.AgentMessage{Message: &stream.AgentMessage_SandboxEnded{SandboxEnded: large}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	if f.handler.messages("n1") != 0 {
		t.Error("the message was passed on")
	}
}

// An agent that never reads loses its stream, and the others do not notice.
func TestAgentNeverReads(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1", "uid-2": "n2"})
	f.handler.flood = true
	c, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good"))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if c.Send(&stream.AgentMessage{}) != nil {
			break
		}
	}
	eventually(t, func() error {
		if f.server.Session("n1") != nil {
			return fmt.Errorf("it has its stream")
		}
		return nil
	})
	if n := testutil.ToFloat64(f.server.metrics.ended.WithLabelValues(string(EndSlow))); n != 1 {
		t.Errorf("the metric counts %v", n)
	}
	if _, err := f.open(f.dial(), fakeToken("n2", "uid-2", "good")); err != nil {
		t.Error(err)
	}
}

// Callers that send forged tokens as fast as they can cause a bounded number of reviews, and an agent whose token
// has to be reviewed connects within 5 seconds.
func TestHostileTokens(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1", "uid-2": "n2"})
	f.cluster.remote = true // also the agent has no address of its node: the slow way
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var sent atomic.Int64
	begin := time.Now()
	attack := func(from netip.Addr, token func(i int) string) {
		for i := 0; ctx.Err() == nil; i++ {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			if _, refusal := f.server.options.Authenticator.Authenticate(short, token(i), from); refusal == "" {
				t.Error("a forged token is accepted")
			}
			cancel()
			sent.Add(1)
		}
	}
	wg.Go(func() { attack(netip.MustParseAddr("10.0.0.1"), func(i int) string { return fmt.Sprint(i, ".x.y") }) })
	wg.Go(func() {
		attack(netip.MustParseAddr("10.0.0.2"), func(i int) string { return fakeToken("n1", fmt.Sprint(i), "bad") })
	})
	wg.Go(func() {
		attack(netip.MustParseAddr("10.0.0.3"), func(i int) string { return fakeToken("n1", "uid-1", fmt.Sprint("bad", i)) })
	})
	eventually(t, func() error {
		if n := sent.Load(); n < 5000 {
			return fmt.Errorf("%d tokens", n)
		}
		return nil
	})
	connecting := time.Now()
	if _, err := f.open(f.dial(), fakeToken("n2", "uid-2", "good")); err != nil {
		t.Error(err)
	}
	if took := time.Since(connecting); took > 5*time.Second {
		t.Errorf("the agent connected after %s", took)
	}
	cancel()
	wg.Wait()
	seconds := time.Since(begin).Seconds()
	if n, most := f.reviews.count.Load(), int64(sourceBurst+sourceReviews*seconds)+2; n > most {
		t.Errorf("%d tokens in %.1f s caused %d reviews, more than %d", sent.Load(), seconds, n, most)
	}
}

// In an overlay network agents connect from addresses of tunnels, as pods do from theirs. Twenty pods that have learned an agent's UID send
// forged tokens as fast as they can: all agents whose tokens have to be reviewed connect within 5 seconds.
func TestHostileTokensFromManySources(t *testing.T) {
	const many = 150
	agents := map[string]string{"uid-1": "n1"}
	for i := range many {
		agents[fmt.Sprint("agent-", i)] = fmt.Sprint("node-", i)
	}
	f := newFixture(t, agents)
	f.cluster.remote = true
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
	}()
	begin := time.Now()
	for source := range 20 {
		for connection := range perSource {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					token := fakeToken("n1", "uid-1", fmt.Sprint("bad", source, connection, i))
					f.server.options.Authenticator.Authenticate(ctx, token, netip.AddrFrom4([4]byte{10, 1, 0, byte(source)}))
				}
			})
		}
	}
	eventually(t, func() error { // the first reviews of each source are over
		if n := f.reviews.count.Load(); n < 20*(sourceBurst+sourceReviews) {
			return fmt.Errorf("%d reviews", n)
		}
		return nil
	})
	connecting := time.Now()
	var connected sync.WaitGroup
	for i := range many {
		connected.Go(func() {
			token := fakeToken(fmt.Sprint("node-", i), fmt.Sprint("agent-", i), "good")
			if _, why := f.server.options.Authenticator.Authenticate(ctx, token, netip.AddrFrom4([4]byte{10, 2, byte(i), 0})); why != "" {
				t.Errorf("agent %d: %s", i, why)
			}
		})
	}
	connected.Wait()
	if took := time.Since(connecting); took > 5*time.Second {
		t.Errorf("the agents connected after %s", took)
	}
	if n, most := f.reviews.count.Load(), int64(otherBurst+otherReviews*time.Since(begin).Seconds()); n > most {
		t.Errorf("%d reviews, more than %d", n, most)
	}
}

// A node that connects again does not get another burst of messages.
func TestANewStreamGoesOnWithTheLimit(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1", "uid-2": "n2"})
	begin := time.Now()
	sent := func(token string, messages int) {
		t.Helper()
		c, err := f.open(f.dial(), token)
		if err != nil {
			t.Fatal(err)
		}
		for range messages {
			if err := c.Send(&stream.AgentMessage{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	sent(fakeToken("n1", "uid-1", "good"), messageBurst)
	eventually(t, func() error {
		if n := f.handler.messages("n1"); n < messageBurst {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	sent(fakeToken("n1", "uid-1", "good"), 10)
	sent(fakeToken("n2", "uid-2", "good"), 10)
	left := f.server.limiters.Of("n1").Tokens()
	f.server.limiters.mu.Lock()
	n := len(f.server.limiters.all)
	f.server.limiters.mu.Unlock()
	if most := messageRate * time.Since(begin).Seconds(); left > most {
		t.Errorf("the node may send %f messages more, want %f at most", left, most)
	}
	if n != 2 {
		t.Errorf("there are %d limits", n)
	}
}
