// Package agentapi is what an agent says about its node: the lines of its flow log, and the answers of its read-only HTTP
// API under /v1. docs/agent-api.md has the paths and who may ask, docs/flow-log.md the meaning of an Event.
//
// Fields are added to v1 and none is taken away or given another meaning; who reads it ignores what it does not know.
package agentapi
