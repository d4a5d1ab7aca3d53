package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var ports, outside, namespaces, from, to []string
	var only string
	var probe, allNamespaces bool
	var width int
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show which workloads reach which, by port",
		Long: `Show which workloads reach which by the policies: each row is a workload that connects, each column a port of a workload that receives.
The pods of a workload are one row unless policies tell them apart (±).

With -n the workloads of other namespaces are shown that policies allow to reach the namespace's, or to be reached from there.

With --from or --to one workload is the only row or the only workload in the columns, and the others are all that it could reach or be
reached by: the workloads of every namespace and, outside the cluster, the blocks and DNS names in policies, and "internet" for addresses
in none of these blocks. A Service stands for the workloads behind it.

Columns are the ports that containers declare and Services send to; --port asks about others. "other" is a port that no rule names.
--outside adds addresses outside the cluster as rows and columns, and DNS names as columns. A name's addresses are not known: the verdict is
that for a pod that has resolved the name, and a question mark where it depends on the address.`,
		Example: `  # One namespace
  kubectl kidoban matrix -n shop

  # Manifests, before they are applied, and the Internet
  kubectl kidoban matrix -f examples/shop -f examples/shop/policies --outside 192.0.2.1

  # Who reaches a host outside, by its name?
  kubectl kidoban matrix --to api.example.com

  # Who reaches the database?
  kubectl kidoban matrix --to shop/database --only allowed -o list

  # A picture in Markdown
  kubectl kidoban matrix -n shop -o mermaid

  # All that reach port 5432, for a spreadsheet
  kubectl kidoban matrix --port 5432 -o csv

  # Real connections from the pods, beside the expected verdicts
  kubectl kidoban matrix -n shop --probe`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, Kinds(), "list", "csv", "markdown", "html", "mermaid", "dot")
	source := command.AddSource(cmd)
	cmd.Flags().StringSliceVarP(&namespaces, "namespace", "n", nil, "Show this namespace, and its peers in others; may be repeated. Default: all.")
	cmd.Flags().BoolVarP(&allNamespaces, "all-namespaces", "A", false, "Show all namespaces, as without -n.")
	cmd.Flags().StringArrayVar(&from, "from", nil, "Show what this workload reaches: namespace/name, kind/name, svc/[namespace/]name or an address; may be repeated.")
	cmd.Flags().StringArrayVar(&to, "to", nil, "Show what reaches this workload: namespace/name, kind/name, svc/[namespace/]name, an address or a DNS name; may be repeated.")
	cmd.Flags().StringVar(&only, "only", "", "Show only what is allowed, or only what is denied. Verdicts that are neither are in both.")
	cmd.Flags().StringArrayVar(&ports, "port", nil, "Ask about this port of every workload, as 80 or 53/UDP; may be repeated.")
	cmd.Flags().StringArrayVar(&outside, "outside", nil, "Ask about this address or DNS name outside the cluster too; may be repeated.")
	_ = cmd.RegisterFlagCompletionFunc("namespace", env.CompleteNamespaces(source))
	_ = cmd.RegisterFlagCompletionFunc("from", env.CompleteWorkloads(source))
	_ = cmd.RegisterFlagCompletionFunc("to", env.CompleteWorkloads(source))
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{"allowed", "denied"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&probe, "probe", false, "Make real connections from the pods (exec), and mark what differs from the policies.")
	cmd.Flags().IntVar(&width, "width", 0, "Columns of text to fit the table in. Default: the terminal's.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		if probe && len(source.Files) > 0 {
			return errors.New("--probe connects from pods, and -f has none that run: try lab")
		}
		if allNamespaces && len(namespaces) > 0 {
			return errors.New("-A shows all namespaces, and -n one of them: give one of the two")
		}
		keep, err := keepOnly(only)
		if err != nil {
			return err
		}
		o := model.MatrixOptions{Namespaces: namespaces}
		if len(namespaces) > 0 {
			*env.Config.Namespace = namespaces[0] // of manifests that do not say theirs
		}
		for _, text := range ports {
			p, err := model.ParsePort(text)
			if err != nil {
				return err
			}
			o.Ports = append(o.Ports, p)
		}
		for _, text := range outside {
			addr, err := netip.ParseAddr(text)
			if err == nil {
				o.Outside = append(o.Outside, addr.Unmap())
			} else if _, ok := addName(&o, text); !ok {
				return fmt.Errorf("--outside %s is neither a valid address nor a DNS name", text)
			}
		}
		cluster, err := env.Cluster(cmd.Context(), source)
		if err != nil {
			return err
		}
		if err := CheckNamespaces(cluster, namespaces); err != nil {
			return err
		}
		if o.From, err = findWorkloads(cluster, &o, env.Namespace(), "--from", from); err != nil {
			return err
		}
		if o.To, err = findWorkloads(cluster, &o, env.Namespace(), "--to", to); err != nil {
			return err
		}
		if err := CheckOutside(cluster, o.Outside); err != nil {
			return err
		}
		var stands map[model.Workload]string
		if len(from)+len(to) > 0 && len(outside) == 0 {
			stands = sampleOutside(cluster, &o)
			for _, name := range cluster.PolicyNames() {
				addName(&o, name)
			}
		}
		if len(cluster.Workloads()) == 0 {
			return errors.New("there are no pods with addresses of their own")
		}
		t := &Table{Matrix: cluster.Matrix(o), Notes: cluster.Notes}
		t.rename(stands)
		if keep != nil {
			t.Only(keep)
		}
		if probe {
			if err := t.probe(cmd.Context(), env, cluster); err != nil {
				return err
			}
		}
		if width == 0 {
			width = env.Width()
		}
		if err := t.Print(env, output, width); err != nil {
			return err
		}
		wrong, _ := t.Wrong()
		return command.Yes(wrong == 0)
	}
	return cmd
}

