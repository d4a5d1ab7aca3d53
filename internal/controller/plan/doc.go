// Package plan decides what the controller writes to the API server, in which order and when. It has no
// client, no lock and no clock: its inputs are what the resolver wants, what the cache contains and the time;
// internal/controller carries its plans out.
//
// The order of writes is a promise to readers:
//
//   - a group is complete before a PolicyEndpoint that refers to it is written, and its slices are deleted only when no PolicyEndpoint
//     refers to it any more (References);
//   - a new slice of a group is written before the first slice counts it, and is deleted after the first slice has stopped counting it;
//   - an address that moves to another slice is written there before it is removed from the old one;
//   - specs come before statuses, which nothing enforces.
package plan
