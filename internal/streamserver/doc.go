// Package streamserver serves the stream that each agent holds to each replica of the controller (package
// stream): TLS, the agents' tokens, limits, and a queue to each agent. It passes messages on and knows nothing of
// their meaning.
//
// A caller without a valid token costs a parse of its claims and nothing at the API server. A review of a token
// costs a request, so a token is reviewed only if its claims name a running pod of the agents, and at a bounded
// rate: one for callers with an address of the pod's node, another, lower one for all others.
package streamserver