// addName adds a DNS name outside the cluster to those that are asked about. It reports false for a text that is none.
func addName(o *model.MatrixOptions, text string) (model.Workload, bool) {
	name, err := policy.CanonicalDomainName(text)
	if err != nil || !strings.Contains(name, ".") || strings.HasPrefix(name, "*") || strings.Contains(name, "/") {
		return model.Workload{}, false
	}
	if o.Names == nil {
		o.Names = map[string][]netip.Addr{}
	}
	if _, ok := o.Names[name]; !ok {
		o.Names[name] = nil
	}
	return model.DomainName(name), true
}

// keepOnly reads --only: the verdicts that are shown, nil for all.
func keepOnly(only string) (func(model.Verdict) bool, error) {
	switch only {
	case "":
		return nil, nil
	case "allowed":
		return func(v model.Verdict) bool { return v != model.Denied }, nil
	case "denied":
		return func(v model.Verdict) bool { return v != model.Allowed }, nil
	}
	return nil, fmt.Errorf("--only %s: give allowed or denied", only)
}

// findWorkloads finds the workloads that a flag names. An address outside the cluster becomes one of those that are asked about.
func findWorkloads(c *model.Cluster, o *model.MatrixOptions, namespace, flag string, names []string) (out []model.Workload, err error) {
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			if addr = addr.Unmap(); !slices.Contains(o.Outside, addr) {
				o.Outside = append(o.Outside, addr)
			}
			out = append(out, model.Outside(addr))
			continue
		}
		found, err := c.FindWorkloads(name, namespace)
		if err != nil && flag == "--to" {
			if w, ok := addName(o, name); ok {
				out = append(out, w)
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, name, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// CheckNamespaces reports a namespace that has no pods which policies could apply to.
func CheckNamespaces(c *model.Cluster, names []string) error {
	have := map[string]bool{}
	for _, w := range c.Workloads() {
		have[w.Namespace] = true
	}
	for _, name := range names {
		if !have[name] {
			return fmt.Errorf("-n %s: that namespace has no pods with addresses of their own", name)
		}
	}
	return nil
}

// CheckOutside reports an address of a family that no pod has: nothing could be asked about it.
func CheckOutside(c *model.Cluster, addresses []netip.Addr) error {
	for _, a := range addresses {
		if !c.HasFamily(a) {
			return fmt.Errorf("--outside %s: no pod has an address of its family: give --ip-families", a)
		}
	}
	return nil
}
