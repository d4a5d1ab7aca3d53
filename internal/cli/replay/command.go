// Package replay judges recorded flows by changed policies.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/flows"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/replay"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	c := &options{env: env}
	cmd := &cobra.Command{
		Use:   "replay -f NEW [--flows FILE]",
		Short: "Show which recorded connections would be denied or allowed by changed policies",
		Long: `Show which of the connections that were recorded would get another verdict under today's policies with these manifests than under today's
alone. diff shows what may change; replay shows what of it did happen.

Both ends of a connection are evaluated with the labels, named ports and addresses that they had when it was recorded, so pods that are gone
count as well. Only policies of the manifests are used: NetworkPolicies and ClusterNetworkPolicies. A policy with the label
kidoban.dev/enforcement: audit decides about nothing; what enforcing it would change is shown in a section of its own.

What cannot be decided is shown as unknown, with the reason. The first lines say how much of the time is recorded.

The flows are those of the cluster's observer, or of a file that --record wrote, which needs no cluster. Today's policies are those of the
cluster, of the recording, or of --base.

The exit code is 1 if a connection that is allowed today would be denied, and 2 if there is no answer: connections are unknown, or none was
recorded.`,
		Example: `  # What would these policies have denied in the last week?
  kubectl kidoban replay -f policies/ --since 7d

  # Record a week
  kubectl kidoban replay --since 7d --record week.jsonl

  # In a pipeline, without access to the cluster
  kubectl kidoban replay --flows week.jsonl -f policies/

  # What does a policy keep out?
  kubectl kidoban replay --flows week.jsonl --delete netpol/shop/default-deny

  # Both sides from Git, for a comment on a merge request
  kubectl kidoban replay --flows week.jsonl --base main/policies -f policies -o markdown`,
		Args: cobra.NoArgs,
	}
	c.output = command.AddOutput(cmd, command.Kinds{"Replay": replay.Report{}}, "markdown")
	c.source = command.AddSource(cmd)
	c.flows = flows.AddSource(cmd)
	c.flows.AddRecord(cmd)
	cmd.Flags().StringArrayVar(&c.base, "base", nil, "Take today's policies from these manifests, not from the recording; may be repeated.")
	cmd.Flags().StringArrayVar(&c.deleted, "delete", nil, "Take this policy away: netpol/namespace/name, or cnp/name for a ClusterNetworkPolicy; may be repeated.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.output.Check(); err != nil {
			return err
		}
		if len(c.source.Files)+len(c.deleted) == 0 && !c.flows.Recording() {
			return errors.New("nothing to replay: give policies with -f, or --delete; or --record a file")
		}
		return c.run(cmd.Context())
	}
	return cmd
}

type options struct {
	env           *command.Env
	output        *command.Output
	source        *command.Source
	flows         *flows.Source
	base, deleted []string
}

func (c *options) run(ctx context.Context) error {
	recording, file, err := c.flows.Open(ctx, c.env)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if len(c.source.Files)+len(c.deleted) == 0 {
		return nil // it is recorded
	}
	o, notes, err := c.options(ctx, recording)
	if err != nil {
		return err
	}
	report, err := replay.Run(ctx, recording, o)
	if err != nil {
		return fmt.Errorf("read the flows: %w", err)
	}
	report.Notes = notes
	if err := c.print(report); err != nil {
		return err
	}
	switch {
	case report.WouldDeny():
		return command.ErrNo
	case report.Judged.Records == 0 || len(report.Unknown) > 0:
		return command.ErrNoAnswer
	}
	return nil
}

