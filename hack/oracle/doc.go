// Package oracle draws clusters, NetworkPolicies and flows, and compares what several judges say of each flow:
//
//   - cluster: internal/policy/reference's evaluation of the API objects, our reading of the documentation;
//   - engine: internal/policy/reference's evaluation of the PolicyEndpoints and slices that internal/resolver makes of them;
//   - maps: the look-up in the maps that internal/node makes of those;
//   - cyclonus and kube-network-policies: two implementations that share no code with ours.
//
// The two of others have faults. quirks.go is the one place that knows them: each is an adapter that rewrites what a judge
// is asked so that its fault cannot show, and has a test that shows it. The reference is never adapted for them, so no flow has
// to be left out.
//
// Some policies are audited. Each judge is asked about the enforced policies, and once more about all, as if these were enforced.
//
// A Scenario is a sequence of events, not a cluster: the resolver, the node and the compiler are incremental, and how a cluster came about must
// make no difference. Agents receive objects late, twice and in any order across their watches, miss slices, hear of sandboxes before or
// after their pods, and restart. After each event that arrives, a node's maps must agree with the reference evaluator, asked about exactly
// what has arrived (received.go).
package oracle
