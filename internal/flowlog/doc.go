// Package flowlog turns the dataplane's verdicts into lines that name pods, policies and rules, and brings them to where
// operators read: a file, stdout, CloudWatch Logs, and the ring of recent events that the agent's API serves.
//
// A Log is on the way of no packet: a sink that is slow or away costs lines, which are counted, and nothing else.
package flowlog
