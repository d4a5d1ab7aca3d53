package migrate

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/calico/convert"
	"github.com/kidoban/kidoban/internal/migrate/calico/proof"
	"github.com/kidoban/kidoban/internal/migrate/tiered"
)

// Conversion is what convert says.
type Conversion struct {
	// Policies are empty where the proof failed.
	Policies        []networkingv1.NetworkPolicy `json:"policies"`
	ClusterPolicies []map[string]any             `json:"clusterPolicies,omitempty"`
	Converted       []string                     `json:"converted"`
	NotConverted    []string                     `json:"notConverted"`
	// Refused is why.
	Refused []calico.Problem `json:"refused,omitempty"`
	// Warnings are findings about the policies as they are written, and what is lost.
	Warnings []calico.Problem `json:"warnings,omitempty"`
	// Notes are what was left out without a change of meaning.
	Notes []calico.Problem `json:"notes,omitempty"`
	// MissingNamespaces are those that policies name and that are not in the input: nothing is written for them, or proven of them.
	MissingNamespaces []calico.Problem `json:"missingNamespaces,omitempty"`
	Proof             *proof.Report    `json:"proof"`
	// Lost is the number of domain names that no policy can have.
	Lost int `json:"lost,omitempty"`
}

func newConvert(env *command.Env) *cobra.Command {
	var files, cidrs []string
	var networkOnly bool
	o := convert.Options{}
	cmd := &cobra.Command{
		Use:   "convert [-f DIR]",
		Short: "Write Calico's policies as ClusterNetworkPolicies and NetworkPolicies",
		Long: `Write Calico's GlobalNetworkPolicies as ClusterNetworkPolicies (policy.networking.k8s.io/v1alpha2) where these can say the same, and all others,
with the NetworkPolicies, as networking.k8s.io/v1 NetworkPolicies: the policies go to standard output, the report to standard error. Tiers, order,
and rules that deny or pass are taken into account; NetworkSets become networks, as they are now. Domain names of Calico Enterprise become
domainNames.

A ClusterNetworkPolicy is evaluated before all NetworkPolicies, and its rules of ingress are about pods only. What cannot be one becomes
NetworkPolicies of each namespace that it names; --network-policies-only writes nothing else.

What has no equivalent is refused, with the field and a remedy; nothing is left out or widened. What was written is then proven: both sets
of policies are evaluated over every class of pods, addresses, ports and names that their terms tell apart. Where they differ, nothing is written.

Without -f the live cluster is read. With -f give the Namespaces too, and NetworkPolicies of Kubernetes' that stay beside the new ones.`,
		Example: `  # Manifests
  kubectl kidoban migrate calico convert -f calico/ -f namespaces.yaml > policies.yaml

  # The live cluster; what cannot be a ClusterNetworkPolicy in each of its namespaces
  kubectl kidoban migrate calico convert --expand-global --pod-cidr 10.0.0.0/16 > policies.yaml`,
		Args: cobra.NoArgs,
	}
	command.Files(cmd, &files)
	output := addConversion(cmd, "CalicoConversion", Conversion{})
	cmd.Flags().StringArrayVar(&cidrs, "pod-cidr", nil, "All pods' addresses are in this network; may be repeated. Rules about other networks are then not about pods.")
	cmd.Flags().BoolVar(&o.ExpandGlobal, "expand-global", false, "Write a GlobalNetworkPolicy that cannot be a ClusterNetworkPolicy into each namespace that there is. Namespaces that come later do not have it.")
	cmd.Flags().BoolVar(&networkOnly, "network-policies-only", false, "Write no ClusterNetworkPolicies.")
	cmd.Flags().BoolVar(&o.WithoutLog, "without-log", false, "Leave out rules whose action is Log.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		var err error
		if o.PodCIDRs, err = parseCIDRs(cidrs); err != nil {
			return err
		}
		in, err := read(cmd.Context(), env, files)
		if err != nil {
			return err
		}
		if len(in.set.Policies) == 0 && len(in.set.Invalid) == 0 {
			return fmt.Errorf("no NetworkPolicy or GlobalNetworkPolicy of Calico's (%s) is there to convert", calico.Group)
		}
		o.Namespaces, o.Cluster = in.namespaces(), !networkOnly
		c, err := in.convert(cmd.Context(), o)
		if err != nil {
			return err
		}
		if output.Is("json") {
			err = output.Print(env.Out, c, nil)
		} else {
			c.write(env.ErrOut, env.Paint(), o.PodCIDRs, in.set.IPPools)
			for _, p := range c.ClusterPolicies {
				if err == nil {
					err = writeObject(env.Out, p)
				}
			}
			if err == nil {
				err = writePolicies(env.Out, c.Policies)
			}
		}
		if err != nil {
			return err
		}
		return command.Yes(len(c.NotConverted) == 0 && c.Proof.Differing == 0 && len(c.Refused) == 0 && c.Lost == 0)
	}
	return cmd
}

