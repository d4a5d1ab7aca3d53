package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// completionTimeout is how long a shell waits for the names of a cluster.
const completionTimeout = 3 * time.Second

// Completion completes an argument or a flag's value.
type Completion = func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective)

// CompleteNamespaces completes names of namespaces, of files or of the live cluster.
func (e *Env) CompleteNamespaces(s *Source) Completion {
	return e.complete(s, func(c *model.Cluster) []string {
		var out []string
		for i := range c.Namespaces {
			out = append(out, c.Namespaces[i].Name)
		}
		return out
	})
}

// CompleteWorkloads completes namespace/name of workloads.
func (e *Env) CompleteWorkloads(s *Source) Completion {
	return e.complete(s, func(c *model.Cluster) []string {
		var out []string
		for _, w := range c.Workloads() {
			out = append(out, w.String())
		}
		return out
	})
}

// CompletePods completes namespace/name of pods.
func (e *Env) CompletePods(s *Source) Completion {
	return e.complete(s, func(c *model.Cluster) []string {
		var out []string
		for i := range c.Pods {
			out = append(out, c.Pods[i].Key())
		}
		return out
	})
}

// CompletePolicies completes namespace/name of NetworkPolicies, and names of ClusterNetworkPolicies.
func (e *Env) CompletePolicies(s *Source) Completion {
	return e.complete(s, func(c *model.Cluster) []string {
		var out []string
		for i := range c.Policies {
			out = append(out, c.Policies[i].Namespace+"/"+c.Policies[i].Name)
		}
		for i := range c.ClusterPolicies {
			out = append(out, c.ClusterPolicies[i].Name)
		}
		return out
	})
}

func (e *Env) complete(s *Source, names func(*model.Cluster) []string) Completion {
	return func(cmd *cobra.Command, _ []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		files := s.Files
		if len(files) == 0 && cmd.Flags().Lookup("filename") != nil { // of a command whose source the flag does not belong to, as with -n of all
			files, _ = cmd.Flags().GetStringArray("filename")
		}
		cluster, err := e.Unchecked(ctx, s, files)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		all := slices.DeleteFunc(names(cluster), func(name string) bool { return !strings.HasPrefix(name, begin) })
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
}
