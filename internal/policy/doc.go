// Package policy is the vocabulary that the resolver, the node's core, the compiler and the CLI share: tiers, actions,
// groups, normalised policies and flows, and how to read them from API objects.
//
// What a policy means is defined elsewhere, in package reference. Nothing here is used there to decide about a flow: the
// code under test and the evaluator that it is compared with must not share a mistake.
package policy
