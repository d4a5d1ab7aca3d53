// Package plan decides what the controller writes to the API server, in which order and when. It has no
// client, no lock and no clock: its inputs are what the resolver wants, what the cache contains and the time;
// internal/controller carries its plans out.
//
// The order of writes is a promise to readers:
//
//   - A group is complete before a PolicyEndpoint that refers to it is written. Its slices are deleted only when
//     no PolicyEndpoint refers to it any more (References).
//   - A new slice of a group is written before the first slice counts it, and deleted after the first slice has
//     stopped counting it.
//   - An address that moves to another slice is written there before it is removed from the old one.
//   - Specs come before statuses, which nothing enforces.
package plan
