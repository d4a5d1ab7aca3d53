// Package policy is the vocabulary that the resolver, the compiler, the agent and the CLI share, and the reference
// evaluator: a plain function from a flow to a verdict and the rule that decided it.
//
// The evaluator is the meaning of a policy. The compiled tables and the BPF program must agree with it on every flow; it
// is written to be read, not to be fast.
package policy
