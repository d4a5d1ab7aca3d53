package flowpush

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/policy"
)

// interval is that of the tests' Pushers.
const testInterval = 5 * time.Second

// source has so many records in each interval.
type source struct {
	mu         sync.Mutex
	perRead    int
	packets    uint64 // of all records so far
	records    int
	unrecorded uint64
	failing    bool
}

func (s *source) Records() (out []events.Event, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		return nil, errors.New("the map cannot be read")
	}
	for range s.perRead {
		s.records++
		now := time.Now()
		from := netip.AddrFrom4([4]byte{10, byte(s.records >> 16), byte(s.records >> 8), byte(s.records)})
		out = append(out, events.Event{
			Time: now, First: now, Packets: 3, Bytes: 180, Direction: policy.Egress, Protocol: policy.TCP, Verdict: events.Allow, Reason: events.ReasonDefault,
			Source: netip.AddrPortFrom(from, 40000), Destination: netip.MustParseAddrPort("10.0.0.2:443"),
		})
		s.packets += 3
	}
	return out, nil
}

func (s *source) UnrecordedPackets() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unrecorded, nil
}

func (s *source) all() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.packets
}

func (s *source) change(f func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

type nameless struct{}

func (nameless) Pod(netip.Addr, time.Time) (flowlog.Pod, bool)           { return flowlog.Pod{}, false }
func (nameless) Rule(compiler.RuleID) (agentapi.RuleRef, bool)           { return agentapi.RuleRef{}, false }
func (nameless) Isolating(compiler.SetID) []agentapi.PolicyRef           { return nil }
func (nameless) Audited(compiler.SetID) ([]agentapi.PolicyRef, bool)     { return nil, false }
func (nameless) DomainNames(netip.Addr) []string                         { return nil }
func (nameless) NameMiss(compiler.SetID, policy.Flow) *agentapi.NameMiss { return nil }

// replica is a replica of an observer.
type replica struct {
	mu       sync.Mutex
	stored   map[uint64]*flow.PushRequest
	repeated int // batches that came again
	// What it does wrong:
	isAway     bool
	confirmsIn time.Duration
	confirms   int // so many batches of each connection; then it ends it
	isDeaf     bool
	streams    int
}

func newReplica() *replica {
	return &replica{stored: map[uint64]*flow.PushRequest{}, confirms: 1 << 30}
}

func (r *replica) change(f func(*replica)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// packets are those in its batches, and those that it was told are lost.
func (r *replica) packets() (stored, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.stored {
		for _, record := range b.GetRecords() {
			stored += record.GetPackets()
		}
		for _, l := range b.GetLosses() {
			if l.GetReason() == lossQueue {
				lost += l.GetPackets()
			}
		}
	}
	return stored, lost
}

// streamOf is a stream to a replica.
type streamOf struct {
	ctx  context.Context
	end  context.CancelCauseFunc
	sent chan *flow.PushRequest
	back chan *flow.PushResponse
}

func (r *replica) connect(ctx context.Context) (pushStream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isAway {
		return nil, status.Error(codes.Unavailable, "away")
	}
	r.streams++
	s := &streamOf{sent: make(chan *flow.PushRequest), back: make(chan *flow.PushResponse, 100)}
	s.ctx, s.end = context.WithCancelCause(ctx)
	go r.serve(s)
	return s, nil
}

func (r *replica) serve(s *streamOf) {
	for served := 0; ; served++ {
		r.mu.Lock()
		in, delay, mayConfirm, isAway := s.sent, r.confirmsIn, served < r.confirms, r.isAway
		if r.isDeaf {
			in = nil
		}
		r.mu.Unlock()
		if isAway {
			s.end(io.EOF)
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case b := <-in:
			r.mu.Lock()
			if _, ok := r.stored[b.GetSequence()]; ok {
				r.repeated++
			} else {
				r.stored[b.GetSequence()] = b
			}
			r.mu.Unlock()
			if !mayConfirm { // it ends with a batch stored and not confirmed
				s.end(io.EOF)
				return
			}
			select {
			case <-time.After(delay):
			case <-s.ctx.Done():
				return
			}
			s.back <- &flow.PushResponse{Generation: b.GetGeneration(), Sequence: b.GetSequence()}
		}
	}
}

func (s *streamOf) Send(b *flow.PushRequest) error {
	select {
	case s.sent <- proto.Clone(b).(*flow.PushRequest):
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *streamOf) Recv() (*flow.PushResponse, error) {
	select {
	case m := <-s.back:
		return m, nil
	case <-s.ctx.Done():
		return nil, status.Error(codes.Unavailable, context.Cause(s.ctx).Error())
	}
}

// world is a Pusher with its replicas.
type world struct {
	t        *testing.T
	source   *source
	pusher   *Pusher
	replicas map[string]*replica
	set      chan map[string]struct{}
	stop     func()
}

// in runs a test in a bubble with a Pusher and these replicas.
func in(t *testing.T, bufferBytes int, test func(w *world), replicas ...string) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, source: &source{perRead: 10}, replicas: map[string]*replica{}, set: make(chan map[string]struct{})}
		w.pusher = New(Options{
			Source: w.source, Names: flowlog.NewRecorder("node", nameless{}), Interval: testInterval, BufferBytes: bufferBytes,
			Replicas: func(ctx context.Context, set func(map[string]struct{})) {
				for {
					select {
					case addresses := <-w.set:
						set(addresses)
					case <-ctx.Done():
						return
					}
				}
			},
			Log: logr.Discard(), Registry: prometheus.NewRegistry(),
		})
		w.pusher.connect = func(ctx context.Context, address string) (pushStream, error) { return w.replicas[address].connect(ctx) }
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := w.pusher.Start(ctx); err != nil {
				t.Error(err)
			}
		})
		w.stop = func() {
			cancel()
			running.Wait()
		}
		defer w.stop()
		w.are(replicas...)
		test(w)
	})
}

