package agent

import (
	"cmp"
	"slices"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
)

// LearnedNames returns the trusted resolvers, and the DNS names of policies that the node has learned addresses of.
func (a *Agent) LearnedNames() (agentapi.NameList, error) {
	out := agentapi.NameList{Names: []agentapi.LearnedName{}}
	patterns := map[compiler.PatternID]string{}
	a.state.read(func(n *node.Node) {
		out.Resolvers = n.Resolvers()
		for name, d := range n.Maps().Domains {
			patterns[d.Own] = name
		}
	})
	delete(patterns, 0)
	learned, err := a.kernel.LearnedNames()
	if err != nil {
		return out, err
	}
	counters, err := a.kernel.Counters()
	if err != nil {
		return out, err
	}
	out.BehindBridge = counters.Names.Answers[dataplane.AnswerSharedInterface]
	type key struct{ name, pattern string }
	index := map[key]int{} // the kernel has a name once for each family
	for _, l := range learned {
		k := key{l.Name, patterns[l.Pattern]}
		if k.pattern == "" {
			continue // no policy has the pattern any more
		}
		i, ok := index[k]
		if !ok {
			i = len(out.Names)
			index[k] = i
			out.Names = append(out.Names, agentapi.LearnedName{Name: k.name, Pattern: k.pattern})
		}
		for addr, until := range l.Addresses {
			out.Names[i].Addresses = append(out.Names[i].Addresses, agentapi.LearnedAddress{Address: addr, Until: until})
		}
	}
	for i := range out.Names {
		slices.SortFunc(out.Names[i].Addresses, func(a, b agentapi.LearnedAddress) int { return a.Address.Compare(b.Address) })
	}
	slices.SortFunc(out.Names, func(a, b agentapi.LearnedName) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern))
	})
	return out, nil
}
