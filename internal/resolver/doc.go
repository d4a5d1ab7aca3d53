// Package resolver turns NetworkPolicies into the specs of PolicyEndpoints, and their peer selectors into groups of
// addresses cut into PolicyEndpointSlices, and keeps both right as pods, namespaces and policies change.
//
// It is arithmetic in memory: no client, no clock, no goroutine. A caller feeds it one change at a time (SetPod,
// DeletePolicy, …) and is told exactly which PolicyEndpoints and slices became different by it; what they are now is
// read with Endpoint and Slice. The cost of a change follows what it touches: an inverted index of the labels that
// selectors require finds the groups that a pod is in, whatever the number of policies that use them.
//
//	NetworkPolicy ──normalize──► peers with the union of their ports ──render──► PolicyEndpointSpec
//	                                  │ selector
//	Pod, Namespace ──index──► matcher ┴► group ──placement──► PolicyEndpointSliceSpec
package resolver
