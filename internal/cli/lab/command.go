package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/matrix"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// options of a lab.
type options struct {
	source                     *command.Source
	namespaces, outside, ports []string
	replicas                   int
	width                      int
	output                     *command.Output
}

// input is what a lab is made of.
type input struct {
	cluster *model.Cluster
	matrix  model.MatrixOptions
	// assumed are the cells whose verdict depends on addresses that the pods were given, and private those that assume them to be private.
	assumed, private map[cellKey]bool
	// leftOut are addresses of ipBlocks that cannot be a host's, and leftPods those pods that have no address of their own for the lab.
	leftOut  []netip.Addr
	leftPods []string
	// resolver is the pod that answers questions for DNS names, nil where policies have none.
	resolver *model.Pod
	remarks  []string
}

// cellKey is a cell of the matrix.
type cellKey struct {
	from model.Workload
	to   model.Column
}

// New is the command.
func New(env *command.Env) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "lab -f DIR",
		Short: "Try policies with real packets in the local kernel, without a cluster",
		Long: `Try policies with real packets in the local kernel: the pods of the manifests become network namespaces, kidoban's resolver, compiler and
BPF program put the policies in force as on a node, and every pair and port is connected. The matrix shows the measured verdicts beside
the expected ones.

It needs Linux 6.6 or newer and root, and nothing else. All that it makes is in namespaces of its own and gone when it ends, also when it is
interrupted or killed.

Pods of manifests have no addresses: they are given some, of --pod-cidr if there is one. A cell with a question mark depends on those.

Of the replicas of a workload, which policies seldom tell apart, --replicas are made. Addresses outside the cluster are made for 192.0.2.1 and
for every ipBlock and except that the policies name, but for addresses that no host can have. Connections are TCP and UDP.

Hosts outside the cluster are made for the DNS names in policies, too. The pods ask for them before they connect: the first pod of kube-system
with the label k8s-app=kube-dns is the resolver, and is made if there is none.`,
		Example: `  # The examples of this repository
  sudo kubectl-kidoban lab -f examples/shop -f examples/shop/policies

  # As in a dual-stack cluster
  sudo kubectl-kidoban lab -f examples/shop -f examples/shop/policies --ip-families=IPv4,IPv6

  # A chart
  helm template ./chart | sudo kubectl-kidoban lab -f -`,
		Args: cobra.NoArgs,
	}
	o.output = command.AddOutput(cmd, matrix.Kinds(), "csv")
	o.source = command.AddSource(cmd)
	cmd.Flags().StringSliceVarP(&o.namespaces, "namespace", "n", nil, "Connect pods of this namespace only; may be repeated. Default: all.")
	cmd.Flags().StringArrayVar(&o.outside, "outside", nil, "Make this address outside the cluster; may be repeated. Default: 192.0.2.1, with IPv6 2001:db8::1, and one in each ipBlock and except.")
	cmd.Flags().StringArrayVar(&o.ports, "port", nil, "Connect to this port of every workload, as 80 or 53/UDP; may be repeated. Default: those that it declares.")
	cmd.Flags().IntVar(&o.replicas, "replicas", 2, "Make this many pods of a workload at most.")
	cmd.Flags().IntVar(&o.width, "width", 0, "Columns of text to fit the table in. Default: the terminal's.")
	_ = cmd.MarkFlagRequired("filename")
	_ = cmd.RegisterFlagCompletionFunc("namespace", env.CompleteNamespaces(o.source))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.output.Check(); err != nil {
			return err
		}
		return start(cmd.Context(), env, o)
	}
	return cmd
}

// read the cluster, with no more replicas than are wanted.
func (o *options) read(ctx context.Context, env *command.Env) (*input, error) {
	in := &input{matrix: model.MatrixOptions{Namespaces: o.namespaces}}
	if len(o.namespaces) > 0 {
		*env.Config.Namespace = o.namespaces[0]
	}
	c, err := env.Cluster(ctx, o.source)
	if err != nil {
		return nil, err
	}
	in.cluster = c
	count := map[model.Workload]int{}
	var pods []model.Pod
	for _, p := range c.Pods {
		if count[p.Workload]++; count[p.Workload] <= o.replicas {
			pods = append(pods, p)
		}
	}
	c.Pods = pods
	in.addResolver()
	in.leavePods()
	if err := matrix.CheckNamespaces(c, o.namespaces); err != nil {
		return nil, err
	}
	for _, text := range o.ports {
		p, err := model.ParsePort(text)
		if err != nil {
			return nil, err
		}
		in.matrix.Ports = append(in.matrix.Ports, p)
	}
	if err := o.addOutside(in); err != nil {
		return nil, err
	}
	in.addNames()
	in.assumed, in.private = dependent(c.Matrix(in.matrix))
	c.FixAddresses()
	in.checkNames()
	if len(o.outside) > 0 {
		return in, matrix.CheckOutside(c, in.matrix.Outside)
	}
	return in, nil
}