// options that the flags give, and remarks about the input.
func (c *options) options(ctx context.Context, recording *replay.Recording) (o replay.Options, notes []string, err error) {
	addressing, err := c.source.Addressing()
	if err != nil {
		return o, nil, err
	}
	o.PodCIDRs = addressing.PodCIDRs
	if o.Since, err = c.flows.Since(recording); err != nil {
		return o, nil, err
	}
	if recording.Objects != nil {
		o.Before, o.Nodes = recording.Objects.Policies, recording.Objects.Nodes
	}
	switch {
	case len(c.base) > 0:
		base, err := c.env.ClusterOf(ctx, c.source, c.base)
		if err != nil {
			return o, nil, err
		}
		o.Before = replay.Policies{NetworkPolicies: base.Policies, ClusterPolicies: base.ClusterPolicies}
		if len(base.Nodes) > 0 {
			o.Nodes = base.Nodes
		}
	case recording.Objects == nil:
		return o, nil, errors.New("the recording has no policies: give those of today with --base")
	}
	o.After = o.Before.With(replay.Policies{})
	if len(c.source.Files) > 0 {
		manifests, err := c.env.Cluster(ctx, c.source)
		if err != nil {
			return o, nil, err
		}
		if len(manifests.Policies)+len(manifests.ClusterPolicies) == 0 {
			return o, nil, fmt.Errorf("-f %s: there is no NetworkPolicy or ClusterNetworkPolicy", strings.Join(c.source.Files, " -f "))
		}
		notes = append(notes, manifests.Notes...)
		if note := notReplayed(manifests); note != "" {
			notes = append(notes, note)
		}
		o.After = o.After.With(replay.Policies{NetworkPolicies: manifests.Policies, ClusterPolicies: manifests.ClusterPolicies})
	}
	for _, text := range c.deleted {
		if err := remove(&o.After, text, c.env.Namespace()); err != nil {
			return o, nil, err
		}
	}
	return o, notes, nil
}

// notReplayed notes that manifests have more than policies.
func notReplayed(m *model.Cluster) string {
	declared := slices.ContainsFunc(m.Namespaces, func(ns corev1.Namespace) bool { return ns.Kind != "" })
	if !declared && len(m.Pods) == 0 {
		return ""
	}
	return "only the policies of the manifests are replayed: labels of namespaces and pods are those of the recording"
}

var (
	namespacedKinds = []string{"netpol", "networkpolicy", "networkpolicies"}
	clusterKinds    = []string{"cnp", "clusternetworkpolicy", "clusternetworkpolicies"}
)

// remove a policy that --delete names.
func remove(from *replay.Policies, text, namespace string) error {
	parts := strings.Split(text, "/")
	kind := strings.ToLower(parts[0])
	n := len(from.NetworkPolicies) + len(from.ClusterPolicies)
	switch {
	case slices.Contains(parts, "") || len(parts) < 2:
		return fmt.Errorf("--delete %s: give netpol/namespace/name or cnp/name", text)
	case slices.Contains(namespacedKinds, kind) && len(parts) <= 3:
		if len(parts) == 3 {
			namespace = parts[1]
		}
		name := parts[len(parts)-1]
		from.NetworkPolicies = slices.DeleteFunc(from.NetworkPolicies, func(np networkingv1.NetworkPolicy) bool { return np.Namespace == namespace && np.Name == name })
		text = "NetworkPolicy " + namespace + "/" + name
	case slices.Contains(clusterKinds, kind) && len(parts) == 2:
		from.ClusterPolicies = slices.DeleteFunc(from.ClusterPolicies, func(p cnp.ClusterNetworkPolicy) bool { return p.Name == parts[1] })
		text = "ClusterNetworkPolicy " + parts[1]
	default:
		return fmt.Errorf("--delete %s: give netpol/namespace/name or cnp/name", text)
	}
	if len(from.NetworkPolicies)+len(from.ClusterPolicies) == n {
		return fmt.Errorf("--delete: there is no %s", text)
	}
	return nil
}

func (c *options) print(r *replay.Report) error {
	if c.output.Is("markdown") {
		writeMarkdown(c.env.Out, r)
		return nil
	}
	return c.output.Print(c.env.Out, r, func(out io.Writer) { writeText(out, c.env.Paint(), r) })
}
