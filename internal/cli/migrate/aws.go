package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/migrate/aws"
	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
)

func newAWS(env *command.Env) *cobra.Command {
	return group("aws", "Move to kidoban from Amazon's network policy engine", newAWSCheck(env), newAWSConvert(env))
}

// AWSCheck is the result of check.
type AWSCheck struct {
	// Refused are objects that cannot be read, Findings what else is different with kidoban.
	Refused  []migrate.Problem `json:"refused,omitempty"`
	Findings []migrate.Problem `json:"findings,omitempty"`
	// Order compares the ClusterNetworkPolicies as they are written with Amazon's order of rules.
	Order *clusterproof.Report `json:"order"`
}

func newAWSCheck(env *command.Env) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "check [-f DIR]",
		Short: "List the flows that Amazon's engine decides otherwise than the policies read",
		Long: `Read ClusterNetworkPolicies and ApplicationNetworkPolicies of networking.k8s.aws, and list what is different with kidoban:

  flows that Amazon's agent decides otherwise than the order of the rules reads: within one policy, it evaluates Deny before Accept before Pass
  addresses of Services, which match nothing where addresses are evaluated behind the Service: DNS, above all
  rules about the address of a node, which Amazon's agent skips on that node
  names that two kinds share

Without -f the live cluster is read. With -f give the Services, Nodes and NetworkPolicies too. The exit code is 1 if there is a finding.`,
		Example: `  kubectl kidoban migrate aws check

  kubectl kidoban migrate aws check -f policies/`,
		Args: cobra.NoArgs,
	}
	command.Files(cmd, &files)
	output := command.AddOutput(cmd, command.Kinds{"AWSCheck": AWSCheck{}})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		set, err := readAWS(cmd.Context(), env, files)
		if err != nil {
			return err
		}
		check := &AWSCheck{Refused: set.Refused, Findings: set.Findings()}
		if check.Order, err = set.Differences(cmd.Context()); err != nil {
			return err
		}
		if err := output.Print(env.Out, check, func(out io.Writer) { check.write(out, env.Paint(), set) }); err != nil {
			return err
		}
		return command.Yes(len(check.Refused) == 0 && len(check.Findings) == 0 && check.Order.Differing == 0)
	}
	return cmd
}

func (c *AWSCheck) write(out io.Writer, p command.Paint, set *aws.Set) {
	fmt.Fprintf(out, "%s\n\n", set.Objects())
	if len(c.Refused) > 0 {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Refused"))
		writeProblems(out, p, command.Red, c.Refused)
	}
	if len(c.Findings) > 0 {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Findings"))
		writeProblems(out, p, command.Yellow, c.Findings)
	}
	fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Order of rules"))
	if c.Order.Differing == 0 {
		fmt.Fprintf(out, "  all %d classes of flows are decided the same in both orders\n", c.Order.Flows)
		return
	}
	fmt.Fprintf(out, "  %d of %d classes of flows are decided otherwise by Amazon's agent, as\n", c.Order.Differing, c.Order.Flows)
	writeClusterDifferences(out, p, "as written", "Amazon", c.Order.Differences)
	fmt.Fprintf(out, "  → migrate aws convert --order=written or --order=aws\n")
}

func newAWSConvert(env *command.Env) *cobra.Command {
	var files []string
	var order string
	cmd := &cobra.Command{
		Use:   "convert [-f DIR]",
		Short: "Write Amazon's policies as upstream's",
		Long: `Write ClusterNetworkPolicies of networking.k8s.aws as ClusterNetworkPolicies of policy.networking.k8s.io, and ApplicationNetworkPolicies as
NetworkPolicies. The policies go to standard output, the report to standard error.

Amazon's agent does not keep the order of rules: within one policy, it evaluates Deny before Accept before Pass. --order chooses: written
keeps the order of the manifest, and aws writes the rules in the agent's order, so that they decide as today.

Rules with domain names of an ApplicationNetworkPolicy become a ClusterNetworkPolicy for the same pods, behind all others of the Admin tier.
Where an Admin rule passes such a connection, it is denied afterwards: these flows are listed.

What was written is proven: both sets of policies are evaluated over every class of pods, addresses, ports and names that their terms tell
apart. A name is taken as an address that is in none of the networks, and as one that is in each. Where they differ, nothing is written.

Without -f the live cluster is read. With -f give the NetworkPolicies and Services too. The exit code is 1 if not everything is converted.`,
		Example: `  kubectl kidoban migrate aws convert --order=aws > policies.yaml

  kubectl kidoban migrate aws convert -f policies/ --order=written > policies.yaml`,
		Args: cobra.NoArgs,
	}
	command.Files(cmd, &files)
	output := addConversion(cmd, "ClusterConversion", ClusterConversion{})
	cmd.Flags().StringVar(&order, "order", "written", "Order of rules within a policy: written, or aws (Deny, then Accept, then Pass).")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		if order != "written" && order != "aws" {
			return fmt.Errorf("--order=%s: the orders are written, aws", order)
		}
		set, err := readAWS(cmd.Context(), env, files)
		if err != nil {
			return err
		}
		c, err := convertAWS(cmd.Context(), set, order == "aws")
		if err != nil {
			return err
		}
		source := "Amazon's policies as written"
		if order == "aws" {
			source = "Amazon's agent"
		}
		if err := c.print(env, output, source); err != nil {
			return err
		}
		return command.Yes(c.Complete)
	}
	return cmd
}