// leavePods out that cannot have a network namespace: the older ones of several with one address, and those whose addresses no host can have.
func (in *input) leavePods() {
	pods := model.NewEvaluator(in.cluster)
	var kept []model.Pod
	for i := range in.cluster.Pods {
		p := &in.cluster.Pods[i]
		if policy.IsPeer(&p.Pod) && slices.ContainsFunc(policy.PodAddresses(&p.Pod), func(a netip.Addr) bool { return pods.PodAt(a) != p || !canBeHost(a) }) {
			in.leftPods = append(in.leftPods, p.Key())
			continue
		}
		kept = append(kept, *p)
	}
	in.cluster.Pods = kept
}

// dependent are the cells that depend on addresses which are not known, and those that assume these to be private.
func dependent(m *model.Matrix) (assumed, private map[cellKey]bool) {
	assumed, private = map[cellKey]bool{}, map[cellKey]bool{}
	for i, row := range m.Rows {
		for j, column := range m.Columns {
			if m.Cells[i][j] == model.Depends {
				assumed[cellKey{row, column}] = true
			}
			if m.AssumesPrivate != nil && m.AssumesPrivate[i][j] {
				private[cellKey{row, column}] = true
			}
		}
	}
	return assumed, private
}

// marks are the cells of a matrix that are in a set.
func marks(m *model.Matrix, of map[cellKey]bool) [][]bool {
	out := make([][]bool, len(m.Rows))
	for i, row := range m.Rows {
		for _, column := range m.Columns {
			out[i] = append(out[i], of[cellKey{row, column}])
		}
	}
	return out
}

// addOutside adds the addresses outside the cluster: those asked for or, by default, those of the ipBlocks.
func (o *options) addOutside(in *input) error {
	pods := model.NewEvaluator(in.cluster)
	add := func(a netip.Addr) {
		if !slices.Contains(in.matrix.Outside, a) {
			in.matrix.Outside = append(in.matrix.Outside, a)
		}
	}
	for _, text := range o.outside {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			return fmt.Errorf("--outside %s is not a valid address", text)
		case !canBeHost(a.Unmap()):
			return fmt.Errorf("--outside %s cannot be the address of a host outside: give another", text)
		case pods.PodAt(a.Unmap()) != nil:
			return fmt.Errorf("--outside %s is the address of pod %s", text, pods.PodAt(a.Unmap()).Key())
		}
		add(a.Unmap())
	}
	if len(o.outside) > 0 {
		return nil
	}
	defaults := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	if in.cluster.Addressing.IPv6 {
		defaults = append(defaults, netip.MustParseAddr("2001:db8::1"))
	}
	for _, a := range append(defaults, in.cluster.Blocks()...) {
		switch {
		case pods.PodAt(a) != nil: // it is inside
		case !canBeHost(a):
			in.leftOut = append(in.leftOut, a)
		default:
			add(a)
		}
	}
	return nil
}

// special are the blocks of which no host outside a node can have an address: packets to them are not forwarded.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// router is the address of the pods' gateway, as in Amazon's VPC CNI.
var router = netip.MustParseAddr("169.254.1.1")

func canBeHost(a netip.Addr) bool {
	return a != router && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// notes about the input, and about the addresses that are left out.
func (in *input) notes() []string { return append(slices.Clone(in.cluster.Notes), in.caveats()...) }

func (in *input) caveats() (out []string) {
	out = append(out, in.remarks...)
	if len(in.leftPods) > 0 {
		out = append(out, "left out, as a younger pod has their address or no host can have it: "+strings.Join(in.leftPods, ", "))
	}
	var names []string
	for _, a := range in.leftOut {
		names = append(names, a.String())
	}
	if len(names) > 0 {
		out = append(out, "left out, as no host outside can have them: "+strings.Join(names, ", "))
	}
	return out
}

func (in *input) writeNotes(env *command.Env) {
	for _, c := range in.caveats() {
		fmt.Fprintln(env.ErrOut, c)
	}
}
