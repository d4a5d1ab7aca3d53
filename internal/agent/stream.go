package agent

import (
	"context"

	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/stream/client"
)

// Stream is what an Agent uses of the streams to the controller's replicas: a client.Client. Its methods do not block, except Run.
type Stream interface {
	// Run keeps the streams until the context is done.
	Run(ctx context.Context, h client.Handler)
	AddSandbox(*stream.SandboxAdded)
	EndSandbox(uid string)
	SetPolicies(map[client.PolicyKey]*stream.PolicyState)
	SetUnseen([]*stream.Unseen)
	// HasLeader reports whether a replica that leads is connected.
	HasLeader() bool
}
