// Package diff shows the changes that applying manifests would make.
package diff

import (
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var base, outside []string
	var prune bool
	cmd := &cobra.Command{
		Use:   "diff -f NEW [--base OLD]",
		Short: "Show what manifests would change: which workloads gain or lose which ports",
		Long: `Show what changes if these manifests are applied: policies that are added, changed and removed, and for each pair of workloads the
ports that become reachable and those that are lost, exactly.

Addresses outside the cluster are compared too: all ranges into which the ipBlocks of both sides cut the address space, with the number of
their addresses. Where pods have addresses that are not known, a change that an ipBlock decides is marked ("?"), and so is one that holds
only for private addresses ("*"): give --pod-cidr. The last line has the totals.

The manifests are compared with the live cluster, where nothing is removed unless --prune states that they are all the policies of their
namespaces; or with the manifests of --base, which they replace: a policy that is only there is removed. In a live cluster labels of a
namespace that the manifests do not manage stay.

The exit code is 1 when something changes, so that a pipeline can stop for a review.`,
		Example: `  # What would this do to the cluster?
  kubectl kidoban diff -f new/

  # In a merge request: this branch against the main one
  kubectl kidoban diff --base main/deploy -f deploy

  # Helm
  helm template ./chart | kubectl kidoban diff -n shop -f -`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, command.Kinds{"Difference": Report{}})
	source := command.AddSource(cmd)
	cmd.Flags().StringArrayVar(&base, "base", nil, "Compare with these manifests instead of the live cluster; may be repeated.")
	cmd.Flags().BoolVar(&prune, "prune", false, "Count policies as removed that are in the manifests' namespaces and not in the manifests; ClusterNetworkPolicies, if the manifests have some.")
	cmd.Flags().StringArrayVar(&outside, "outside", nil, "Ask about this address outside the cluster on its own, too; may be repeated.")
	_ = cmd.MarkFlagRequired("filename")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		manifests, err := env.Cluster(cmd.Context(), source)
		if err != nil {
			return err
		}
		before, err := env.ClusterOf(cmd.Context(), source, base)
		if err != nil {
			return err
		}
		var addresses []netip.Addr
		for _, text := range outside {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("--outside %s is not a valid address", text)
			}
			addresses = append(addresses, addr.Unmap())
		}
		after, err := before.Apply(manifests, prune)
		if err != nil {
			return err
		}
		if len(base) > 0 {
			after.Policies, after.ClusterPolicies = manifests.Policies, manifests.ClusterPolicies
		}
		d := newReport(before, manifests, after, unique(addresses)...)
		if err := output.Print(env.Out, d, func(out io.Writer) { write(out, env.Paint(), d) }); err != nil {
			return err
		}
		return command.Yes(d.Empty())
	}
	return cmd
}

// Report is the result of diff.
type Report struct {
	*model.Difference
	// Notes are about the input, such as policies of other engines, which are not evaluated.
	Notes []string `json:"notes,omitempty"`
}

// Applied reports what changes if manifests are applied to a cluster.
func Applied(before, manifests *model.Cluster) (*Report, error) {
	after, err := before.Apply(manifests, false)
	if err != nil {
		return nil, err
	}
	return newReport(before, manifests, after), nil
}

func newReport(before, manifests, after *model.Cluster, outside ...netip.Addr) *Report {
	d := &Report{Difference: model.NewDifference(before, after, outside...)}
	for _, note := range slices.Concat(before.Notes, manifests.Notes) {
		if !slices.Contains(d.Notes, note) {
			d.Notes = append(d.Notes, note)
		}
	}
	return d
}

// Text is the report as the command prints it, without colours.
func (r *Report) Text() string {
	var b strings.Builder
	write(&b, false, r)
	return b.String()
}