func read(ctx context.Context, env *command.Env, files []string) (*input, error) {
	if len(files) > 0 {
		return readFiles(env, files)
	}
	c, err := env.Client()
	if err != nil {
		return nil, err
	}
	in, err := readLive(ctx, c)
	if err != nil {
		return nil, err
	}
	in.kubernetes(isNotConverted)
	return in, nil
}

// isNotConverted tells Kubernetes' policies from those that an earlier conversion wrote.
func isNotConverted(np *networkingv1.NetworkPolicy) bool {
	return np.Annotations[convert.Annotation] == ""
}

// outlived are NetworkPolicies that an earlier conversion made of policies which this one makes others of: kubectl apply leaves them. What was
// made of a policy that is gone may be all that is left of it.
func (in *input) outlived(r *convert.Result) (out []calico.Problem) {
	for i := range in.cluster.Policies {
		np := &in.cluster.Policies[i]
		if !slices.Contains(r.Converted, np.Annotations[convert.Annotation]) ||
			slices.ContainsFunc(r.Policies, func(o networkingv1.NetworkPolicy) bool { return o.Namespace == np.Namespace && o.Name == np.Name }) {
			continue
		}
		out = append(out, calico.Problem{
			Object: calico.KubernetesName(np), Problem: "an earlier conversion wrote it, and this one does not: as long as it is there, what it allows is allowed",
			Fix: fmt.Sprintf("kubectl -n %s delete networkpolicies.networking.k8s.io %s", np.Namespace, np.Name),
		})
	}
	for i := range in.set.Cluster {
		p := &in.set.Cluster[i]
		if !slices.Contains(r.Converted, p.Annotations[convert.Annotation]) || slices.ContainsFunc(r.Cluster, func(o cnp.ClusterNetworkPolicy) bool { return o.Name == p.Name }) {
			continue
		}
		out = append(out, calico.Problem{
			Object: "ClusterNetworkPolicy " + p.Name, Problem: "an earlier conversion wrote it, and this one does not: as long as it is there, its rules decide first",
			Fix: "kubectl delete clusternetworkpolicies.policy.networking.k8s.io " + p.Name,
		})
	}
	return out
}

// convert, and prove it.
func (in *input) convert(ctx context.Context, o convert.Options) (*Conversion, error) {
	var lost []calico.Problem
	if o.Cluster {
		in.set, lost = in.set.WithoutNames(func(n string) bool { return !tiered.IsDomainName(n) })
	}
	r := convert.Convert(in.set, o)
	c := &Conversion{
		Policies: r.Policies, Converted: r.Converted, NotConverted: r.NotConverted, Refused: r.Refused, Warnings: slices.Concat(lost, r.Warnings), Notes: slices.Concat(in.set.Inert, r.Notes), Lost: len(lost),
	}
	for i := range r.Cluster {
		p, err := withoutStatus(&r.Cluster[i])
		if err != nil {
			return nil, err
		}
		c.ClusterPolicies = append(c.ClusterPolicies, p)
	}
	if slices.ContainsFunc(r.Cluster, hasNames) {
		c.Notes = append(c.Notes, calico.Problem{
			Object:  "domain names",
			Problem: "they need the experimental channel of the ClusterNetworkPolicy CRD; of Calico's settings, DNSTrustedServers is the agents' --trusted-resolvers, DNSExtraTTL their minimum TTL, and DNSPolicyMode has no counterpart",
		})
	}
	c.Refused = slices.Concat(c.Refused, in.notOf(c.Refused), in.outlived(r))
	before := in.set.Without(func(p *calico.Policy) bool { return slices.Contains(r.NotConverted, p.String()) }, in.set.Kubernetes)
	before.Cluster = nil // of an earlier conversion
	after := &calico.Set{Kubernetes: slices.Concat(in.set.Kubernetes, r.Policies), Cluster: r.Cluster}
	known := o.Namespaces
	if len(known) == 0 && len(r.Cluster) > 0 {
		known = map[string]map[string]string{"default": {}} // they are about namespaces that come later, too
	}
	var missing []string
	missing, c.MissingNamespaces = missingNamespaces(before, r.Namespaces)
	var err error
	if c.Proof, err = proof.Compare(ctx, before, after, proof.Options{Namespaces: known, PodCIDRs: o.PodCIDRs, Without: missing}); err != nil {
		return nil, err
	}
	if c.Proof.Differing > 0 {
		c.Policies, c.ClusterPolicies = nil, nil
	}
	return c, nil
}

// missingNamespaces that policies name and that were not converted for, as they are not in the input, with a note for each.
func missingNamespaces(set *calico.Set, considered []string) (names []string, notes []calico.Problem) {
	for i := range set.Policies {
		p := &set.Policies[i]
		for _, ns := range proof.Named(p) {
			if slices.Contains(considered, ns) {
				continue
			}
			names = append(names, ns)
			notes = append(notes, calico.Problem{
				Object: p.String(), Problem: fmt.Sprintf("it names namespace %s: nothing is written into that namespace, and the proof leaves it out", ns),
				Fix: "if there is such a namespace, give its Namespace object too",
			})
		}
	}
	return names, notes
}

