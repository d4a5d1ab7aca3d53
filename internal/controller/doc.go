// Package controller keeps PolicyEndpoints and PolicyEndpointSlices what the resolver says they should be.
//
// Watch handlers give namespaces, pods and policies to the resolver and enqueue exactly the objects that
// become different. Reconcile asks package plan which writes make one of them right, and in which order, and
// carries these out. Objects of the controller's that another client edits or deletes are enqueued by their
// own watches and restored the same way.
package controller
