package agent

import (
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/node"
)

// LearnedNames returns the trusted resolvers, and the DNS names of policies that the node has learned addresses of.
func (a *Agent) LearnedNames() (agentapi.NameList, error) {
	out := agentapi.NameList{Names: []agentapi.LearnedName{}}
	a.state.read(func(n *node.Node) { out.Resolvers = n.Resolvers() })
	return out, nil
}
