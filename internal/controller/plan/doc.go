// Package plan decides what the controller writes to the API server, in which order and when. It has no
// client, no lock and no clock: its inputs are what the resolver wants, what the cache contains and the time;
// internal/controller carries its plans out.
//
// The order of writes is a promise to readers:
//
//   - A group is complete before a PolicyEndpoint that refers to it is written. It leaves its slices only when
//     no PolicyEndpoint refers to it any more (References).
//   - Slices that get a part of a group are written before the group's list names them, and slices that lose
//     a part or are deleted afterwards. A slice that gets a part and loses another one is written twice. Where two
//     slices with lists name each other's new parts, a group may be incomplete in between; agents keep its
//     previous members.
//   - An address that moves to another slice, also of another namespace, is written there before it leaves the
//     old one.
//   - A write waits for no other unless it depends on it by one of these rules. One that fails holds those that
//     come after it and no others; one in a namespace of users holds none in kidoban's own.
//   - Specs come before statuses, which nothing enforces.
package plan
