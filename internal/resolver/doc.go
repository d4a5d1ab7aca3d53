// Package resolver computes the specs of PolicyEndpoints from NetworkPolicies, and PolicyEndpointSlices with
// the addresses of their peer selectors, and updates both as pods, namespaces and policies change.
//
// It works in memory: no client, no clock, no goroutine. A caller gives it one change at a time (SetPod,
// DeletePolicy, …), and each returns exactly the PolicyEndpoints and slices that became different; Endpoint
// and Slice return their content. The cost of a change depends on the groups that it concerns: an inverted
// index of the labels that selectors require finds them, whatever the number of policies.
//
//	NetworkPolicy ──normalize──► peers with the union of their ports ──render──► PolicyEndpointSpec
//	                                  │ selector
//	Pod, Namespace ──index──► matcher ┴► group ──placement──► PolicyEndpointSliceSpec
package resolver
