package migrate

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/migrate/anp"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
)

func newANP(env *command.Env) *cobra.Command {
	return group("anp", "Move from AdminNetworkPolicies to ClusterNetworkPolicies", newANPConvert(env))
}

func newANPConvert(env *command.Env) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "convert [-f DIR]",
		Short: "Write AdminNetworkPolicies as ClusterNetworkPolicies",
		Long: `Write AdminNetworkPolicies and the BaselineAdminNetworkPolicy (policy.networking.k8s.io/v1alpha1) as ClusterNetworkPolicies (v1alpha2).
The policies go to standard output, the report to standard error.

A policy with more than 25 rules of one direction becomes several, whose priorities follow each other; policies behind it move. The report
lists what is written otherwise, and what is lost. What has no equivalent is refused, with the field; nothing is widened. What was written
is then proven: both sets of policies are evaluated over every class of pods, nodes, addresses and ports that their terms tell apart,
whatever the NetworkPolicies of the cluster are. Where they differ, nothing is written.

Without -f the live cluster is read. The exit code is 1 if a policy could not be converted.`,
		Example: `  # The live cluster
  kubectl kidoban migrate anp convert > clusternetworkpolicies.yaml

  # Manifests
  kubectl kidoban migrate anp convert -f policies/ > clusternetworkpolicies.yaml`,
		Args: cobra.NoArgs,
	}
	command.Files(cmd, &files)
	output := addConversion(cmd, "ClusterConversion", ClusterConversion{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		set, err := readANP(cmd.Context(), env, files)
		if err != nil {
			return err
		}
		if len(set.Policies) == 0 && len(set.Refused) == 0 {
			return errors.New("no AdminNetworkPolicy or BaselineAdminNetworkPolicy (policy.networking.k8s.io/v1alpha1) is there to convert")
		}
		c, err := convertANP(cmd.Context(), set)
		if err != nil {
			return err
		}
		if err := c.print(env, output, "AdminNetworkPolicies"); err != nil {
			return err
		}
		return command.Yes(c.Complete)
	}
	return cmd
}

// addConversion adds the flag -o of a command that writes policies.
func addConversion(cmd *cobra.Command, kind string, of any) *command.Output {
	return command.AddFormats(cmd, command.Kinds{kind: of}, "Format: yaml (the policies alone; the report goes to standard error) or json (everything).", "yaml", "json")
}

// convertANP converts a set, and proves it.
func convertANP(ctx context.Context, set *anp.Set) (*ClusterConversion, error) {
	r := tiered.Write(set.Policies, set.ClusterPolicies)
	c := &ClusterConversion{ClusterPolicies: r.Policies, NotConverted: set.NotConverted(), Refused: append(set.Refused, r.Refused...), Warnings: set.Warnings, Notes: r.Notes, Converted: []string{}}
	before := set.Policies
	if len(r.Refused) > 0 {
		for i := range before {
			c.NotConverted = append(c.NotConverted, before[i].String())
		}
		before = nil
	}
	for i := range before {
		c.Converted = append(c.Converted, before[i].String())
	}
	var err error
	if c.Proof, err = tiered.Prove(ctx, before, c.ClusterPolicies); err != nil {
		return nil, err
	}
	c.finish()
	return c, nil
}

// clusterNames are the names of upstream's ClusterNetworkPolicies that an earlier conversion did not write.
func clusterNames(cluster *model.Cluster) map[string]bool {
	out := map[string]bool{}
	for i := range cluster.ClusterPolicies {
		if p := &cluster.ClusterPolicies[i]; p.Annotations[tiered.SourceAnnotation] == "" {
			out[p.Name] = true
		}
	}
	return out
}

func readANP(ctx context.Context, env *command.Env, files []string) (*anp.Set, error) {
	set := &anp.Set{}
	take := func(t metav1.TypeMeta, raw []byte) error {
		set.Read(t, raw)
		return nil
	}
	if len(files) > 0 {
		m := &model.Manifests{Namespace: env.Namespace(), Other: take}
		if err := m.ReadPaths(files, env.In); err != nil {
			return nil, err
		}
		cluster, err := m.Cluster()
		if err != nil {
			return nil, err
		}
		set.ClusterPolicies = clusterNames(cluster)
		return set, nil
	}
	c, err := env.Client()
	if err != nil {
		return nil, err
	}
	cluster, err := command.Load(ctx, c)
	if err != nil {
		return nil, err
	}
	set.ClusterPolicies = clusterNames(cluster)
	for _, kind := range []string{anp.KindAdmin, anp.KindBaseline} {
		list, err := listKind(ctx, c, schema.GroupKind{Group: anp.Group, Kind: kind})
		if err != nil {
			return nil, err
		}
		for i := range list {
			raw, err := json.Marshal(&list[i])
			if err != nil {
				return nil, err
			}
			set.Read(metav1.TypeMeta{APIVersion: list[i].GetAPIVersion(), Kind: list[i].GetKind()}, raw)
		}
	}
	return set, nil
}