// are sets which replicas there are.
func (w *world) are(addresses ...string) {
	set := map[string]struct{}{}
	for _, a := range addresses {
		if set[a] = struct{}{}; w.replicas[a] == nil {
			w.replicas[a] = newReplica()
		}
	}
	w.set <- set
	synctest.Wait()
}

// pass lets time pass, and checks the buffer's size on the way.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for ; d > 0; d -= time.Second {
		time.Sleep(time.Second)
		synctest.Wait()
		w.pusher.buffer.mu.Lock()
		size, limit := w.pusher.buffer.bytes, w.pusher.buffer.limit
		w.pusher.buffer.mu.Unlock()
		if size > limit {
			w.t.Fatalf("the buffer has %d bytes, its limit is %d", size, limit)
		}
	}
}

// accounts checks that each packet so far is in a batch that a replica has, or was reported to it as lost, and no packet is in both.
func (w *world) accounts(address string) (lost uint64) {
	w.t.Helper()
	stored, lost := w.replicas[address].packets()
	if all := w.source.all(); stored+lost != all {
		w.t.Errorf("%s: %d packets stored and %d lost, %d recorded", address, stored, lost, all)
	}
	return lost
}

const large = 1 << 20

func TestEachReplicaGetsAllRecords(t *testing.T) {
	in(t, large, func(w *world) {
		w.pass(time.Minute)
		for _, address := range []string{"one", "two"} {
			if lost := w.accounts(address); lost > 0 {
				t.Errorf("%d packets are lost", lost)
			}
			for sequence, b := range w.replicas[address].stored {
				if isFirst := sequence == 1; len(b.GetLosses()) > 0 != isFirst || isFirst && b.GetLosses()[0].GetReason() != lossRestart {
					t.Errorf("batch %d has losses %v", sequence, b.GetLosses())
				}
				if b.GetGeneration() == "" || b.GetSent() == 0 || b.GetUntil() == 0 {
					t.Errorf("batch %d: %v", sequence, b)
				}
			}
		}
		if n := len(w.pusher.buffer.batches); n > 0 {
			t.Errorf("%d batches are kept that all replicas have", n)
		}
	}, "one", "two")
}