func unique(addresses []netip.Addr) []netip.Addr {
	seen := map[netip.Addr]bool{}
	var out []netip.Addr
	for _, a := range addresses {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}

func write(out io.Writer, p command.Paint, d *Report) {
	if d.Empty() {
		fmt.Fprintln(out, "nothing changes")
		writeAssumption(out, d)
		return
	}
	for _, name := range d.Added {
		fmt.Fprintf(out, "%s %s\n", p.Text(command.Green, "+"), described(name))
	}
	for _, name := range d.Changed {
		fmt.Fprintf(out, "%s %s\n", p.Text(command.Yellow, "~"), described(name))
	}
	for _, name := range d.Removed {
		fmt.Fprintf(out, "%s %s\n", p.Text(command.Red, "-"), described(name))
	}
	writePairs(out, p, d.Pairs)
	writeNames(out, p, d.Names)
	if len(d.Pairs)+len(d.Names) == 0 {
		fmt.Fprintln(out, "\nno pair of workloads gains or loses a port")
	}
	for _, w := range d.New {
		fmt.Fprintf(out, "\n%s %s is new: not compared (matrix shows what it will reach)\n", w.Kind, w)
	}
	for _, w := range d.Gone {
		fmt.Fprintf(out, "\n%s %s is gone: not compared\n", w.Kind, w)
	}
	writeAssumption(out, d)
	if len(d.Pairs) > 0 {
		fmt.Fprintf(out, "\nTotal: ports gained by %s, lost by %s\n", sum(&d.Total.Gained), sum(&d.Total.Lost))
	}
}

// described is the name of a policy with its kind.
func described(name string) string {
	if strings.HasPrefix(name, model.ClusterPolicyKind+" ") {
		return name
	}
	return "NetworkPolicy " + name
}

// writeAssumption notes where pairs rest on private addresses, and whether only others would.
func writeAssumption(out io.Writer, d *Report) {
	switch {
	case !d.AssumesPrivate:
	case slices.ContainsFunc(d.Pairs, func(p model.Pair) bool { return p.AssumesPrivate }):
		fmt.Fprintln(out, "\n* only if the pods have private addresses, as is assumed where they are not known: give --pod-cidr")
	default:
		fmt.Fprintln(out, "\nPods whose addresses are not known are assumed to have private ones; with public ones more pairs would differ: give --pod-cidr")
	}
}

// sum as text, such as "2 pairs and 65,536 addresses".
func sum(s *model.Sum) string {
	pairs := fmt.Sprintf("%d pairs", s.Pairs)
	if s.Pairs == 1 {
		pairs = "1 pair"
	}
	if addresses := sizes(s.IPv4, s.IPv6); addresses == "1" {
		return pairs + " and 1 address"
	} else if addresses != "" {
		return pairs + " and " + addresses + " addresses"
	}
	return pairs
}

func writePairs(out io.Writer, p command.Paint, pairs []model.Pair) {
	var all []model.Workload
	for _, pair := range pairs {
		all = append(all, pair.From, pair.To)
	}
	name := model.Names(all)
	depends := false
	for _, side := range []struct {
		head, sgr, sign string
		of              func(model.Pair) model.PortSet
	}{
		{"become reachable", command.Green, "+", func(p model.Pair) model.PortSet { return p.Gained }},
		{"are not reachable any more", command.Red, "-", func(p model.Pair) model.PortSet { return p.Lost }},
	} {
		t := &command.Table{Paint: p}
		head := []string{"", "FROM", "TO", "PORTS"}
		if slices.ContainsFunc(pairs, func(pair model.Pair) bool { return len(pair.Parts) > 0 && !side.of(pair).Empty() }) {
			head = append(head, "ADDRESSES")
		}
		t.Head(head...)
		n := 0
		for _, pair := range pairs {
			ports := side.of(pair)
			if ports.Empty() {
				continue
			}
			n++
			text := strings.TrimSpace(ports.String())
			if pair.Some {
				text += " (some pods)"
			}
			if pair.Depends {
				text += " ?"
				depends = true
			}
			if pair.AssumesPrivate {
				text += " *"
			}
			t.Add(command.Cell{SGR: side.sgr, Text: side.sign}, command.Cell{Text: name(pair.From)}, command.Cell{Text: name(pair.To)},
				command.Cell{SGR: side.sgr, Text: text}, command.Cell{Text: size(pair.Parts)})
		}
		if n > 0 {
			fmt.Fprintf(out, "\n%s\n", p.Text(command.Bold, "Ports that "+side.head))
			t.Write(out)
		}
	}
	if depends {
		fmt.Fprintln(out, "\n? depends on the address of a pod, which is not known: give --pod-cidr")
	}
}

// writeNames prints what workloads gain and lose at DNS names.
func writeNames(out io.Writer, p command.Paint, names []model.NameChange) {
	var all []model.Workload
	for _, n := range names {
		all = append(all, n.From)
	}
	name := model.Names(all)
	for _, side := range []struct {
		head, sgr, sign string
		of              func(model.NameChange) model.PortSet
	}{
		{"become reachable by name", command.Green, "+", func(n model.NameChange) model.PortSet { return n.Gained }},
		{"are not reachable by name any more", command.Red, "-", func(n model.NameChange) model.PortSet { return n.Lost }},
	} {
		t := &command.Table{Paint: p}
		t.Head("", "FROM", "NAME", "PORTS")
		n := 0
		for _, change := range names {
			if ports := side.of(change); !ports.Empty() {
				n++
				t.Add(command.Cell{SGR: side.sgr, Text: side.sign}, command.Cell{Text: name(change.From)}, command.Cell{Text: change.Name}, command.Cell{SGR: side.sgr, Text: strings.TrimSpace(ports.String())})
			}
		}
		if n > 0 {
			fmt.Fprintf(out, "\n%s\n", p.Text(command.Bold, "Ports that "+side.head))
			t.Write(out)
		}
	}
	if slices.ContainsFunc(names, func(n model.NameChange) bool { return !n.Gained.Empty() }) {
		fmt.Fprintln(out, "\nA name is reachable once a pod of the node has resolved it at a trusted resolver; live connections to addresses whose names are not known are cut where policies deny the rest. Apply the policy in audit first: `kubectl kidoban status policy` lists these connections")
	}
}

// size of ranges as text, such as "65,536" or "256 IPv4, 2^80 IPv6"; empty without ranges.
func size(parts []model.Part) string {
	ipv4, ipv6 := new(big.Int), new(big.Int)
	for _, p := range parts {
		n := ipv6
		if p.First.Is4() {
			n = ipv4
		}
		n.Add(n, p.Count())
	}
	return sizes(ipv4, ipv6)
}

func sizes(ipv4, ipv6 *big.Int) string {
	switch total := new(big.Int).Add(ipv4, ipv6); {
	case total.Sign() == 0:
		return ""
	case ipv4.Sign() > 0 && ipv6.Sign() > 0:
		return fmt.Sprintf("%s IPv4, %s IPv6", count(ipv4), count(ipv6))
	default:
		return count(total)
	}
}

// mostBits of a number that is written in full: enough for all IPv4 addresses.
const mostBits = 33

func count(n *big.Int) string {
	if bits := n.BitLen(); bits > mostBits {
		if n.TrailingZeroBits() == uint(bits-1) {
			return fmt.Sprintf("2^%d", bits-1)
		}
		return fmt.Sprintf("more than 2^%d", bits-1)
	}
	digits := n.String()
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
