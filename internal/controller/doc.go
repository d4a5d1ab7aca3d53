// Package controller keeps PolicyEndpoints and PolicyEndpointSlices what the resolver says that they should be.
//
// Watch handlers feed namespaces, pods and policies to the resolver and enqueue exactly the objects that become different;
// Reconcile reads one of them from the resolver, compares it with what is there and writes the difference. Objects of ours
// that somebody else edits or deletes come back by the same way.
//
// A reader never sees a PolicyEndpoint that refers to a group which is not there: groups are written before what refers to
// them, and swept after it.
package controller
