package ingest

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kidoban/kidoban/internal/certificates"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/observer/directory"
	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/streamserver"
)

const namespace = "kidoban-system"

// fixture is an observer with a store, and agents of nodes n1 and n2.
type fixture struct {
	t         testing.TB
	server    *Server
	store     store.Store
	directory *directory.Directory

	shared *grpc.ClientConn
	// kill ends the server, not the store.
	kill func()

	mu     sync.Mutex
	failed error // what the store returns
}

func (f *fixture) Put(ctx context.Context, batches []store.Batch) error {
	f.mu.Lock()
	err := f.failed
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.store.Put(ctx, batches)
}

type failing struct {
	store.Store
	*fixture
}

func (f failing) Put(ctx context.Context, batches []store.Batch) error {
	return f.fixture.Put(ctx, batches)
}

func newPod(ns, name, node, addr, account string, created time.Time) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(created), Labels: map[string]string{"app": name}}}
	p.Spec.NodeName, p.Spec.ServiceAccountName = node, account
	if addr != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: addr}}
	}
	return p
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, directory: directory.New()}
	for node, addr := range map[string]string{"n1": "10.0.0.11", "n2": "10.0.0.12"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}
		f.directory.SetNode(n)
		f.directory.SetPod(newPod(namespace, "agent-"+node, node, "", stream.AgentServiceAccount, begin), begin)
	}
	for _, p := range []*corev1.Pod{
		newPod("shop", "web", "n1", "10.50.1.20", "default", begin), newPod("shop", "db", "n2", "10.50.2.10", "default", begin),
		newPod("shop", "idle", "n2", "10.50.2.30", "default", begin), newPod("kube-system", "coredns", "n2", "10.50.2.2", "default", begin),
	} {
		f.directory.SetPod(p, begin)
	}
	s, err := sqlite.Open(t.TempDir(), store.Limits{Age: time.Hour * 24, ExactAge: time.Hour * 24, Bytes: 1 << 30, Addresses: 1000}, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	f.store = s
	f.start(s, testr.New(t))
	return f
}

