// Package reference defines what policies mean. It has two evaluators: NetworkPolicies evaluates API objects, and Evaluate
// evaluates normalised policies, as PolicyEndpoints and ClusterPolicyEndpoints have them.
//
// Both are written to be read beside the API's documentation, not to be fast. Every other way to decide about a flow must agree
// with them on every flow; docs/evaluators.md lists these ways and the tests that compare them. From package policy, the
// evaluators use types only. They share no function that decides anything with the code that they are compared with.
package reference
