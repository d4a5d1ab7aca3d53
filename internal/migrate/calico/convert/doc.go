// Package convert writes Calico's policies as NetworkPolicies of networking.k8s.io/v1 where these can say the same, and names the
// field where they cannot.
//
// Calico judges in order: tiers, policies by their order, rules; NetworkPolicies only add up. So a rule that refuses or passes is
// taken out of what every later rule allows, exactly, with sets: of pods (terms.go), of addresses and of both (peers.go), of ports (ports.go), and of
// flows (flows.go). What a set cannot express, as "every address that is no pod of these labels", is an error that becomes the
// problem of the rule it came from.
//
// walk.go asks, for each namespace and direction, what each policy allows to the pods that it selects; write.go makes NetworkPolicies of
// the answers. Another kind of policy as a target would take the place of write.go alone.
package convert