// start starts the server. The test's end ends it and closes the store.
func (f *fixture) start(s store.Store, log logr.Logger) {
	t := f.t
	t.Helper()
	client := fake.NewClientset()
	client.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		c := claimsOf(review.Spec.Token)
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: c.Valid, Audiences: c.Audiences, User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:" + c.Kubernetes.Namespace + ":" + c.Kubernetes.ServiceAccount.Name,
			Extra: map[string]authenticationv1.ExtraValue{
				"authentication.kubernetes.io/node-name": {c.Kubernetes.Node.Name}, "authentication.kubernetes.io/pod-uid": {c.Kubernetes.Pod.UID},
			},
		}}
		return true, review, nil
	})
	b := bundle()
	var err error
	f.server, err = New(Options{
		Flag: "--flows-bind-address", Address: "127.0.0.1:0", Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return issuer.Usable(b, time.Now()), nil },
		Authenticator: &streamserver.Authenticator{Audience: flow.Audience, Namespace: namespace, Reviews: client.AuthenticationV1().TokenReviews(), Cluster: Cluster{f.directory, namespace}},
		Directory:     f.directory, Store: failing{s, f}, Stored: func([]store.Batch) {}, Patience: 2 * time.Second, Registry: prometheus.NewRegistry(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Start(ctx) }()
	f.kill = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		f.kill()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

var (
	begin  = time.Now().Add(-time.Hour)
	issuer = certificates.Issuer{ServerName: flow.ServerName, Lifetimes: certificates.Usual}
	// bundle has the certificates of all replicas.
	bundle = sync.OnceValue(func() certificates.Bundle {
		b, _, err := issuer.Rotate(certificates.Bundle{}, time.Now())
		if err != nil {
			panic(err)
		}
		return b
	})
)

type claims struct {
	Audiences  []string `json:"aud"`
	Expires    int64    `json:"exp"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
		Pod struct {
			UID string `json:"uid"`
		} `json:"pod"`
		Node struct {
			Name string `json:"name"`
		} `json:"node"`
	} `json:"kubernetes.io"`
	Valid bool `json:"valid"`
}

func (c claims) token() string {
	body, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return "h." + base64.RawURLEncoding.EncodeToString(body) + ".s"
}

func claimsOf(token string) (c claims) {
	if len(token) < 4 {
		return c
	}
	body, err := base64.RawURLEncoding.DecodeString(token[2 : len(token)-2])
	if err != nil || json.Unmarshal(body, &c) != nil {
		return claims{}
	}
	return c
}

func agentClaims(node string) (c claims) {
	c.Audiences, c.Expires, c.Valid = []string{flow.Audience}, time.Now().Add(time.Hour).Unix(), true
	c.Kubernetes.Namespace, c.Kubernetes.ServiceAccount.Name = namespace, stream.AgentServiceAccount
	c.Kubernetes.Pod.UID, c.Kubernetes.Node.Name = "agent-"+node, node
	return c
}

// connect opens a stream on a connection of its own.
func (f *fixture) connect(token string) grpc.BidiStreamingClient[flow.PushRequest, flow.PushResponse] {
	f.t.Helper()
	return f.open(f.dial(), token)
}

// try pushes once, on a connection that all tries share.
func (f *fixture) try(token string, p *flow.PushRequest) error {
	f.t.Helper()
	if f.shared == nil {
		f.shared = f.dial()
	}
	return push1(f.open(f.shared, token), p)
}

func (f *fixture) dial() *grpc.ClientConn {
	f.t.Helper()
	conn, err := grpc.NewClient(f.server.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (f *fixture) open(conn *grpc.ClientConn, token string) grpc.BidiStreamingClient[flow.PushRequest, flow.PushResponse] {
	f.t.Helper()
	s, err := flow.NewFlowsClient(conn).Push(metadata.AppendToOutgoingContext(f.t.Context(), "authorization", "Bearer "+token))
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// push1 pushes and waits until it is confirmed or fails.
func push1(s grpc.BidiStreamingClient[flow.PushRequest, flow.PushResponse], p *flow.PushRequest) error {
	if err := s.Send(p); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r, err := s.Recv()
	if err == nil && (r.Generation != p.Generation || r.Sequence != p.Sequence) {
		return errors.New("another push is confirmed")
	}
	return err
}

func address(text string) []byte { return netip.MustParseAddr(text).AsSlice() }

func record(direction flow.Record_Direction, verdict flow.Record_Verdict, reason, source, destination string, port uint32, packets uint64, at time.Time) *flow.Record {
	return &flow.Record{
		First: at.UnixMilli(), Last: at.UnixMilli(), Direction: direction, Verdict: verdict, Reason: reason, Protocol: "TCP", Packets: packets, Bytes: packets * 600,
		Source: &flow.End{Address: address(source), Port: 41000}, Destination: &flow.End{Address: address(destination), Port: port},
	}
}

func (f *fixture) flows() (out []*observerapi.Flow) {
	f.t.Helper()
	s := pairing.NewStream(true, func(flow *observerapi.Flow) bool {
		out = append(out, flow)
		return true
	})
	if err := f.store.Scan(f.t.Context(), store.Query{Since: begin.Add(-48 * time.Hour), Until: time.Now().Add(time.Hour), Oldest: true}, s.Add); err != nil {
		f.t.Fatal(err)
	}
	s.Close()
	return out
}

// Two nodes report one flow each way that they can, with clocks minutes apart; every push comes twice.
func TestFlowsOfTwoNodes(t *testing.T) {
	f := newFixture(t)
	minute := begin.Add(10 * time.Minute)
	const e, i = flow.Record_EGRESS, flow.Record_INGRESS
	skew := 3 * time.Minute // of n1's clock
	reply := record(e, flow.Record_AUDIT_DENY, "default-deny", "10.50.2.2", "10.50.1.20", 35528, 1, minute.Add(3*time.Minute))
	reply.Reply, reply.Continues, reply.Protocol = true, true, "UDP"
	n1 := &flow.PushRequest{Generation: "g", Sequence: 1, Records: []*flow.Record{
		record(e, flow.Record_ALLOW, "policy", "10.50.1.20", "10.50.2.10", 5432, 100, minute.Add(7*time.Second+skew)),
		record(e, flow.Record_ALLOW, "policy", "10.50.1.20", "10.50.2.30", 8080, 1, minute.Add(time.Minute+skew)),
		record(e, flow.Record_ALLOW, "policy", "10.50.1.20", "10.50.2.10", 5432, 10, minute.Add(2*time.Minute+skew)),
	}}
	n2 := &flow.PushRequest{Generation: "g", Sequence: 1, Records: []*flow.Record{
		record(i, flow.Record_ALLOW, "policy", "10.50.1.20", "10.50.2.10", 5432, 100, minute),
		record(i, flow.Record_DENY, "default-deny", "10.50.1.20", "10.50.2.30", 8080, 1, minute.Add(time.Minute+time.Millisecond)),
		reply,
	}}
	for range 2 {
		one, two := f.connect(agentClaims("n1").token()), f.connect(agentClaims("n2").token())
		n1.Sent, n2.Sent = time.Now().Add(skew).UnixMilli(), time.Now().UnixMilli()
		for range 2 {
			if err := errors.Join(push1(one, n1), push1(two, n2)); err != nil {
				t.Fatal(err)
			}
		}
	}
	type row struct {
		source, destination string
		connections         uint64
		verdict             observerapi.Verdict
		sides               observerapi.Sides
		reply               bool
	}
	want := []row{
		{"web", "db", 100, observerapi.Allowed, observerapi.Complete, false},
		{"web", "idle", 1, observerapi.Denied, observerapi.Complete, false},
		{"web", "db", 10, observerapi.Allowed, observerapi.OneSide, false},
		{"coredns", "web", 0, observerapi.WouldBeDeny, observerapi.OneSide, true},
	}
	flows := f.flows()
	if len(flows) != len(want) {
		t.Fatalf("%d flows", len(flows))
	}
	for i, flow := range flows {
		got := row{flow.Source.Pod, flow.Destination.Pod, flow.Connections, flow.Verdict, flow.Sides, flow.Reply}
		if got != want[i] {
			t.Errorf("%v, want %v", got, want[i])
		}
	}
}

// A pod whose address is not known yet has its name once it is.
func TestNewPod(t *testing.T) {
	f := newFixture(t)
	f.directory.SetPod(newPod("shop", "new", "n1", "", "default", time.Now().Add(-time.Second)), time.Now())
	r := record(flow.Record_EGRESS, flow.Record_ALLOW, "policy", "10.50.1.99", "10.50.2.10", 5432, 1, time.Now())
	r.Source.Uid, r.Source.Namespace, r.Source.Name = "new", "shop", "new"
	other := record(flow.Record_INGRESS, flow.Record_ALLOW, "policy", "10.50.1.99", "10.50.2.10", 5432, 1, time.Now())
	two := f.connect(agentClaims("n2").token())
	if err := two.Send(&flow.PushRequest{Generation: "g", Sequence: 1, Sent: time.Now().UnixMilli(), Records: []*flow.Record{other}}); err != nil {
		t.Fatal(err)
	}
	if err := push1(f.connect(agentClaims("n1").token()), &flow.PushRequest{Generation: "g", Sequence: 1, Sent: time.Now().UnixMilli(), Records: []*flow.Record{r}}); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Recv(); err != nil {
		t.Fatal(err)
	}
	if flows := f.flows(); len(flows) != 1 || flows[0].Source.Pod != "new" || flows[0].Sides != observerapi.Complete {
		for _, f := range flows {
			t.Errorf("%+v", *f)
		}
	}
}

// Callers that are no agent get no stream, and each is refused for its own reason.
func TestStrangers(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(*claims){
		"another audience":        func(c *claims) { c.Audiences = []string{"kidoban-controller"} },
		"another ServiceAccount":  func(c *claims) { c.Kubernetes.ServiceAccount.Name = "default" },
		"another namespace":       func(c *claims) { c.Kubernetes.Namespace = "shop" },
		"expired":                 func(c *claims) { c.Expires = time.Now().Add(-time.Minute).Unix() },
		"not valid":               func(c *claims) { c.Valid = false },
		"another node's pod":      func(c *claims) { c.Kubernetes.Node.Name = "n2" },
		"a pod that is no agent":  func(c *claims) { c.Kubernetes.Pod.UID = "web" },
		"a pod that does not run": func(c *claims) { c.Kubernetes.Pod.UID = "gone" },
	} {
		c := agentClaims("n1")
		change(&c)
		if err := f.try(c.token(), &flow.PushRequest{Generation: "g", Sequence: 1}); status.Code(err) != codes.Unauthenticated && status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, token := range []string{"", "x", "a.b.c"} {
		if err := f.try(token, &flow.PushRequest{Generation: "g", Sequence: 1}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if err := push1(f.connect(agentClaims("n1").token()), &flow.PushRequest{Generation: "g", Sequence: 1}); err != nil {
		t.Errorf("an agent: %v", err)
	}
}

// An agent of a node that was taken over can report about its own node only, and cannot fill the store with what makes no sense.
func TestHostileAgent(t *testing.T) {
	f := newFixture(t)
	good := func() *flow.Record {
		return record(flow.Record_EGRESS, flow.Record_ALLOW, "policy", "10.50.1.20", "10.50.2.10", 5432, 1, time.Now())
	}
	s := f.connect(agentClaims("n1").token())
	sequence := uint64(0)
	push := func(records ...*flow.Record) error {
		sequence++
		return push1(s, &flow.PushRequest{Generation: "g", Sequence: sequence, Sent: time.Now().UnixMilli(), Records: records})
	}
	long := string(make([]byte, 300))
	n := uint64(0)
	for name, change := range map[string]func(*flow.Record){
		"another node's pod":    func(r *flow.Record) { r.Source.Address = address("10.50.2.30") },
		"another node":          func(r *flow.Record) { r.Source.Address = address("10.0.0.12") },
		"another node's UID":    func(r *flow.Record) { r.Source.Uid, r.Source.Namespace, r.Source.Name = "idle", "shop", "idle" },
		"no source":             func(r *flow.Record) { r.Source = nil },
		"no destination":        func(r *flow.Record) { r.Destination = nil },
		"no direction":          func(r *flow.Record) { r.Direction = 0 },
		"an unknown verdict":    func(r *flow.Record) { r.Verdict = 77 },
		"a long reason":         func(r *flow.Record) { r.Reason = long },
		"a reason with a break": func(r *flow.Record) { r.Reason = "a\nb" },
		"no protocol":           func(r *flow.Record) { r.Protocol = "" },
		"a large port":          func(r *flow.Record) { r.Destination.Port = 70000 },
		"a long policy":         func(r *flow.Record) { r.Policy = &flow.Rule{Policy: &flow.Policy{Kind: "NetworkPolicy", Name: long}} },
		"a rule without policy": func(r *flow.Record) { r.Policy = &flow.Rule{} },
		"many policies":         func(r *flow.Record) { r.IsolatedBy = make([]*flow.Policy, 1000) },
		"many names":            func(r *flow.Record) { r.Destination.DomainNames = make([]string, 100) },
	} {
		r := good()
		change(r)
		if err := push(r, good()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n++
	}
	odd := good() // is stored, within bounds
	odd.First, odd.Last = -1<<62, 1<<62
	old := good()
	old.Last = time.Now().Add(-100 * time.Hour).UnixMilli()
	if err := push(odd, old, nil); err != nil {
		t.Fatal(err)
	}
	var connections uint64
	for _, flow := range f.flows() {
		connections += flow.Connections
		if flow.Source.Pod != "web" || flow.Last.Sub(flow.First) > maxSpan || flow.Last.After(time.Now()) || flow.First.Before(begin) {
			t.Errorf("%+v", flow)
		}
	}
	if connections != n+1 {
		t.Errorf("%d connections, want %d", connections, n+1)
	}
	losses, err := f.store.Losses(t.Context(), begin.Add(-48*time.Hour), time.Now().Add(time.Hour))
	lost := map[string]uint64{}
	for _, l := range losses {
		if l.Node != "n1" {
			t.Errorf("%+v", l)
		}
		lost[l.Reason] += l.Packets
	}
	if err != nil || lost["invalid"] != n || lost["late"] != 1 {
		t.Errorf("%v, %v", losses, err)
	}
	for name, p := range map[string]*flow.PushRequest{
		"too large":           {Generation: "g", Sequence: 1000, Records: []*flow.Record{{Reason: string(make([]byte, flow.MaxMessageSize))}}},
		"too many records":    {Generation: "g", Sequence: 1000, Records: make([]*flow.Record, maxRecords+1)},
		"no generation":       {Sequence: 1},
		"no sequence":         {Generation: "g"},
		"a generation of NUL": {Generation: long, Sequence: 1},
	} {
		for i := range p.Records {
			if p.Records[i] == nil {
				p.Records[i] = &flow.Record{}
			}
		}
		if err := f.try(agentClaims("n1").token(), p); err == nil {
			t.Errorf("%s is confirmed", name)
		}
	}
}

// What cannot be stored is not confirmed. The agent pushes it again.
func TestStoreFails(t *testing.T) {
	f := newFixture(t)
	p := &flow.PushRequest{Generation: "g", Sequence: 1, Records: []*flow.Record{record(flow.Record_EGRESS, flow.Record_DENY, "policy", "10.50.1.20", "10.50.2.10", 5432, 3, begin.Add(time.Minute))}}
	f.mu.Lock()
	f.failed = errors.New("the disk is full")
	f.mu.Unlock()
	if err := push1(f.connect(agentClaims("n1").token()), p); status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.failed = nil
	f.mu.Unlock()
	if err := push1(f.connect(agentClaims("n1").token()), p); err != nil {
		t.Fatal(err)
	}
	if flows := f.flows(); len(flows) != 1 || flows[0].Connections != 3 {
		t.Errorf("%+v", flows)
	}
}

// Losses are as long as agents say, and one of an agent that has started begins with the node's last push: an answer about any time within them
// says so.
func TestLongLosses(t *testing.T) {
	f := newFixture(t)
	ago := func(minutes int) time.Time { return time.Now().Add(-time.Duration(minutes) * time.Minute) }
	if err := f.store.Put(t.Context(), []store.Batch{{Node: "n1", Generation: "g", Sequence: 1, Received: ago(50)}}); err != nil {
		t.Fatal(err)
	}
	losses := func(reason string, since, until time.Time) (n uint64) {
		t.Helper()
		all, err := f.store.Losses(t.Context(), since, until)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if l.Reason == reason {
				n++
			}
		}
		return n
	}
	for node, l := range map[string]*flow.Loss{
		"n1": {Reason: "restart", Last: ago(10).UnixMilli()},
		"n2": {Reason: "queue", Records: 7, First: ago(90).UnixMilli(), Last: ago(20).UnixMilli()},
	} {
		if err := push1(f.connect(agentClaims(node).token()), &flow.PushRequest{Generation: "h", Sequence: 1, Sent: time.Now().UnixMilli(), Losses: []*flow.Loss{l}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		reason       string
		since, until int
		want         uint64
	}{
		{"restart", 60, 55, 0}, {"restart", 45, 40, 1}, {"restart", 15, 12, 1}, {"restart", 8, 5, 0},
		{"queue", 100, 95, 0}, {"queue", 85, 80, 1}, {"queue", 25, 22, 1}, {"queue", 18, 0, 0},
	} {
		if n := losses(tc.reason, ago(tc.since), ago(tc.until)); n != tc.want {
			t.Errorf("from %d to %d minutes ago: %d losses of reason %s, want %d", tc.since, tc.until, n, tc.reason, tc.want)
		}
	}
}

// A newer stream of a node ends the older.
func TestReplacedStream(t *testing.T) {
	f := newFixture(t)
	old := f.connect(agentClaims("n1").token())
	if err := push1(old, &flow.PushRequest{Generation: "g", Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if err := push1(f.connect(agentClaims("n1").token()), &flow.PushRequest{Generation: "h", Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Recv(); status.Code(err) != codes.AlreadyExists {
		t.Error(err)
	}
	if agents := f.server.Agents(); len(agents) != 1 || agents[0].Node != "n1" {
		t.Errorf("%v", agents)
	}
}