// An empty batch shows that the node has nothing to report.
func TestANodeWithoutTrafficSendsEmptyBatches(t *testing.T) {
	in(t, large, func(w *world) {
		w.source.change(func(s *source) { s.perRead = 0 })
		w.pass(time.Minute)
		if n := len(w.replicas["one"].stored); n != 12 {
			t.Errorf("%d batches", n)
		}
	}, "one")
}

func TestAnObserverThatIsAwayForAnHour(t *testing.T) {
	for name, between := range map[string]struct{ away, back func(w *world) }{
		"its pod does not answer": {
			func(w *world) { w.replicas["one"].change(func(r *replica) { r.isAway = true }) },
			func(w *world) { w.replicas["one"].change(func(r *replica) { r.isAway = false }) },
		},
		"there is no pod": {func(w *world) { w.are() }, func(w *world) { w.are("one") }},
		"its pod has another address afterwards": {
			func(w *world) { w.are() },
			func(w *world) {
				w.replicas["another"] = w.replicas["one"]
				w.are("another")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 64<<10, func(w *world) {
				w.pass(time.Minute)
				between.away(w)
				w.pass(time.Hour)
				between.back(w)
				w.pass(2 * time.Minute)
				lost := w.accounts("one")
				if stored, _ := w.replicas["one"].packets(); lost == 0 || stored < w.source.all()/10 {
					t.Errorf("%d packets stored, %d lost", stored, lost)
				}
				w.pass(time.Minute)
				if now := w.accounts("one"); now != lost {
					t.Errorf("%d packets more are lost when it is back", now-lost)
				}
			}, "one")
		})
	}
}

// The loss of a replica that comes too late for the first records is since the agent's start.
func TestAnObserverThatComesAnHourAfterTheAgent(t *testing.T) {
	in(t, 64<<10, func(w *world) {
		began := time.Now()
		w.pass(time.Hour)
		w.are("one")
		w.pass(2 * time.Minute)
		if w.accounts("one") == 0 {
			t.Error("no packets are lost")
		}
		var losses []*flow.Loss
		for _, b := range w.replicas["one"].stored {
			losses = append(losses, b.GetLosses()...)
		}
		if len(losses) != 1 || losses[0].GetReason() != lossQueue || losses[0].GetFirst() != began.UnixMilli() || time.UnixMilli(losses[0].GetLast()).Sub(began) < time.Minute {
			t.Errorf("began %d: %v", began.UnixMilli(), losses)
		}
	})
}

func TestASlowObserverDelaysNoOther(t *testing.T) {
	in(t, 32<<10, func(w *world) {
		w.replicas["slow"].change(func(r *replica) { r.confirmsIn = 20 * time.Second })
		w.pass(30 * time.Minute)
		if lost := w.accounts("one"); lost > 0 {
			t.Errorf("%d packets are lost to the other replica", lost)
		}
		w.replicas["slow"].change(func(r *replica) { r.confirmsIn = 0 })
		w.pass(2 * time.Minute)
		if lost := w.accounts("slow"); lost == 0 {
			t.Error("it lost nothing")
		}
	}, "one", "slow")
}

// A batch that is stored and not confirmed comes again, with the same sequence.
func TestAnObserverThatStartsAgain(t *testing.T) {
	in(t, large, func(w *world) {
		w.replicas["one"].change(func(r *replica) { r.confirms = 2 })
		w.pass(10 * time.Minute)
		w.replicas["one"].change(func(r *replica) { r.confirms = 1 << 30 })
		w.pass(time.Minute)
		if lost := w.accounts("one"); lost > 0 || w.replicas["one"].repeated == 0 {
			t.Errorf("%d packets are lost, %d batches came again", lost, w.replicas["one"].repeated)
		}
	}, "one")
}

// Neither a replica that does not read nor one that confirms nothing keeps its stream.
func TestASilentObserver(t *testing.T) {
	for name, fail := range map[string]func(*replica){
		"it does not read":    func(r *replica) { r.isDeaf = true },
		"it does not confirm": func(r *replica) { r.confirmsIn = 24 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, large, func(w *world) {
				w.replicas["one"].change(fail)
				w.pass(10 * time.Minute)
				streams := w.replicas["one"].streams
				if streams < 5 || streams > 30 {
					t.Errorf("%d streams in ten minutes", streams)
				}
				w.replicas["one"].change(func(r *replica) { r.isDeaf, r.confirmsIn = false, 0 })
				w.pass(2 * time.Minute)
				if lost := w.accounts("one"); lost > 0 {
					t.Errorf("%d packets are lost", lost)
				}
			}, "one")
		})
	}
}

