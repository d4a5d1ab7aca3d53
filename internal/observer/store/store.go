package store

import (
	"context"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Resolutions of what is stored.
const (
	// Exact is the span of a Report of Scan while it has pods and addresses.
	Exact = 10 * time.Second
	// Minute is the shortest span of a Report of Sums in the newest part of the store. A store may use a longer one, up to an Hour.
	Minute = time.Minute
	// Hour is the span of all older ones.
	Hour = time.Hour
)

// Store keeps reports. Its methods may be called at the same time.
type Store interface {
	// Put stores batches, all or none of them. A batch that is stored already, by its node, generation and sequence, changes
	// nothing, also if the store was closed and opened again since.
	Put(ctx context.Context, batches []Batch) error

	// Scan calls yield with the reports of the query, the newest span first, until yield returns false. Within a span their order
	// is undefined. Reports have exact ends and the span Exact as far back as the store keeps that; older ones are those of Sums.
	Scan(ctx context.Context, q Query, yield func(*Report) bool) error

	// Sums calls yield with reports that are summed up by workload: see Summary. It may sum up more than the query's time at its
	// ends, by up to the span of a report.
	Sums(ctx context.Context, q Query, yield func(*Report) bool) error

	// Losses returns what is missing in a span of time, by node and reason.
	Losses(ctx context.Context, since, until time.Time) ([]observerapi.Loss, error)

	// Nodes returns the nodes that have pushed anything that is still stored, by name.
	Nodes(ctx context.Context) ([]Node, error)

	// Status reports what is stored.
	Status(ctx context.Context) (Status, error)

	// Retain rolls up and deletes what is too old or too much at a time. It is called about once a minute.
	Retain(ctx context.Context, now time.Time) error

	Close() error
}

// Limits of a store.
type Limits struct {
	// Age of the oldest reports, and ExactAge of the oldest with exact ends.
	Age, ExactAge time.Duration
	// Bytes on disk, of all that is stored.
	Bytes int64
	// Addresses is the most addresses outside the cluster that are kept exactly in an hour. Others are stored without an address.
	Addresses int
}

// Batch is what an agent pushed at once.
type Batch struct {
	Node       string
	Generation string
	Sequence   uint64
	// Received is the time by the observer's clock.
	Received time.Time
	Reports  []Report
	Losses   []observerapi.Loss
}

// Report is what one end's node reports about connections of one kind in a span of time.
type Report struct {
	// Span is the beginning of the span, which is as long as Resolution: First, rounded down.
	Span       time.Time
	Resolution time.Duration
	// First and Last connection, by the observer's clock.
	First, Last time.Time
	Direction   Direction
	// Source and Destination are shared between reports and must not be changed.
	Source, Destination *observerapi.End
	// Service that the source called, as namespace/name. Only the source's node can know it.
	Service  string
	Protocol string
	Port     uint16
	// Decision is shared between reports and must not be changed.
	Decision *observerapi.Decision
	// Connections, or packets if the report Continues connections.
	Connections uint64
	Bytes       uint64
	// Continues is set for packets of connections that the kernel has forgotten, and Reply, too, for their replies.
	Continues, Reply bool
	// Beside is set if the connections are in another report, too, which has the verdict that they got: Decision says what audited
	// policies would have changed.
	Beside bool
}

// Direction is the end whose policies decided.
type Direction uint8

// The directions.
const (
	Egress  Direction = iota // the source's
	Ingress                  // the destination's
)

// Query says which reports are asked for. A store may return more than match, except for time; callers filter.
type Query struct {
	// Since and Until bound the spans: Since <= Span < Until, after Since was rounded down to a span.
	Since, Until time.Time
	// Namespace of either end.
	Namespace string
	// Workload, with Namespace: the name of the workload of either end, of any kind.
	Workload string
	// Policy that decided, or that is audited, if Policy.Name is not empty.
	Policy Policy
	// Oldest asks for the oldest span first.
	Oldest bool
}

// Policy names a policy.
type Policy struct{ Kind, Namespace, Name string }

// Node is a node that has pushed.
type Node struct {
	Name        string
	First, Last time.Time
}

// Status is what a store contains.
type Status struct {
	// Began is the time since which everything that was pushed is stored; zero: nothing is. Reports may be about earlier times.
	Began time.Time
	// Since is the time of the oldest report, and ExactSince that of the oldest with exact ends.
	Since, ExactSince time.Time
	// Bytes on disk, and Reports with exact ends.
	Bytes   int64
	Reports int64
}

// Summary returns an end without what differs between the pods of a workload that have the same labels: name, UID, node, address. The
// address of an end that is no pod stays.
func Summary(e *observerapi.End) observerapi.End {
	s := *e
	if s.UID != "" || s.Pod != "" {
		s.Pod, s.UID, s.Node, s.Address = "", "", "", netip.Addr{}
	}
	return s
}
