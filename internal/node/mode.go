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

// strict isolates a pod in one direction, after all other policies.
var strict = [2]*policy.Policy{policy.Ingress: denyAll(policy.Ingress), policy.Egress: denyAll(policy.Egress)}

func denyAll(d policy.Direction) *policy.Policy {
	p := &policy.Policy{
		ID:   policy.ID{Kind: agentapi.KindEnforcingMode, Name: string(Strict)},
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
	isolated := [2]bool{}
	for _, p := range policies {
		for _, d := range policy.Directions {
			isolated[d] = isolated[d] || p.Tier == policy.TierNetworkPolicy && p.Isolates[d]
		}
	}
	for _, d := range policy.Directions {
		if !isolated[d] {
			policies = append(policies, strict[d])
		}
	}
	return policies
}
