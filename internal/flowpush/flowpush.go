package flowpush

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/replicas"
)

// Source is a dataplane.Dataplane.
type Source interface {
	// Records returns what was counted since the last call.
	Records() ([]events.Event, error)
	// UnrecordedPackets counts the packets that should be in a record and are in none.
	UnrecordedPackets() (uint64, error)
}

// Options of a Pusher.
type Options struct {
	Source Source
	// Names of what Source reports.
	Names *flowlog.Recorder
	// Interval between two readings of Source.
	Interval time.Duration
	// Report returns what the observer can ask for on behalf of kubectl kidoban status.
	Report func() (*agentapi.NodeReport, error)
	// BufferBytes is the memory of records that some replica has not confirmed.
	BufferBytes int
	Replicas    replicas.Watch
	Access      replicas.Access
	Log         logr.Logger
	Registry    prometheus.Registerer
}

// Pusher pushes records.
type Pusher struct {
	opts       Options
	generation string
	metrics    *metrics
	buffer     *buffer
	connect    connect

	begun      bool // there was a batch
	until      time.Time
	unrecorded uint64
	isFailing  bool // to read records
}

// New returns a Pusher that begins with Start.
func New(opts Options) *Pusher {
	m := newMetrics(opts.Registry)
	return &Pusher{opts: opts, generation: rand.Text(), metrics: m, buffer: newBuffer(opts.BufferBytes, m), connect: overGRPC(&opts.Access)}
}

// lastPushes is how long replicas may take for what is left when the agent ends.
const lastPushes = 3 * time.Second

// Start reads and pushes records until the context is done, and then what is left, as far as that goes in a few seconds.
func (p *Pusher) Start(ctx context.Context) error {
	p.until = time.Now()
	p.buffer.begin(p.until)
	pushing, end := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		var following sync.WaitGroup
		replicas.Follow(pushing, p.opts.Replicas, func(ctx context.Context, address string) {
			following.Go(func() { p.follow(ctx, address) })
		})
		following.Wait()
	})
	defer running.Wait()
	defer end()
	interval := time.NewTicker(p.opts.Interval)
	defer interval.Stop()
	for {
		select {
		case <-interval.C:
			p.read()
		case <-ctx.Done():
			p.read()
			p.finish()
			return nil
		}
	}
}

// finish waits until the replicas have all records.
func (p *Pusher) finish() {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(lastPushes); !p.buffer.isDone() && time.Now().Before(deadline); {
		<-poll.C
	}
}

// read puts what was counted since the last time into the buffer.
func (p *Pusher) read() {
	counted, err := p.opts.Source.Records()
	if err != nil && !p.isFailing {
		p.opts.Log.Error(err, "Cannot read flow records; retrying")
	}
	if p.isFailing = err != nil; p.isFailing && len(counted) == 0 {
		return
	}
	now := time.Now()
	r := &flow.PushRequest{Generation: p.generation, Losses: p.losses(now)}
	size := proto.Size(r)
	for i := range counted {
		named := p.opts.Names.Record(&counted[i])
		record := recordOf(&counted[i], &named)
		n := proto.Size(record) + recordOverhead
		if size+n > maxBatch {
			p.add(r, now)
			r, size = &flow.PushRequest{Generation: p.generation}, 0
		}
		r.Records = append(r.Records, record)
		size += n
	}
	r.Until = now.UnixMilli()
	p.add(r, now)
	p.until = now
}

const (
	// recordOverhead is the size of a record's tag and length in a batch.
	recordOverhead = 5
	// maxBatch leaves room in a message for what is added when a batch is sent.
	maxBatch = flow.MaxMessageSize - 4096
)

func (p *Pusher) add(r *flow.PushRequest, now time.Time) {
	p.metrics.recorded.Add(float64(len(r.GetRecords())))
	if err := p.buffer.add(r, now); err != nil {
		p.opts.Log.Error(err, "Cannot add flow records")
	}
}

// losses are those since the last batch.
func (p *Pusher) losses(now time.Time) (out []*flow.Loss) {
	if !p.begun {
		p.begun = true
		out = append(out, &flow.Loss{Reason: lossRestart, Last: p.until.UnixMilli()})
	}
	unrecorded, err := p.opts.Source.UnrecordedPackets()
	if err != nil {
		p.opts.Log.Error(err, "Cannot read how many packets are in no flow record; retrying")
		return out
	}
	if n := unrecorded - p.unrecorded; n > 0 {
		p.metrics.lost.WithLabelValues(lossMap).Add(float64(n))
		out = append(out, &flow.Loss{Reason: lossMap, Packets: n, First: p.until.UnixMilli(), Last: now.UnixMilli()})
		p.unrecorded = unrecorded
	}
	return out
}
