// Package recommend writes NetworkPolicies from recorded flows.
package recommend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/flows"
	"github.com/kidoban/kidoban/internal/recommend"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	c := &options{env: env}
	cmd := &cobra.Command{
		Use:   "recommend -n NAMESPACE [--flows FILE]",
		Short: "Write NetworkPolicies that allow the recorded connections, with a proof",
		Long: `Write NetworkPolicies that allow the connections that were recorded and allowed, and no others. Destinations whose domain names are known get a
ClusterNetworkPolicy. Comments say which connections need each rule.

Policies select workloads by labels that last: not by hashes, versions, or labels of one replica or run. Every policy for egress allows DNS. A
workload is isolated only in the directions in which it had traffic.

Before anything is printed, another evaluator than the writer proves that every recorded connection stays allowed, and that each rule except DNS is
needed by one. Some connections are not allowed but listed, for a person to decide: those seen once, from a scanner, from behind SNAT, and those
that are denied today.

The flows are those of the cluster's observer, or of a file that replay --record wrote, which needs no cluster.

Exit codes: 0 there are policies, and they are proven; 2 there is no answer.`,
		Example: `  # Policies for a namespace, staged: they are audited until the label is taken away
  kubectl kidoban recommend -n shop --flows week.jsonl --audit > shop.yaml

  # What do the policies in place not cover yet?
  kubectl kidoban recommend -n shop --flows week.jsonl --only-missing

  # Which rules in place did no connection need?
  kubectl kidoban recommend -n shop --flows week.jsonl --tighten`,
		Args: cobra.NoArgs,
	}
	c.output = command.AddOutput(cmd, command.Kinds{"Recommendation": recommend.Result{}, "SpareRules": recommend.Tightened{}})
	c.source = command.AddSource(cmd)
	c.flows = flows.AddSource(cmd)
	cmd.Flags().StringSliceVarP(&c.o.Namespaces, "namespace", "n", nil, "Write policies for the workloads of this namespace; may be repeated.")
	cmd.Flags().BoolVarP(&c.all, "all-namespaces", "A", false, "Write policies for all namespaces of the recording but kube-system.")
	cmd.Flags().BoolVar(&c.o.Audit, "audit", false, "Give the policies the label kidoban.dev/enforcement: audit, so that they deny nothing yet.")
	cmd.Flags().BoolVar(&c.o.OnlyMissing, "only-missing", false, "Write only what the policies in place do not allow, with audited ones counted as enforced.")
	cmd.Flags().BoolVar(&c.tighten, "tighten", false, "Show rules of the policies in place that no recorded connection needs, and the policies without them.")
	cmd.Flags().BoolVar(&c.o.RequireComplete, "require-complete", false, "Fail if the recording has gaps.")
	_ = cmd.RegisterFlagCompletionFunc("namespace", env.CompleteNamespaces(c.source))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.output.Check(); err != nil {
			return err
		}
		switch {
		case c.all == (len(c.o.Namespaces) > 0):
			return errors.New("give the namespaces with -n, or -A for all")
		case c.tighten && (c.o.Audit || c.o.OnlyMissing):
			return errors.New("--tighten shows what could go, and has nothing to do with --audit and --only-missing: give it alone")
		}
		return c.run(cmd.Context())
	}
	return cmd
}

type options struct {
	env          *command.Env
	output       *command.Output
	source       *command.Source
	flows        *flows.Source
	o            recommend.Options
	all, tighten bool
}

func (c *options) run(ctx context.Context) error {
	in, err := c.read(ctx)
	if err != nil {
		return err
	}
	if len(in.Traffic) == 0 {
		return errors.New("no connection was recorded: there is nothing to recommend")
	}
	if c.all {
		c.o.Namespaces = namespacesOf(in)
	}
	for _, ns := range c.o.Namespaces {
		if !slices.Contains(namespacesOf(in), ns) && ns != kubeSystem {
			return fmt.Errorf("-n %s: the recording has no traffic of that namespace", ns)
		}
	}
	if c.tighten {
		result, err := recommend.Tighten(in, c.o)
		if err != nil {
			return c.explain(in, err)
		}
		return c.printTightened(result)
	}
	result, err := recommend.Run(in, c.o)
	if err != nil {
		return c.explain(in, err)
	}
	return c.print(in, result)
}

func (c *options) explain(in *recommend.Input, err error) error {
	if errors.Is(err, recommend.ErrIncomplete) {
		return fmt.Errorf("%w, and --require-complete is set: %s", err, strings.Join(flows.Coverage(in.Coverage, in.Hidden), "; "))
	}
	return err
}

const kubeSystem = "kube-system"

// namespacesOf the pods in the recording.
func namespacesOf(in *recommend.Input) []string {
	found := map[string]bool{}
	for i := range in.Traffic {
		found[in.Traffic[i].Source.Namespace] = true
		found[in.Traffic[i].Destination.Namespace] = true
	}
	var out []string
	for ns := range found {
		if ns != "" && ns != kubeSystem {
			out = append(out, ns)
		}
	}
	slices.Sort(out)
	return out
}

func (c *options) read(ctx context.Context) (*recommend.Input, error) {
	recording, file, err := c.flows.Open(ctx, c.env)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	since, err := c.flows.Since(recording)
	if err != nil {
		return nil, err
	}
	addressing, err := c.source.Addressing()
	if err != nil {
		return nil, err
	}
	if len(c.source.Files) > 0 {
		cluster, err := c.env.Cluster(ctx, c.source)
		if err != nil {
			return nil, err
		}
		recording.Objects = flows.ObjectsOf(cluster)
	}
	in, err := recommend.Read(ctx, recording, since, addressing.PodCIDRs)
	if err != nil {
		return nil, fmt.Errorf("read the flows: %w", err)
	}
	return in, nil
}
