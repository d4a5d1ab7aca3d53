// Package names lists the DNS names whose addresses nodes have learned, with the policies and pods that they are for.
package names

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
)

// List is the output of `names -o json`.
type List struct {
	Names []Name `json:"names"`
	// Resolvers whose answers count, by node.
	Resolvers map[string][]netip.AddrPort `json:"resolvers"`
}

// Name is a name or a wildcard of policies on one node, with what the node has learned for it.
type Name struct {
	Node    string `json:"node"`
	Pattern string `json:"pattern"`
	// Name that was resolved; empty if none was.
	Name      string                    `json:"name,omitempty"`
	Addresses []agentapi.LearnedAddress `json:"addresses,omitempty"`
	// Rules that have the pattern, and the pods of the node that they apply to, as namespace/name.
	Rules []agentapi.RuleRef `json:"rules,omitempty"`
	Pods  []string           `json:"pods,omitempty"`
}

// New is the command.
func New(env *command.Env) *cobra.Command {
	var f filter
	var namespace string
	cmd := &cobra.Command{
		Use:   "names [POD]",
		Short: "List the DNS names of policies, and the addresses that nodes have learned for them",
		Long: `List the DNS names of policies in force on each node, the names that pods resolved below them, and their addresses with the time that is
left. A name without addresses was not resolved on that node, or its addresses have expired: connections to it are denied until a pod asks
a trusted resolver.

POD is namespace/name, or a prefix of it.`,
		Example: `  # All names on all nodes
  kubectl kidoban names

  # What one pod may reach by name
  kubectl kidoban names shop/frontend

  # One policy
  kubectl kidoban names --policy shop-egress -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	output := command.AddOutput(cmd, command.Kinds{"DomainNames": List{}})
	cmd.Flags().StringVar(&f.policy, "policy", "", "Show names of this policy: namespace/name, or the name of a ClusterNetworkPolicy.")
	cmd.Flags().StringVar(&f.node, "node", "", "Show names on this node.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
	cmd.ValidArgsFunction = env.CompletePods(&command.Source{})
	_ = cmd.RegisterFlagCompletionFunc("policy", env.CompletePolicies(&command.Source{}))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		if len(args) > 0 {
			f.pod = args[0]
		}
		c, err := env.Client()
		if err != nil {
			return err
		}
		a, err := agents.Connect(cmd.Context(), env, c, namespace)
		if err != nil {
			return err
		}
		list, err := gather(cmd.Context(), a, f)
		if err != nil {
			return err
		}
		return output.Print(env.Out, list, func(out io.Writer) { write(out, env.Paint(), list, time.Now()) })
	}
	return cmd
}

func gather(ctx context.Context, a *agents.Agents, f filter) (*List, error) {
	out := &List{Names: []Name{}, Resolvers: map[string][]netip.AddrPort{}}
	var mu sync.Mutex
	err := a.Each(func(agent *corev1.Pod) error {
		if f.node != "" && agent.Spec.NodeName != f.node {
			return nil
		}
		var names agentapi.NameList
		var pods agentapi.PodList
		if err := a.Get(ctx, agent, agentapi.PathNames, &names); err != nil {
			return err
		}
		if err := a.Get(ctx, agent, agentapi.PathPods, &pods); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		out.add(&names, pods.Pods, f)
		return nil
	})
	out.sort()
	return out, err
}

func (l *List) sort() {
	slices.SortFunc(l.Names, func(a, b Name) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Pattern, b.Pattern), strings.Compare(a.Name, b.Name))
	})
}

// filter is what of the names is shown.
type filter struct{ policy, pod, node string }

func (f *filter) wants(n *Name) bool {
	return (f.pod == "" || slices.ContainsFunc(n.Pods, func(p string) bool { return strings.HasPrefix(p, f.pod) })) &&
		(f.policy == "" || slices.ContainsFunc(n.Rules, func(r agentapi.RuleRef) bool {
			return f.policy == r.Name && r.Namespace == "" || f.policy == r.Namespace+"/"+r.Name
		}))
}

// add the names of one node: those that its pods' rules have, with what was learned for them, and what was learned for rules that are gone.
func (l *List) add(names *agentapi.NameList, pods []agentapi.Pod, f filter) {
	l.Resolvers[names.Node] = names.Resolvers
	byPattern := map[string]*Name{}
	of := func(pattern string) *Name {
		if byPattern[pattern] == nil {
			byPattern[pattern] = &Name{Node: names.Node, Pattern: pattern}
		}
		return byPattern[pattern]
	}
	for _, p := range pods {
		key := p.Namespace + "/" + p.Name
		for _, r := range p.Egress.Rules {
			for _, peer := range r.Peers {
				for _, pattern := range peer.DomainNames {
					n := of(pattern)
					if !slices.Contains(n.Pods, key) {
						n.Pods = append(n.Pods, key)
					}
					if !slices.ContainsFunc(n.Rules, func(o agentapi.RuleRef) bool {
						return o.PolicyRef == r.Policy.PolicyRef && o.RuleName == r.Policy.RuleName && slices.Equal(o.Rules, r.Policy.Rules)
					}) {
						n.Rules = append(n.Rules, r.Policy)
					}
				}
			}
		}
	}
	learned := map[string]bool{}
	for _, name := range names.Names {
		n := *of(name.Pattern)
		n.Name, n.Addresses = name.Name, name.Addresses
		learned[name.Pattern] = true
		if f.wants(&n) {
			l.Names = append(l.Names, n)
		}
	}
	for pattern, n := range byPattern {
		if !learned[pattern] && f.wants(n) {
			l.Names = append(l.Names, *n)
		}
	}
}

// mostShown is how many addresses, rules or pods a line has.
const mostShown = 3

func write(out io.Writer, p command.Paint, l *List, now time.Time) {
	t := command.Table{Paint: p}
	t.Head("NODE", "PATTERN", "NAME", "ADDRESSES", "LEFT", "POLICIES", "PODS")
	for i := range l.Names {
		n := &l.Names[i]
		var addresses, rules []string
		var until time.Time
		for _, a := range n.Addresses {
			addresses = append(addresses, a.Address.String())
			if a.Until.After(until) {
				until = a.Until
			}
		}
		for _, r := range n.Rules {
			rules = append(rules, strings.TrimPrefix(r.Namespace+"/"+r.Name, "/"))
		}
		t.Add(command.Plain(n.Node, n.Pattern, dash(n.Name), some(addresses), left(until, now), some(slices.Compact(rules)), some(n.Pods))...)
	}
	t.Write(out)
	for _, node := range slices.Sorted(maps.Keys(l.Resolvers)) {
		if len(l.Resolvers[node]) == 0 {
			fmt.Fprintf(out, "%s node %s trusts no resolver: nothing is learned there\n", p.Text(command.Yellow, "warning:"), node)
		}
	}
}

// left is how long the newest address holds.
func left(until, now time.Time) string {
	switch {
	case until.IsZero():
		return "-"
	case !until.After(now):
		return "expired"
	}
	return until.Sub(now).Round(time.Second).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func some(list []string) string {
	if len(list) > mostShown {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:mostShown], ", "), len(list)-mostShown)
	}
	return dash(strings.Join(list, ", "))
}
