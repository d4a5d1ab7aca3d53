package streamserver

import (
	"context"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/stream"
	agentclient "github.com/kidoban/kidoban/internal/stream/client"
)

// published passes on which pods are published.
type published chan string

func (p published) Published(m *stream.Published)         { p <- m.GetUid() }
func (p published) Confirmed(*stream.Confirmed)           {}
func (p published) Refused(*stream.Refused)               {}
func (p published) AskInForce(*stream.AskInForce, func()) {}

// The agents' own client connects, is heard and answered, and connects again with a new token when the server ends the stream.
func TestTheAgentsClient(t *testing.T) {
	f := newFixture(t, map[string]string{"pod-1": "n1"})
	certificate, err := f.server.options.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(fakeToken("n1", "pod-1", "good")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := agentclient.New(agentclient.Options{
		Replicas: func(ctx context.Context, set func(map[string]struct{})) {
			set(map[string]struct{}{f.server.Addr().String(): {}})
			<-ctx.Done()
		},
		Authority: func(context.Context) ([]byte, error) {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), nil
		},
		TokenFile: file, Log: logr.Discard(), Registry: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	handler := make(published, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx, handler)
	}()
	defer func() {
		cancel()
		<-done
	}()
	c.AddSandbox(&stream.SandboxAdded{Uid: "1"})
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("timed out: " + what)
			}
		}
	}
	for round := 1; round <= 2; round++ {
		until("an announcement", func() bool { return f.handler.messages("n1") == round })
		until("a leader", c.HasLeader)
		session := f.server.Session("n1")
		session.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_Published{Published: &stream.Published{Uid: "1"}}})
		select {
		case uid := <-handler:
			if uid != "1" {
				t.Errorf("published is %s", uid)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("timed out: an answer")
		}
		session.end(EndExpired)
	}
}
