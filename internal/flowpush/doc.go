// Package flowpush sends records of a node's flows to the replicas of an observer.
//
// It reads what the kernel has counted every few seconds, adds names, and keeps the records in a buffer until every replica has confirmed
// them. A replica that is slow or away costs memory up to a limit, then records, which are counted and reported to it as lost. No packet and
// no line of the flow log waits for it.
package flowpush