func writePolicies(out io.Writer, list []networkingv1.NetworkPolicy) error {
	for i := range list {
		text, err := yaml.Marshal(&list[i])
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conversion) write(out io.Writer, p command.Paint, cidrs []netip.Prefix, pools []calico.IPPool) {
	own := slices.DeleteFunc(slices.Clone(c.Refused), func(p calico.Problem) bool { return p.HeldBackBy != "" })
	if len(own) > 0 {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Refused"))
		writeProblems(out, p, command.Red, own)
	}
	if len(c.Refused) > len(own) {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Held back until those are seen to: what they come to depends on them"))
		writeHeldBack(out, p, c.Refused)
	}
	if len(c.Warnings) > 0 {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Warnings"))
		writeProblems(out, p, command.Yellow, c.Warnings)
	}
	if len(c.Notes) > 0 {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Notes: these do not change the meaning"))
		writeProblems(out, p, command.Dim, c.Notes)
	}
	if len(c.MissingNamespaces) > 0 {
		fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Namespaces that are not in the input, and not in the proof"))
		writeProblems(out, p, command.Yellow, c.MissingNamespaces)
	}
	all := len(c.Converted) + len(c.NotConverted)
	if c.Proof.Differing > 0 {
		fmt.Fprintf(out, "%s: the new policies do not mean the same, in %d of %d classes of flows. Nothing is written. This is a bug in kidoban: please report it.\n", p.Text(command.Alarm, "NOT PROVEN"), c.Proof.Differing, c.Proof.Flows)
		writeDifferences(out, p, "Calico", "the new policies", c.Proof.Differences)
		return
	}
	fmt.Fprintf(out, "%d of %d policies are converted, into ", len(c.Converted), all)
	if len(c.ClusterPolicies) > 0 {
		fmt.Fprintf(out, "%d ClusterNetworkPolicies and ", len(c.ClusterPolicies))
	}
	fmt.Fprintf(out, "%d NetworkPolicies", len(c.Policies))
	if len(c.Converted) > 0 {
		fmt.Fprintf(out, ".\nProven: %d classes of flows in %d namespaces are judged the same", c.Proof.Flows, c.Proof.Namespaces)
	}
	fmt.Fprintln(out, ".")
	if c.Lost > 0 {
		fmt.Fprintf(out, "%s: %d domain names are lost. The proof is about the policies without them.\n", p.Text(command.Red, "NOT COMPLETE"), c.Lost)
	}
	if len(c.NotConverted) > 0 {
		fmt.Fprintf(out, "Policies that are not converted stay Calico's. Without them, the pods that they select are open, or lack what they allow: convert them before you remove Calico.\n")
	}
	if len(pools) > 0 && len(cidrs) == 0 && len(c.Refused) > 0 {
		fmt.Fprintf(out, "Calico's pools of addresses:")
		for _, pool := range pools {
			fmt.Fprintf(out, " %s", pool.CIDR)
		}
		fmt.Fprintf(out, ". If all pods' addresses are from there, give them as --pod-cidr: more can be converted then.\n")
	}
}

func writeProblems(out io.Writer, p command.Paint, sgr string, list []calico.Problem) {
	last := ""
	for _, problem := range list {
		if problem.Object != last {
			fmt.Fprintf(out, "  %s\n", problem.Object)
			last = problem.Object
		}
		field := problem.Field
		if field != "" {
			field = p.Text(sgr, field) + ": "
		}
		fmt.Fprintf(out, "    %s%s\n", field, problem.Problem)
		if problem.Fix != "" {
			fmt.Fprintf(out, "      → %s\n", problem.Fix)
		}
	}
	fmt.Fprintln(out)
}

func writeHeldBack(out io.Writer, p command.Paint, list []calico.Problem) {
	for _, problem := range list {
		if problem.HeldBackBy != "" {
			fmt.Fprintf(out, "  %s: %s, by %s\n", problem.Object, p.Text(command.Yellow, problem.Field), problem.HeldBackBy)
		}
	}
	fmt.Fprintln(out)
}

func writeDifferences(out io.Writer, p command.Paint, before, after string, list []proof.Difference) {
	verdict := func(v calico.Verdict) string {
		if v.Allowed {
			return p.Text(command.Green, "allows") + " it by " + v.By
		}
		return p.Text(command.Red, "denies") + " it by " + v.By
	}
	for i := range list {
		d := &list[i]
		from, to := d.Peer, d.Pod
		if d.Direction == "Egress" {
			from, to = to, from
		}
		fmt.Fprintf(out, "  %s, from %s to %s, %s\n    %s %s\n    %s %s\n", d.Direction, from, to, d.Flow(), before, verdict(d.Before), after, verdict(d.After))
	}
}
