package agent

import (
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// missReasons are the names of the kernel's reasons.
var missReasons = map[dataplane.MissReason]string{
	dataplane.MissOtherName: agentapi.NameMissOther,
	dataplane.MissUntrusted: agentapi.NameMissUntrusted,
	dataplane.MissLimit:     agentapi.NameMissLimit,
	dataplane.MissExpired:   agentapi.NameMissExpired,
	dataplane.MissHint:      agentapi.NameMissHint,
}

// NameMiss finds out why no rule with names allowed a flow that a set denied. It returns nil if no such rule comes before the decision, or if
// none of the answers that the node remembers led to the address.
func (d names) NameMiss(set compiler.SetID, f policy.Flow) *agentapi.NameMiss {
	if !d.kernel.LearnsNames() {
		return nil
	}
	all, valid := d.kernel.PatternsOf(f.Destination), d.kernel.ValidPatternsOf(f.Destination)
	var expired, explained bool
	d.state.read(func(n *node.Node) {
		maps := n.Maps()
		plain := maps.LookupSet(set, policy.Egress, f, nil)
		// With a valid name of the set it is the rule's ports or its place that make the difference.
		explained = plain.Names != [2]uint8{} && !maps.HasPattern(set, valid)
		expired = maps.LookupSet(set, policy.Egress, f, all).Action == policy.Allow
	})
	if !explained {
		return nil
	}
	now := time.Now()
	first := func() string {
		if names := d.learned.of(f.Destination, now); len(names) > 0 {
			return names[0]
		}
		return ""
	}
	if expired {
		return &agentapi.NameMiss{Reason: agentapi.NameMissExpired, Name: first()}
	}
	if miss, ok := d.kernel.MissOf(f.Destination); ok {
		return &agentapi.NameMiss{Reason: missReasons[miss.Reason], Name: miss.Name}
	}
	if len(valid) > 0 {
		return &agentapi.NameMiss{Reason: agentapi.NameMissOther, Name: first()}
	}
	return nil
}
