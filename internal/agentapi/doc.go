// Package agentapi has what an agent reports about its node: the lines of its flow log, and the answers of its read-only HTTP
// API under /v1. docs/agent-api.md has the paths and the permissions, docs/flow-log.md the meaning of an Event.
//
// Fields are added to v1; none is removed or gets another meaning. A reader ignores fields that it does not have.
package agentapi
