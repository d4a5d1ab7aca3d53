// Package plan decides what the controller writes to the API server, in which order and when. It has no
// client, no lock and no clock: its inputs are what the resolver wants, what the cache contains and the time;
// internal/controller carries its plans out.
//
// The order of writes is a promise to readers:
//
//   - A group is complete before a PolicyEndpoint that refers to it is written. It leaves its slices only when
//     no PolicyEndpoint refers to it any more (References).
//   - Slices that get a part of a group are written before the group's list names them, and slices that lose
//     a part or are deleted afterwards. Where one write would have to come both before and after another, a
//     group may be incomplete in between; agents keep its previous members.
//   - An address that moves to another slice is written there before a list drops the old one.
//   - Specs come before statuses, which nothing enforces.
package plan
