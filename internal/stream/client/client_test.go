package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/kidoban/kidoban/internal/stream"
)

// authority makes certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) serverCertificate(t *testing.T, name string) tls.Certificate {
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replica is a replica of the controller.
type replica struct {
	stream.UnimplementedStreamServer
	address string

	mu          sync.Mutex
	received    []string // all messages of all connections
	connections []stream.Stream_ConnectServer
	end         chan error // ends the connection
	deaf        bool       // reads nothing after the first message
}

// serve starts a replica with a certificate for a name.
func serve(t *testing.T, a *authority, name string) *replica {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(new(a.serverCertificate(t, name)))))
	r := &replica{address: listener.Addr().String(), end: make(chan error)}
	stream.RegisterStreamServer(server, r)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return r
}

func (r *replica) Connect(s stream.Stream_ConnectServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	r.record("connect " + strings.Join(md.Get("authorization"), ","))
	r.mu.Lock()
	r.connections = append(r.connections, s)
	deaf := r.deaf
	r.mu.Unlock()
	if err := s.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Role{Role: &stream.Role{Leader: true}}}); err != nil {
		return err
	}
	go func() {
		for !deaf {
			m, err := s.Recv()
			if err != nil {
				return
			}
			r.record(describe(m))
		}
	}()
	select {
	case err := <-r.end:
		return err
	case <-s.Context().Done():
		return nil
	}
}

func describe(m *stream.AgentMessage) string {
	switch m := m.GetMessage().(type) {
	case *stream.AgentMessage_Hello:
		return "hello"
	case *stream.AgentMessage_SandboxAdded:
		return "added " + m.SandboxAdded.GetUid()
	case *stream.AgentMessage_SandboxEnded:
		return "ended " + m.SandboxEnded.GetUid()
	case *stream.AgentMessage_GroupsInForce:
		return fmt.Sprint("groups ", m.GroupsInForce.GetId())
	case *stream.AgentMessage_Unseen:
		return "unseen " + m.Unseen.GetInterface()
	case *stream.AgentMessage_InForce:
		s := fmt.Sprintf("in force full=%v more=%v", m.InForce.GetFull(), m.InForce.GetMore())
		for _, p := range m.InForce.GetPolicies() {
			if s += fmt.Sprintf(" %s:%d", p.GetName(), p.GetGeneration()); p.GetGone() {
				s += " gone"
			}
		}
		return s
	}
	return "unknown"
}

func (r *replica) record(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = append(r.received, s)
}

func (r *replica) has(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.received, s)
}

// send sends a message on the newest connection.
func (r *replica) send(t *testing.T, m *stream.ControllerMessage) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	must(t, r.connections[len(r.connections)-1].Send(m))
}

// await polls until a replica has received all these messages.
func (r *replica) await(t *testing.T, messages ...string) {
	t.Helper()
	for _, m := range messages {
		eventually(t, fmt.Sprintf("%q", m), func() bool { return r.has(m) })
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

func (r *replica) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = nil
}

// handler records what it receives and answers each question.
type handler struct {
	mu       sync.Mutex
	received []string
}

func (h *handler) record(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.received = append(h.received, s)
}

func (h *handler) has(s string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.received, s)
}

func (h *handler) Published(m *stream.Published)                  { h.record("published " + m.GetUid()) }
func (h *handler) Confirmed(m *stream.Confirmed)                  { h.record("confirmed " + m.GetUid()) }
func (h *handler) Refused(m *stream.Refused)                      { h.record("refused " + m.GetUid()) }
func (h *handler) AskInForce(_ *stream.AskInForce, answer func()) { answer() }

