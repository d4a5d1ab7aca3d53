// Package events reads what the BPF program reports about packets, one event for the first of a kind and
// counts of those that follow, and defines the verdicts and reasons that it reports.
package events
