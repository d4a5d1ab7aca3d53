package status

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
)

// poll is how often --wait looks.
const poll = time.Second

type options struct {
	env       *command.Env
	output    *command.Output
	namespace string // kidoban's
	wait      bool
	timeout   time.Duration
}

// New is the command.
func New(env *command.Env) *cobra.Command {
	o := &options{env: env}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether agents work and policies are in force on every node",
		Long: `Show whether kidoban works: its controller, the agent of each node, each policy with the number of nodes where its newest generation is in
force, problems that need action, and the number of connections denied in the last ten minutes.

A policy counts on the nodes that have pods in its namespace, and a ClusterNetworkPolicy on all that have pods. Where an observer is installed, it
asks the agents: that takes one connection instead of one per node. Agents that it cannot reach are asked directly. The exit code is 1 if there
is a problem; with --wait the command first waits for it to end.`,
		Example: `  kubectl kidoban status

  # In a pipeline, after kubectl apply
  kubectl kidoban status -n shop --wait --timeout 1m

  # One policy, node by node
  kubectl kidoban status policy shop/default-deny`,
		Args: cobra.NoArgs,
	}
	o.output = command.AddOutput(cmd, command.Kinds{"Status": Status{}})
	o.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		only := selection{}
		if n := env.Config.Namespace; n != nil {
			only.Namespace = *n
		}
		only.cluster = only.Namespace == ""
		return o.run(cmd.Context(), only, func(out io.Writer, s *Status) { write(out, env.Paint(), s) })
	}
	cmd.AddCommand(newPolicyCommand(env))
	return cmd
}

func newPolicyCommand(env *command.Env) *cobra.Command {
	o := &options{env: env}
	cmd := &cobra.Command{
		Use:   "policy [NAMESPACE/]NAME",
		Short: "Show on which nodes a policy is in force",
		Long: `Show on which nodes a policy is in force. A name without a namespace is that of a NetworkPolicy in the namespace of -n, and of a
ClusterNetworkPolicy (clusternetworkpolicies.policy.networking.k8s.io).`,
		Example: `  kubectl kidoban status policy shop/default-deny
  kubectl kidoban status policy -n shop default-deny --wait`,
		Args: cobra.ExactArgs(1),
	}
	cmd.ValidArgsFunction = env.CompletePolicies(&command.Source{})
	o.output = command.AddOutput(cmd, command.Kinds{"Status": Status{}})
	o.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		namespace, name, ok := strings.Cut(args[0], "/")
		if !ok {
			namespace, name = env.Namespace(), args[0]
		}
		return o.run(cmd.Context(), selection{types.NamespacedName{Namespace: namespace, Name: name}, !ok}, func(out io.Writer, s *Status) {
			for i := range s.Policies {
				writePolicy(out, env.Paint(), &s.Policies[i], s.Attention)
			}
			writeSource(out, s)
		})
	}
	return cmd
}

func (o *options) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.wait, "wait", false, "Wait until everything is in force.")
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "How long to wait.")
	cmd.Flags().StringVar(&o.namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
}

func (o *options) run(ctx context.Context, only selection, table func(io.Writer, *Status)) error {
	if err := o.output.Check(); err != nil {
		return err
	}
	c, err := o.env.Client()
	if err != nil {
		return err
	}
	s, err := o.until(ctx, c, only)
	if err != nil {
		return err
	}
	if s.observerProblem != nil {
		fmt.Fprintln(o.env.ErrOut, "warning: the observer did not answer; asked the agents:", s.observerProblem)
	}
	if err := o.output.Print(o.env.Out, s, func(out io.Writer) { table(out, s) }); err != nil {
		return err
	}
	return command.Yes(s.Healthy)
}

// until waits, if it should, and returns the last status.
func (o *options) until(ctx context.Context, c client.Client, only selection) (*Status, error) {
	s, err := gather(ctx, o.env, c, o.namespace, only)
	if !o.wait || err == nil && s.Healthy {
		return s, err
	}
	failed := err
	waited := wait.PollUntilContextTimeout(ctx, poll, o.timeout, false, func(ctx context.Context) (bool, error) {
		next, err := gather(ctx, o.env, c, o.namespace, only)
		if err != nil {
			if ctx.Err() == nil {
				failed = err
			}
			return false, nil // what fails may heal
		}
		s, failed = next, nil
		if o.env.Interactive() {
			fmt.Fprintf(o.env.ErrOut, "\r\x1b[Kwaiting: %s", waiting(s))
		}
		return s.Healthy, nil
	})
	if o.env.Interactive() {
		fmt.Fprint(o.env.ErrOut, "\r\x1b[K")
	}
	if s == nil {
		return nil, failed
	}
	if waited != nil && ctx.Err() == nil {
		fmt.Fprintf(o.env.ErrOut, "not in force everywhere after %s\n", o.timeout)
	}
	return s, nil
}

func waiting(s *Status) string {
	var names []string
	for i := range s.Policies {
		if !s.Policies[i].Everywhere() {
			names = append(names, s.Policies[i].describe()+" "+inForce(&s.Policies[i]))
		}
	}
	return strings.Join(append(names, s.Attention...), "; ")
}