// start runs a Client with these replicas.
func start(t *testing.T, authority []byte, replicas ...*replica) (*Client, *handler) {
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte("secret\n"), 0o600))
	c := New(Options{
		Replicas: func(ctx context.Context, set func(map[string]struct{})) {
			addresses := map[string]struct{}{}
			for _, r := range replicas {
				addresses[r.address] = struct{}{}
			}
			set(addresses)
			<-ctx.Done()
		},
		Authority: func(context.Context) ([]byte, error) { return authority, nil },
		TokenFile: file, Log: logr.Discard(), Registry: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(context.Background())
	h := &handler{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx, h)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return c, h
}

func added(uid string) *stream.SandboxAdded { return &stream.SandboxAdded{Uid: uid} }

func policies(generations map[string]int64) map[PolicyKey]*stream.PolicyState {
	out := map[PolicyKey]*stream.PolicyState{}
	for name, generation := range generations {
		out[PolicyKey{Namespace: "shop", Name: name}] = &stream.PolicyState{Namespace: "shop", Name: name, Generation: generation}
	}
	return out
}

func TestMessagesOfBothSides(t *testing.T) {
	a := newAuthority(t)
	r, second := serve(t, a, stream.ServerName), serve(t, a, stream.ServerName)
	c, h := start(t, a.pem, r, second)
	c.SetPolicies(policies(map[string]int64{"a": 1}))
	r.await(t, "connect Bearer secret", "hello", "in force full=true more=false a:1")
	second.await(t, "connect Bearer secret", "hello", "in force full=true more=false a:1")
	eventually(t, "it leads", c.HasLeader)

	c.AddSandbox(added("1"))
	c.SetUnseen([]*stream.Unseen{{Uid: "1", Interface: "macvlan0"}})
	r.await(t, "added 1", "unseen macvlan0")
	second.await(t, "added 1", "unseen macvlan0")
	c.SetPolicies(policies(map[string]int64{"a": 1, "b": 2}))
	r.await(t, "in force full=false more=false b:2")
	c.SetPolicies(policies(map[string]int64{"b": 2}))
	r.await(t, "in force full=false more=false a:0 gone")
	c.EndSandbox("1")
	r.await(t, "ended 1")

	r.send(t, &stream.ControllerMessage{Message: &stream.ControllerMessage_Published{Published: &stream.Published{Uid: "1"}}})
	r.send(t, &stream.ControllerMessage{Message: &stream.ControllerMessage_Confirmed{Confirmed: &stream.Confirmed{Uid: "1"}}})
	r.send(t, &stream.ControllerMessage{Message: &stream.ControllerMessage_Refused{Refused: &stream.Refused{Uid: "1"}}})
	r.send(t, &stream.ControllerMessage{}) // of a later version
	r.send(t, &stream.ControllerMessage{Message: &stream.ControllerMessage_AskInForce{AskInForce: &stream.AskInForce{Id: 7}}})
	r.await(t, "groups 7")
	for _, m := range []string{"published 1", "confirmed 1", "refused 1"} {
		eventually(t, m, func() bool { return h.has(m) })
	}
	for _, connected := range []*replica{r, second} {
		connected.send(t, &stream.ControllerMessage{Message: &stream.ControllerMessage_Role{Role: &stream.Role{}}})
	}
	eventually(t, "none leads", func() bool { return !c.HasLeader() })
}

func TestAReplicaThatConnectsAgainGetsEverything(t *testing.T) {
	a := newAuthority(t)
	r := serve(t, a, stream.ServerName)
	c, _ := start(t, a.pem, r)
	c.SetPolicies(policies(map[string]int64{"a": 1}))
	c.AddSandbox(added("ended"))
	c.AddSandbox(added("stays"))
	r.await(t, "added stays", "in force full=true more=false a:1")
	c.EndSandbox("ended")
	r.await(t, "ended ended")
	r.forget()
	r.end <- nil
	eventually(t, "no leader", func() bool { return !c.HasLeader() })
	c.AddSandbox(added("meanwhile"))
	r.await(t, "added stays", "added meanwhile", "in force full=true more=false a:1")
	if r.has("ended ended") || r.has("added ended") {
		t.Errorf("it got %v", r.received)
	}
}

// A token must not reach a server that another authority has certified, or that is another server of the same authority.
func TestAForgedCertificate(t *testing.T) {
	a := newAuthority(t)
	for name, r := range map[string]*replica{
		"another authority": serve(t, newAuthority(t), stream.ServerName), "another name": serve(t, a, "other"),
	} {
		c, _ := start(t, a.pem, r)
		eventually(t, name, func() bool {
			metrics := make(chan prometheus.Metric, 10)
			c.metrics.failures.Collect(metrics)
			return len(metrics) > 0
		})
		if len(r.received) > 0 {
			t.Errorf("%s: it got %v", name, r.received)
		}
	}
}

// What is to be sent to a replica that does not read stays as large as what there is.
func TestAReplicaThatDoesNotRead(t *testing.T) {
	a := newAuthority(t)
	deaf, r := serve(t, a, stream.ServerName), serve(t, a, stream.ServerName)
	deaf.deaf = true
	c, _ := start(t, a.pem, deaf, r)
	deaf.await(t, "connect Bearer secret")
	long := strings.Repeat("x", 1000)
	for i := range 2000 {
		c.SetPolicies(map[PolicyKey]*stream.PolicyState{{Name: "a"}: {Name: "a", Generation: int64(i), Reason: long}})
		c.AddSandbox(&stream.SandboxAdded{Uid: "1", Name: long})
	}
	c.AddSandbox(added("last"))
	r.await(t, "added last")
	c.mu.Lock()
	defer c.mu.Unlock()
	for o := range c.outboxes {
		if len(o.sandboxes) > 2 || len(o.policies) > 1 {
			t.Errorf("%d sandboxes and %d policies wait", len(o.sandboxes), len(o.policies))
		}
	}
}

func TestALongReportIsSplit(t *testing.T) {
	c := New(Options{Registry: prometheus.NewRegistry()})
	o := c.open()
	if got := c.take(o); len(got) != 0 {
		t.Errorf("before there is a report: %v", got)
	}
	generations := map[string]int64{}
	for i := range 2*policiesPerMessage + 1 {
		generations[fmt.Sprint(strings.Repeat("n", 240), i)] = 1
	}
	c.SetPolicies(policies(generations))
	messages := c.take(o)
	var got []string
	for _, m := range messages {
		r := m.GetInForce()
		got = append(got, fmt.Sprint(len(r.GetPolicies()), r.GetFull(), r.GetMore()))
	}
	if want := []string{"64 true true", "64 false true", "1 false false"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	c.SetPolicies(policies(nil))
	if got := c.take(o); len(got) != 3 || got[0].GetInForce().GetFull() || got[0].GetInForce().GetMore() || !got[0].GetInForce().GetPolicies()[0].GetGone() {
		t.Errorf("%v", got)
	}
	if got := c.take(c.open()); len(got) != 1 || !got[0].GetInForce().GetFull() || got[0].GetInForce().GetMore() {
		t.Errorf("an empty report is %v", got)
	}
}
