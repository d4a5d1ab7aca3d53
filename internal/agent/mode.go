package agent

import (
	"fmt"
	"math"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// Mode is what becomes of pods that no policy speaks of.
type Mode string

// The modes. Traffic with the node that a pod runs on is allowed in each.
const (
	// Standard is as Kubernetes defines: a pod that no policy selects is open, and so is one that nobody knows yet.
	Standard Mode = "standard"
	// Guarded refuses what a pod sends and gets while nobody knows it yet. Then it is as Standard.
	Guarded Mode = "guarded"
	// Strict is Guarded, and a pod that no policy isolates in a direction is closed in it: only what a ClusterNetworkPolicy accepts passes.
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
	return "", fmt.Errorf("%q is no mode: give standard, guarded or strict", s)
}

// Guard is what the dataplane does with addresses that nobody knows.
func (m Mode) Guard(audit bool) dataplane.Guard {
	switch {
	case m == Standard:
		return dataplane.GuardOff
	case audit:
		return dataplane.GuardAudit
	}
	return dataplane.GuardOn
}

// strict closes a pod in one direction after every policy that says something about it.
var strict = [2]*policy.Policy{policy.Ingress: closing(policy.Ingress), policy.Egress: closing(policy.Egress)}

func closing(d policy.Direction) *policy.Policy {
	p := &policy.Policy{
		ID:   policy.ID{Kind: agentapi.KindEnforcingMode, Name: string(Strict)},
		Tier: policy.TierBaseline, Priority: math.MaxInt32,
	}
	p.Isolates[d] = true
	p.Rules[d] = []policy.Rule{{Action: policy.Deny, Everyone: true, EveryPort: true}}
	return p
}

// closed adds what the mode asks for to the policies that select a pod.
func (m Mode) closed(policies []*policy.Policy) []*policy.Policy {
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
