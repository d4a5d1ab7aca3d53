// Package agent keeps one node's dataplane at what the PolicyEndpoints say about the node's pods.
//
// Watches feed a state of plain data (state.go, with pods.go, policies.go and groups.go), which feeds the compiler; a
// single loop (agent.go) takes the compiler's changes to the dataplane. What cannot be written is retried until the
// kernel's maps hold what they should.
package agent
