package explain

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var from, to, namespace string
	var live bool
	cmd := &cobra.Command{
		Use:   "explain FROM TO[:PORT]",
		Short: "Explain whether a connection is allowed, and which rule decides",
		Long: `Explain whether a connection is allowed: the decisions of the source's egress policies and of the destination's ingress policies.
Each decision quotes the rule that allows the connection or, if it is denied, the rules that nearly match and what they lack.

FROM is namespace/pod, namespace/workload, kind/name (as deploy/web), svc/name for the pods behind a Service, or an address. TO is one of
these with a port. A Service in TO is replaced by its endpoints: svc/name:port, svc/namespace/name:port, or an address of the Service with a
port. A DNS name with a port, as api.example.com:443, is judged by the rules with domain names. A name without a namespace is in that of -n.
Without a port, all ports that the pod declares are explained. --from and --to are another way to give the two.

Pods that manifests describe have no address yet. A verdict that an ipBlock decides about such a pod is DEPENDS, and the exit code 2,
unless it is the same for all addresses of --pod-cidr (without it: for all private addresses).`,
		Example: `  # Why can the frontend not reach the backend?
  kubectl kidoban explain shop/frontend shop/backend:8000
  kubectl kidoban explain -n shop deploy/frontend sts/backend:8000

  # Through a Service, as the client does
  kubectl kidoban explain shop/frontend svc/shop/backend:80

  # Somewhere outside the cluster
  kubectl kidoban explain shop/backend 203.0.113.7:443
  kubectl kidoban explain shop/backend api.example.com:443

  # Before anything is applied
  helm template ./chart | kubectl kidoban explain -f - shop/frontend shop/backend:http`,
		Args: cobra.MaximumNArgs(2),
	}
	output := command.AddOutput(cmd, command.Kinds{"Explanation": Answer{}})
	source := command.AddSource(cmd)
	cmd.Flags().StringVar(&from, "from", "", "Source: namespace/pod, namespace/workload, kind/name, svc/[namespace/]name or an address.")
	cmd.Flags().StringVar(&to, "to", "", "Destination: namespace/pod[:port[/protocol]], svc/[namespace/]name[:port], address:port or DNS name:port.")
	cmd.Flags().BoolVar(&live, "live", false, "Query the nodes' agents too, and show where the state in force differs.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace, for --live.")
	workloads := env.CompleteWorkloads(source)
	cmd.ValidArgsFunction = workloads
	_ = cmd.RegisterFlagCompletionFunc("from", workloads)
	_ = cmd.RegisterFlagCompletionFunc("to", workloads)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		for _, flag := range []*string{&from, &to} { // what a flag does not give, an argument does
			if *flag == "" && len(args) > 0 {
				*flag, args = args[0], args[1:]
			}
		}
		if from == "" || to == "" || len(args) > 0 {
			return errors.New("give the two ends of the connection, as in: explain shop/frontend shop/backend:8000")
		}
		if live && len(source.Files) > 0 {
			return errors.New("--live queries agents, and -f reads files: give one of them")
		}
		cluster, err := env.Cluster(cmd.Context(), source)
		if err != nil {
			return err
		}
		answer, err := Ask(cluster, env.Namespace(), from, to)
		if err != nil {
			return err
		}
		if live {
			if err := askAgents(cmd.Context(), env, cluster, answer, namespace); err != nil {
				return err
			}
		}
		if err := output.Print(env.Out, answer, func(out io.Writer) { write(out, env.Paint(), answer) }); err != nil {
			return err
		}
		if answer.Verdict == Depends {
			return command.ErrNoAnswer
		}
		return command.Yes(answer.Allowed)
	}
	return cmd
}
