package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// options of a lab.
type options struct {
	source                     *command.Source
	namespaces, outside, ports []string
	replicas                   int
	width                      int
	output                     *command.Output
}

// New is the command.
func New(env *command.Env) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "lab -f DIR",
		Short: "Try policies with real packets in the local kernel, without a cluster",
		Long: `Try policies with real packets in the local kernel: the pods of the manifests become network namespaces, kidoban's resolver, compiler and
BPF program put the policies in force as on a node, and every pair and port is connected. The matrix shows what was measured beside
what the policies mean.

It needs Linux 6.6 or newer and root, and nothing else. All that it makes is in namespaces of its own and gone when it ends, also when it is
interrupted or killed.

Of the replicas of a workload, which policies seldom tell apart, --replicas are made. Addresses outside the cluster are made for 192.0.2.1 and
for every ipBlock and except that the policies name. Connections are TCP and UDP.`,
		Example: `  # The examples of this repository
  sudo kubectl-kidoban lab -f examples/shop -f examples/shop/policies

  # As in a dual-stack cluster
  sudo kubectl-kidoban lab -f examples/shop -f examples/shop/policies --ip-families=IPv4,IPv6

  # A chart
  helm template ./chart | sudo kubectl-kidoban lab -f -`,
		Args: cobra.NoArgs,
	}
	o.output = command.AddOutput(cmd, "csv")
	o.source = command.AddSource(cmd)
	cmd.Flags().StringSliceVarP(&o.namespaces, "namespace", "n", nil, "Connect pods of this namespace only; may be repeated. Default: all.")
	cmd.Flags().StringArrayVar(&o.outside, "outside", nil, "Make this address outside the cluster; may be repeated. Default: 192.0.2.1, with IPv6 2001:db8::1, and one in each ipBlock and except.")
	cmd.Flags().StringArrayVar(&o.ports, "port", nil, "Connect to this port of every workload, as 80 or 53/UDP; may be repeated. Default: those that it declares.")
	cmd.Flags().IntVar(&o.replicas, "replicas", 2, "Make this many pods of a workload at most.")
	cmd.Flags().IntVar(&o.width, "width", 0, "Columns of text to fit the table in. Default: the terminal's.")
	_ = cmd.MarkFlagRequired("filename")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.output.Check(); err != nil {
			return err
		}
		return start(cmd.Context(), env, o)
	}
	return cmd
}

// read the cluster, with no more replicas than are wanted.
func (o *options) read(ctx context.Context, env *command.Env) (*model.Cluster, model.MatrixOptions, error) {
	m := model.MatrixOptions{Namespaces: o.namespaces}
	if len(o.namespaces) > 0 {
		*env.Config.Namespace = o.namespaces[0]
	}
	c, err := env.Cluster(ctx, o.source)
	if err != nil {
		return nil, m, err
	}
	c.FixAddresses()
	count := map[model.Workload]int{}
	var pods []model.Pod
	for _, p := range c.Pods {
		if count[p.Workload]++; count[p.Workload] <= o.replicas {
			pods = append(pods, p)
		}
	}
	c.Pods = pods
	for _, text := range o.ports {
		p, err := model.ParsePort(text)
		if err != nil {
			return nil, m, err
		}
		m.Ports = append(m.Ports, p)
	}
	for _, text := range o.outside {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, m, fmt.Errorf("--outside %s is no address", text)
		}
		m.Outside = append(m.Outside, a.Unmap())
	}
	if len(o.outside) == 0 {
		m.Outside = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		if c.Addressing.IPv6 {
			m.Outside = append(m.Outside, netip.MustParseAddr("2001:db8::1"))
		}
		m.Outside = append(m.Outside, model.Blocks(c.Policies)...)
		e := model.NewEvaluator(c)
		m.Outside = slices.DeleteFunc(m.Outside, func(a netip.Addr) bool { return e.PodAt(a) != nil }) // it is inside
	}
	return c, m, nil
}
