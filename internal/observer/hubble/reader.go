package hubble

import (
	"context"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Reader reads flows as one caller may see them. Ends that the caller may not read are hidden in all flows that it returns, so filters
// cannot reveal them either. Its methods may be called at the same time.
type Reader interface {
	// Flows calls visit with the flows whose last connection is in the query's time, ordered by that, until visit returns false. It
	// returns how much of the time is covered. visit may keep a flow, and nothing may change it.
	Flows(ctx context.Context, q Query, visit func(*observerapi.Flow) bool) (observerapi.Coverage, error)

	// Subscribe returns a channel of what arrives after the call, until ctx is done; then it closes the channel. A flow that grows comes
	// again, with the new connections only. What a subscriber is too slow for is lost and counted by a later Arrival.
	Subscribe(ctx context.Context) (<-chan Arrival, error)

	// Nodes returns the nodes of the cluster, by name. It returns PermissionDenied to a caller that may not read all namespaces.
	Nodes(ctx context.Context) ([]Node, error)

	// Namespaces returns the namespaces of ends of flows since a time, in ascending order.
	Namespaces(ctx context.Context, since time.Time) ([]string, error)

	// Status reports what the observer has. It returns PermissionDenied as Nodes does.
	Status(ctx context.Context) (Status, error)
}

// Query says which flows are asked for.
type Query struct {
	// Since <= the flow's last connection < Until. Zero: no bound.
	Since, Until time.Time
	// Newest asks for the newest flow first.
	Newest bool
}

// Arrival is what a subscriber receives: a flow, or a loss.
type Arrival struct {
	Flow *observerapi.Flow
	// Loss counts records that are missing before the next flow; its Reason is LossReader if the subscriber was too slow.
	Loss *observerapi.Loss
}

// LossReader is the reason of a loss of flows that the observer has, and that a reader was too slow for.
const LossReader = "reader"

// Node is a node of the cluster.
type Node struct {
	Name string
	// Connected is set if the node's agent is connected to the observer.
	Connected bool
	// Version of the agent, if it is known.
	Version string
	// Since is when the agent connected; zero if it is not connected.
	Since time.Time
}

// Status is what an observer has.
type Status struct {
	// Started is when the observer started.
	Started time.Time
	// Stored flows, and how many were received since it started.
	Stored, Received uint64
	// PerSecond is how many flows were received in each second of the last minute, on average.
	PerSecond float64
}
