package migrate

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Move to kidoban from another engine",
		Long: `Move to kidoban from another engine. migrate anp:

  convert  AdminNetworkPolicies as ClusterNetworkPolicies, proven to mean the same

migrate aws:

  check    flows that Amazon's engine decides otherwise than the policies read
  convert  Amazon's own kinds as upstream's, proven to mean the same

migrate calico:

  check    what is installed, what blocks the move, what is left on a node
  convert  Calico's policies as ClusterNetworkPolicies and NetworkPolicies, proven to mean the same
  compare  flows that Calico allows and kidoban would deny, and the reverse
  clean    remove what Calico left on a node

docs/migrate-calico.md has the order of steps, and what can be undone at each.`,
		Example: `  kubectl kidoban migrate anp convert -f policies/ > clusternetworkpolicies.yaml

  kubectl kidoban migrate aws check
  kubectl kidoban migrate aws convert --order=aws > policies.yaml

  kubectl kidoban migrate calico check
  kubectl kidoban migrate calico convert -f calico/ > policies.yaml
  kubectl kidoban migrate calico compare --for 10m
  sudo kubectl-kidoban migrate calico clean`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newANP(env), newAWS(env), newCalico(env))
	return cmd
}

func newCalico(env *command.Env) *cobra.Command {
	return group("calico", "Move to kidoban from Calico", newCheck(env), newConvert(env), newCompare(env), newClean(env))
}

// group is a command that has others and does nothing itself.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

func parseCIDRs(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--pod-cidr %s is not a network", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
