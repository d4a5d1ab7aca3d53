package status

import (
	"github.com/kidoban/kidoban/internal/agentapi"
)

// nearlyFull is the part of a map's entries beyond which a person should know, in percent.
const nearlyFull = 80

// usage adds the report of a node's agent. Repaired drift is shown and needs no action; policies that are not in force do.
func (s *Status) usage(n *Node, agent *agentapi.Node) {
	n.Version, n.Drift, n.BootGap = agent.Version, agent.Drift, agent.BootGap
	if agent.FailClosedAddresses > 0 {
		s.attend("node %s: %d addresses of pods are denied all traffic: their policies could not be written into the kernel's maps", n.Name, agent.FailClosedAddresses)
	}
	if agent.Observer != nil && agent.Observer.Streams == 0 {
		s.attend("node %s: its flow records do not reach the observer: is a pod of the observer ready, and do policies allow connections from nodes to it? The agent's log has the reason", n.Name)
	}
	for _, m := range agent.Maps {
		if m.Max > 0 && m.Entries*100 > m.Max*nearlyFull {
			s.attend("node %s: the kernel's map %s holds %d entries of %d at most", n.Name, m.Map, m.Entries, m.Max)
		}
	}
}