func convertAWS(ctx context.Context, set *aws.Set, denyFirst bool) (*ClusterConversion, error) {
	r, err := set.Convert(ctx, denyFirst)
	if err != nil {
		return nil, err
	}
	c := &ClusterConversion{
		ClusterPolicies: r.ClusterPolicies, NetworkPolicies: r.NetworkPolicies, Converted: []string{}, NotConverted: set.NotConverted(),
		Refused: slices.Concat(set.Refused, r.Refused), Warnings: set.Findings(), Notes: r.Notes, Narrower: r.Narrower, Proof: r.Proof,
	}
	list := &c.Converted
	if len(r.Refused) > 0 {
		list = &c.NotConverted
	}
	for i := range set.Policies {
		*list = append(*list, set.Policies[i].String())
	}
	for i := range set.Applications {
		*list = append(*list, set.Applications[i].String())
	}
	if !denyFirst {
		order, err := set.Differences(ctx)
		if err != nil {
			return nil, err
		}
		if order.Differing > 0 {
			c.Warnings = append(c.Warnings, migrate.Problem{
				Object: "order of rules", Problem: fmt.Sprintf("%d of %d classes of flows are decided otherwise than by Amazon's agent today, which evaluates Deny before Accept before Pass", order.Differing, order.Flows),
				Fix: "migrate aws check lists them; --order=aws keeps what is enforced today",
			})
		}
	}
	c.finish()
	return c, nil
}

func readAWS(ctx context.Context, env *command.Env, files []string) (*aws.Set, error) {
	set := &aws.Set{}
	var cluster *model.Cluster
	if len(files) > 0 {
		m := &model.Manifests{Namespace: env.Namespace()}
		m.Other = func(t metav1.TypeMeta, raw []byte) error {
			set.Read(t, raw, m.Namespace)
			return nil
		}
		err := m.ReadPaths(files, env.In)
		if err == nil {
			cluster, err = m.Cluster()
		}
		if err != nil {
			return nil, err
		}
	} else {
		c, err := env.Client()
		if err != nil {
			return nil, err
		}
		if cluster, err = command.Load(ctx, c); err != nil {
			return nil, err
		}
		for _, kind := range []schema.GroupKind{{Group: aws.Group, Kind: aws.KindCluster}, {Group: aws.Group, Kind: aws.KindApplication}} {
			list, err := listKind(ctx, c, kind)
			if err != nil {
				return nil, err
			}
			for i := range list {
				raw, err := json.Marshal(&list[i])
				if err != nil {
					return nil, err
				}
				set.Read(metav1.TypeMeta{APIVersion: list[i].GetAPIVersion(), Kind: list[i].GetKind()}, raw, "")
			}
		}
	}
	for i := range cluster.Policies {
		if np := &cluster.Policies[i]; np.Annotations[tiered.SourceAnnotation] == "" { // else an earlier conversion wrote it
			set.NetworkPolicies = append(set.NetworkPolicies, *np)
		}
	}
	set.ClusterPolicies = clusterNames(cluster)
	set.Services, set.Nodes = cluster.Services, cluster.Nodes
	if len(set.Policies) == 0 && len(set.Applications) == 0 && len(set.Refused) == 0 {
		return nil, errors.New("no ClusterNetworkPolicy or ApplicationNetworkPolicy of networking.k8s.aws is there")
	}
	return set, nil
}
