package node

import (
	"fmt"
	"math"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/policy"
)

// Mode is how pods are treated that no policy selects.
type Mode string

// The modes. Traffic between a pod and its own node is allowed in each.
const (
	// Standard is Kubernetes' definition: a pod that no policy selects is not isolated, and neither is an unknown address.
	Standard Mode = "standard"
	// Guarded denies all traffic of an address until its pod is known. After that it is like Standard.
	Guarded Mode = "guarded"
	// Strict is Guarded, and a pod that no NetworkPolicy isolates in a direction is isolated in it.
	Strict Mode = "strict"
)

// ParseMode reads a mode's name; empty is Standard.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Standard, nil
	case Standard, Guarded, Strict:
		return m, nil
	}
	return "", fmt.Errorf("%q is not a mode: use standard, guarded or strict", s)
}

// strict and terminating isolate a pod in one direction, after all other policies: in mode strict, and where the policies of a terminating
// namespace may be gone already.
var strict, terminating = denyAll(string(Strict)), denyAll("terminating")

func denyAll(name string) [2]*policy.Policy {
	return [2]*policy.Policy{policy.Ingress: denyAllOf(policy.Ingress, name), policy.Egress: denyAllOf(policy.Egress, name)}
}

func denyAllOf(d policy.Direction, name string) *policy.Policy {
	p := &policy.Policy{
		ID:   policy.ID{Kind: agentapi.KindEnforcingMode, Name: name},
		Tier: policy.TierBaseline, Priority: math.MaxInt32,
	}
	p.Isolates[d] = true
	p.Rules[d] = []policy.Rule{{Action: policy.Deny, Everyone: true, EveryPort: true}}
	return p
}

// withDefaults adds the mode's own policies to those that select a pod.
func (m Mode) withDefaults(policies []*policy.Policy) []*policy.Policy {
	if m != Strict {
		return policies
	}
	return isolateRest(policies, strict)
}

// isolateRest adds policies for the directions in which none of a pod's policies isolates it.
func isolateRest(policies []*policy.Policy, defaults [2]*policy.Policy) []*policy.Policy {
	isolated := [2]bool{}
	for _, p := range policies {
		for _, d := range policy.Directions {
			isolated[d] = isolated[d] || p.Tier == policy.TierNetworkPolicy && p.Isolates[d]
		}
	}
	for _, d := range policy.Directions {
		if !isolated[d] {
			policies = append(policies, defaults[d])
		}
	}
	return policies
}
