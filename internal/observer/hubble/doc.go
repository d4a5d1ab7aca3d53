// Package hubble serves Hubble's Observer API from an observer's flows, so that the hubble CLI and other clients of that API
// work with kidoban. docs/hubble.md lists what each field contains.
//
// A Flow of observerapi has the decisions of both ends and is one flow in Hubble's API, too. Where a client asks for one
// direction, or for one type of event, the flow is shown as such an event if it contains that.
package hubble
