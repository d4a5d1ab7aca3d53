// Package recommend writes NetworkPolicies that allow recorded traffic, and proves that they do.
//
// Writing and proving share no code that decides anything. The writer groups traffic by workload (traffic.go), finds labels that select each
// workload and nothing else (selector.go), and makes rules of ports and peers (rules.go, build.go). The proof (prove.go) puts each recorded flow
// to the reference evaluator, by package replay, and takes each rule away once to see that a recorded flow needs it.
//
// Traffic that a person should decide about is not allowed but listed: traffic seen once, from a scanner, from behind SNAT, or denied today.
package recommend
