// Package agent enforces policies on one node. It does the I/O around internal/node: watches of the API server, the container runtime's hooks,
// the node's interfaces, the writes to the kernel, metrics and the API.
//
//	watches ─┐                  ┌─► writer ──► Kernel (internal/dataplane)
//	NRI ─────┼─► state (node) ──┤      └─► sweeper: cuts live flows that are denied now
//	routes ──┘                  └─► API, names for the flow log, metrics
//
// # Locks
//
// state.mu guards the Node. Under it there is only computation: no kernel I/O, no netlink, no waiting. The writer takes the changes under it and
// writes them without it.
//
// interfaceFollower.mu and hitCounter.mu serialise a read of the kernel with taking in what was read. Each is taken before state.mu. The locks of
// applied and sweeper are taken last, for a few assignments.
package agent
