// Package node is what one node knows of its pods and their policies, as arithmetic. Events go in: pods, namespaces, PolicyEndpoints, slices
// of groups, sandboxes of the container runtime, interfaces. Changes of the kernel's maps come out, each with the revision that it reaches.
//
// A Node has no client, no clock and no goroutines. Each event carries its time, and the caller serialises the calls. The agent feeds a Node
// from its watches; tests, the lab and the fuzzers feed the same Node from memory.
//
//	Pod ─────────────┐
//	Namespace ───────┤
//	Sandbox ─────────┤  pods.go, sandboxes.go, namespaces.go: which pods there are, and who owns an address
//	Interfaces ──────┤  interfaces.go: which interface is a pod's own
//	PolicyEndpoint ──┤  policies.go, phase.go: which version of a policy is in force
//	Slice ───────────┤  groups.go: which addresses a group has
//	                 ▼
//	             compilePod: a pod with its addresses, interface and policies
//	                 ▼
//	       internal/compiler ──► Commit: Changes and the revision
//
// ClusterPolicyEndpoints are not an input yet: no controller writes them.
package node
