// Package netpol reads NetworkPolicies as their authors wrote them, without a resolver: the directions, rules, peers and
// ports of one policy. What explains, converts and suggests policies uses it. The controller and the agent do not: they
// enforce what internal/resolver makes of a policy.
package netpol
