package flowpush

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flow/flowtest"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/replicas"
)

// observer serves Flows to those with its current token.
type observer struct {
	flow.UnimplementedFlowsServer
	address   string
	authority []byte

	mu      sync.Mutex
	token   string
	changed chan struct{}  // closed when the token changes
	batches map[string]int // by token
	asks    uint64         // the number of a question to ask with the next confirmation
	reports []*flow.NodeReport
	refused int
	isLater bool // it sends fields and messages of a later version
}

func serveObserver(t *testing.T, name string) *observer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	o := &observer{
		address: listener.Addr().String(), authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		token: "first", changed: make(chan struct{}), batches: map[string]int{},
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})))
	flow.RegisterFlowsServer(server, o)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (o *observer) Push(s flow.Flows_PushServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	o.mu.Lock()
	token, changed := o.token, o.changed
	isCurrent := len(md.Get("authorization")) == 1 && md.Get("authorization")[0] == "Bearer "+token
	if !isCurrent {
		o.refused++
	}
	o.mu.Unlock()
	if !isCurrent {
		return status.Error(codes.Unauthenticated, "not the current token")
	}
	ended := make(chan error, 1)
	go func() {
		for {
			r, err := s.Recv()
			if err == nil {
				o.mu.Lock()
				ask, isLater := o.asks, o.isLater
				o.asks = 0
				if r.GetReport() != nil {
					o.reports = append(o.reports, r.GetReport())
				} else {
					o.batches[token]++
				}
				o.mu.Unlock()
				if ask != 0 {
					err = s.Send(&flow.PushResponse{Report: ask})
				}
				if err == nil && isLater {
					err = s.Send(later(&flow.PushResponse{}))
				}
				if err == nil && r.GetReport() == nil {
					answer := &flow.PushResponse{Generation: r.GetGeneration(), Sequence: r.GetSequence()}
					if isLater {
						answer = later(answer)
					}
					err = s.Send(answer)
				}
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-changed:
		return status.Error(codes.Unauthenticated, "the token has expired")
	}
}

func (o *observer) count(of func() int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return of()
}

func pushTo(t *testing.T, o *observer) (tokenFile string, p *Pusher) {
	t.Helper()
	tokenFile = filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(tokenFile, []byte("first\n"), 0o600))
	p = New(Options{
		Source: &source{perRead: 1}, Names: flowlog.NewRecorder("node", nameless{}), Interval: 10 * time.Millisecond, BufferBytes: large,
		Replicas: func(ctx context.Context, set func(map[string]struct{})) {
			set(map[string]struct{}{o.address: {}})
			<-ctx.Done()
		},
		Access: replicas.Access{
			Authority: func(context.Context) ([]byte, error) { return o.authority, nil }, ServerName: flow.ServerName, TokenFile: tokenFile,
		},
		Report: func() (*agentapi.NodeReport, error) {
			return &agentapi.NodeReport{Node: agentapi.Node{Version: "v1"}}, nil
		},
		Log: logr.Discard(), Registry: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return tokenFile, p
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// The kubelet replaces the token's file before the token expires.
func TestATokenThatChanges(t *testing.T) {
	o := serveObserver(t, flow.ServerName)
	file, _ := pushTo(t, o)
	eventually(t, "batches with the first token", func() bool { return o.count(func() int { return o.batches["first"] }) > 2 })
	o.mu.Lock()
	o.token = "second"
	close(o.changed)
	o.changed = make(chan struct{})
	o.mu.Unlock()
	eventually(t, "the first token is not accepted any more", func() bool { return o.count(func() int { return o.refused }) > 0 })
	must(t, os.WriteFile(file, []byte("second\n"), 0o600))
	eventually(t, "batches with the second token", func() bool { return o.count(func() int { return o.batches["second"] }) > 2 })
}

// A token must not reach a server that is not the observer.
func TestAServerWithAnotherName(t *testing.T) {
	o := serveObserver(t, "kidoban-controller")
	_, p := pushTo(t, o)
	eventually(t, "failures", func() bool {
		found := make(chan prometheus.Metric, 10)
		p.metrics.failures.Collect(found)
		return len(found) > 0
	})
	if n := o.count(func() int { return o.refused + len(o.batches) }); n > 0 {
		t.Errorf("%d streams reached it", n)
	}
}

// later is a message with fields of a later version.
func later(m *flow.PushResponse) *flow.PushResponse {
	flowtest.AddUnknown(m)
	return m
}

// An observer of a later version sends what this version does not know: it has no effect, and what it confirms is confirmed.
func TestAnObserverOfALaterVersion(t *testing.T) {
	o := serveObserver(t, flow.ServerName)
	o.isLater = true
	_, p := pushTo(t, o)
	eventually(t, "batches", func() bool { return o.count(func() int { return o.batches["first"] }) > 10 })
	eventually(t, "all of them are confirmed", func() bool {
		p.buffer.mu.Lock()
		defer p.buffer.mu.Unlock()
		return p.buffer.base.sequence > 5
	})
	if n := o.count(func() int { return len(o.reports) }); n > 0 {
		t.Errorf("the agent answers %d questions that it was not asked", n)
	}
}

// Records go on while the observer asks for the node's report.
func TestAReport(t *testing.T) {
	o := serveObserver(t, flow.ServerName)
	pushTo(t, o)
	o.mu.Lock()
	o.asks = 7
	o.mu.Unlock()
	eventually(t, "a report", func() bool { return o.count(func() int { return len(o.reports) }) == 1 })
	before := o.count(func() int { return o.batches["first"] })
	eventually(t, "batches after it", func() bool { return o.count(func() int { return o.batches["first"] }) > before })
	r := o.reports[0]
	content, err := gzip.NewReader(bytes.NewReader(r.GetContent()))
	must(t, err)
	var report agentapi.NodeReport
	must(t, json.NewDecoder(content).Decode(&report))
	if r.GetNumber() != 7 || r.GetProblem() != "" || report.Node.Version != "v1" {
		t.Errorf("%+v, %+v", r, report)
	}
}

// A node whose report is larger than a message says so: kubectl kidoban asks its agent.
func TestAReportThatIsTooLarge(t *testing.T) {
	version := make([]byte, flow.MaxMessageSize)
	for i := range version {
		version[i] = byte(mathrand.N(256))
	}
	p := &Pusher{opts: Options{Report: func() (*agentapi.NodeReport, error) {
		return &agentapi.NodeReport{Node: agentapi.Node{Version: hex.EncodeToString(version)}}, nil
	}}}
	if r := p.report(1).GetReport(); r.GetProblem() == "" || len(r.GetContent()) > 0 {
		t.Errorf("%q and %d bytes", r.GetProblem(), len(r.GetContent()))
	}
}