// A replica that takes the place of another gets what that one has not confirmed, also if a third has it.
func TestAReplicaThatReplacesAnother(t *testing.T) {
	in(t, large, func(w *world) {
		w.pass(time.Minute)
		w.replicas["one"].change(func(r *replica) { r.isAway = true })
		w.pass(time.Minute)
		w.are("two")
		w.pass(time.Minute)
		w.replicas["new"] = newReplica()
		w.replicas["new"].stored = w.replicas["one"].stored // on the same volume
		w.are("two", "new")
		w.pass(time.Minute)
		if lost := w.accounts("new"); lost > 0 {
			t.Errorf("%d packets are lost", lost)
		}
		if n := len(w.pusher.buffer.batches) + len(w.pusher.buffer.orphans); n > 0 {
			t.Errorf("%d batches and positions are kept", n)
		}
		// One that nothing replaces is forgotten.
		w.are("new")
		w.pass(2 * orphanFor)
		if n := len(w.pusher.buffer.orphans); n > 0 {
			t.Errorf("%d positions are kept", n)
		}
	}, "one", "two")
}

func TestPacketsThatTheKernelCouldNotRecord(t *testing.T) {
	in(t, large, func(w *world) {
		w.pass(time.Minute)
		w.source.change(func(s *source) { s.unrecorded = 77 })
		w.pass(10 * time.Second)
		w.source.change(func(s *source) { s.unrecorded = 80 })
		w.pass(10 * time.Second)
		sum := uint64(0)
		for _, b := range w.replicas["one"].stored {
			for _, l := range b.GetLosses() {
				if l.GetReason() == lossMap {
					if sum += l.GetPackets(); l.GetLast()-l.GetFirst() != testInterval.Milliseconds() {
						t.Errorf("loss from %d to %d", l.GetFirst(), l.GetLast())
					}
				}
			}
		}
		if sum != 80 {
			t.Errorf("%d packets are reported", sum)
		}
	}, "one")
}

func TestAMapThatCannotBeReadForAWhile(t *testing.T) {
	in(t, large, func(w *world) {
		w.pass(time.Minute)
		w.source.change(func(s *source) { s.failing = true })
		w.pass(time.Minute)
		w.source.change(func(s *source) { s.failing = false })
		w.pass(time.Minute)
		w.accounts("one")
	}, "one")
}

func TestABatchFitsIntoAMessage(t *testing.T) {
	in(t, 16<<20, func(w *world) {
		w.source.change(func(s *source) { s.perRead = 40_000 })
		w.pass(2 * testInterval)
		if lost := w.accounts("one"); lost > 0 {
			t.Errorf("%d packets are lost", lost)
		}
		batches := w.replicas["one"].stored
		if len(batches) < 3 {
			t.Errorf("%d batches", len(batches))
		}
		for sequence, b := range batches {
			if size := proto.Size(b); size > flow.MaxMessageSize {
				t.Errorf("batch %d has %d bytes", sequence, size)
			}
			if next := batches[sequence+1]; next != nil && b.GetUntil() == 0 && next.GetUntil() == 0 && len(next.GetRecords()) == 0 {
				t.Errorf("batches %d and %d have no end", sequence, sequence+1)
			}
		}
	}, "one")
}

// The records of the last seconds reach the observer when the agent ends; an observer that is away delays the end by seconds.
func TestTheEnd(t *testing.T) {
	in(t, large, func(w *world) {
		w.pass(time.Minute + time.Second)
		w.stop()
		w.accounts("one")
	}, "one")
	in(t, large, func(w *world) {
		w.replicas["one"].change(func(r *replica) { r.isAway = true })
		w.pass(time.Minute)
		begin := time.Now()
		w.stop()
		if took := time.Since(begin); took > 2*lastPushes {
			t.Errorf("it took %v", took)
		}
	}, "one")
}
