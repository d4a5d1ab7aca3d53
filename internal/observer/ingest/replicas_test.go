package ingest

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/flowpush"
	vocabulary "github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/replicas"
)

// traffic is a Source that has some new connections whenever it is read.
type traffic struct {
	mu      sync.Mutex
	ended   bool
	first   uint16 // of the destinations' ports
	packets uint64 // in all
	newer   uint64 // to the present ports
}

func (s *traffic) Records() (out []events.Event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for port := s.first; port < s.first+20 && !s.ended; port++ {
		now := time.Now()
		s.packets++
		s.newer++
		out = append(out, events.Event{
			Time: now, First: now, Packets: 1, Bytes: 60, Direction: vocabulary.Egress, Protocol: vocabulary.TCP, Verdict: events.Allow, Reason: events.ReasonDefault,
			Source: netip.MustParseAddrPort("10.50.1.20:40000"), Destination: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port),
		})
	}
	return out, nil
}

func (*traffic) UnrecordedPackets() (uint64, error) { return 0, nil }

// move lets later connections go to other ports, from this one on.
func (s *traffic) move(first uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.newer = first, 0
}

// sent is the number of connections in all, and of those since the last move.
func (s *traffic) sent() (all, newer uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.packets, s.newer
}

func (s *traffic) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

type namesOfWeb struct{}

func (namesOfWeb) Pod(a netip.Addr, _ time.Time) (flowlog.Pod, bool) {
	return flowlog.Pod{Namespace: "shop", Name: "web", UID: "web"}, a == netip.MustParseAddr("10.50.1.20")
}
func (namesOfWeb) Rule(compiler.RuleID) (agentapi.RuleRef, bool)               { return agentapi.RuleRef{}, false }
func (namesOfWeb) Isolating(compiler.SetID) []agentapi.PolicyRef               { return nil }
func (namesOfWeb) Audited(compiler.SetID) ([]agentapi.PolicyRef, bool)         { return nil, false }
func (namesOfWeb) DomainNames(netip.Addr) []string                             { return nil }
func (namesOfWeb) NameMiss(compiler.SetID, vocabulary.Flow) *agentapi.NameMiss { return nil }

// connections counts those to ports from this one on.
func (f *fixture) connections(first uint16) (n uint64) {
	for _, flow := range f.flows() {
		if flow.Port >= first {
			n += flow.Connections
		}
	}
	return n
}

// Two replicas receive the same flows. One is killed under load, and another with an empty store takes its place. The one that stays has all
// flows, and the new one has all since it began: no flow is lost to a reader that asks the one that began first.
func TestAReplicaKilledUnderLoad(t *testing.T) {
	stays, killed := newFixture(t), newFixture(t)
	var mu sync.Mutex
	addresses, changed := map[string]struct{}{}, make(chan struct{}, 1)
	are := func(fixtures ...*fixture) {
		mu.Lock()
		defer mu.Unlock()
		addresses = map[string]struct{}{}
		for _, f := range fixtures {
			addresses[f.server.Addr().String()] = struct{}{}
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	are(stays, killed)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(agentClaims("n1").token()), 0o600); err != nil {
		t.Fatal(err)
	}
	const newer = 100 // ports of connections that begin once the new replica receives flows
	source := &traffic{first: 1}
	pusher := flowpush.New(flowpush.Options{
		Source: source, Names: flowlog.NewRecorder("n1", namesOfWeb{}), Interval: 50 * time.Millisecond, BufferBytes: 16 << 20,
		Replicas: func(ctx context.Context, set func(map[string]struct{})) {
			for {
				mu.Lock()
				now := addresses
				mu.Unlock()
				set(now)
				select {
				case <-ctx.Done():
					return
				case <-changed:
				}
			}
		},
		Access: replicas.Access{
			Authority: func(context.Context) ([]byte, error) { return bundle().Authorities(), nil }, ServerName: flow.ServerName, TokenFile: token,
		},
		Log: logr.Discard(), Registry: prometheus.NewRegistry(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- pusher.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await(t, "flows at both", func() bool { return stays.connections(0) > 200 && killed.connections(0) > 200 })
	killed.kill()
	fresh := newFixture(t)
	are(stays, fresh)
	await(t, "flows at the new one", func() bool { return fresh.connections(0) > 200 })
	source.move(newer)
	await(t, "newer flows", func() bool { _, n := source.sent(); return n > 200 })
	source.end()
	all, since := source.sent()
	await(t, "all flows at the one that stays", func() bool { return stays.connections(0) >= all })
	await(t, "all newer flows at the new one", func() bool { return fresh.connections(newer) >= since })
	if stays.connections(0) != all || stays.connections(newer) != since || fresh.connections(newer) != since {
		t.Errorf("%d connections of %d, of the newer ones %d and %d of %d", stays.connections(0), all, stays.connections(newer), fresh.connections(newer), since)
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("timed out: " + what)
		}
	}
}
