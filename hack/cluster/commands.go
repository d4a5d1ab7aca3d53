package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "Run a Kubernetes of several nodes on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	name := root.PersistentFlags().String("name", "dev", "which cluster; several can run at once")
	load := func() (*Cluster, error) { return loadCluster(stateRoot, *name) }
	root.AddCommand(
		buildCommand(),
		assetsCommand(),
		upCommand(name),
		downCommand(name),
		statusCommand(load),
		stopCommand(load),
		startCommand(load),
		loadCommand(load),
		kubeconfigCommand(load),
		kubectlCommand(load),
		execCommand(load),
		componentCommand(),
		nodeInitCommand(),
	)
	return root
}

func buildCommand() *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the binaries that are not cached yet",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sets, ok := map[string][]binarySet{
				"control-plane": {controlPlaneSet},
				"node":          {nodeSet},
				"all":           {controlPlaneSet, nodeSet},
				"e2e":           {suiteSet},
				"vpc":           {vpcSet},
				"dns":           {dnsSet},
			}[only]
			if !ok {
				return fmt.Errorf("--only=%s: want control-plane, node, all, e2e, vpc or dns", only)
			}
			b, err := newBuilder(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			for _, set := range sets {
				dir, err := b.ensure(set)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(dir, "bin"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&only, "only", "all", "control-plane (etcd and all of Kubernetes), node (containerd, CNI), all (both), e2e (Kubernetes' own suite), vpc (the Amazon VPC CNI's plugins), or dns (CoreDNS)")
	return cmd
}

func assetsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "assets",
		Short: "Print the directory for KUBEBUILDER_ASSETS; build it if it is not cached yet",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := newBuilder(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			dir, err := b.ensure(controlPlaneSet)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(dir, "bin"))
			return nil
		},
	}
}

func upCommand(name *string) *cobra.Command {
	var nodes int
	var proxyMode, ipFamilies, nriRequired, cni, vpcPolicyMode string
	var vpcEgress bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a cluster up and wait until its nodes are Ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newCluster(stateRoot, *name)
			if err != nil {
				return err
			}
			c.Nodes, c.ProxyMode, c.NRIRequired = nodes, proxyMode, nriRequired
			c.CNI, c.VPCEgress, c.VPCPolicyMode = cni, vpcEgress, vpcPolicyMode
			if c.IPFamilies, err = parseFamilies(ipFamilies); err != nil {
				return err
			}
			return c.up(cmd.Context(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 2, "how many nodes")
	cmd.Flags().StringVar(&proxyMode, "proxy-mode", "nftables", "of kube-proxy: nftables or iptables")
	cmd.Flags().StringVar(&ipFamilies, "ip-families", "IPv4,IPv6", "of nodes, pods and Services: IPv4, IPv6, or both, the preferred first")
	cmd.Flags().StringVar(&cni, "cni", cniPTP, "ptp, bridge, flannel (its layout: a bridge and VXLAN), or vpc (Amazon's plugins; one family)")
	cmd.Flags().BoolVar(&vpcEgress, "vpc-egress", false, "with --cni=vpc: pods reach the other family through a second interface")
	cmd.Flags().StringVar(&vpcPolicyMode, "vpc-policy-mode", "", "with --cni=vpc: NETWORK_POLICY_ENFORCING_MODE; unless it is empty, pods wait for an agent on npa.sock")
	cmd.Flags().StringVar(&nriRequired, "nri-required", "", "NRI plugin without which containerd starts no container")
	return cmd
}

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take a cluster down, or what is left of one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newCluster(stateRoot, *name)
			if err != nil {
				return err
			}
			return c.down(cmd.OutOrStdout())
		},
	}
}

func statusCommand(load func() (*Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show a cluster's processes and nodes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			return c.status(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

func stopCommand(load func() (*Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "stop COMPONENT...",
		Short: "End parts of a cluster, as a power failure would: etcd, kube-apiserver, n1 ...",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := c.stopComponent(name); err != nil {
					return fmt.Errorf("stop %s: %w", name, err)
				}
			}
			return nil
		},
	}
}

func startCommand(load func() (*Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "start COMPONENT...",
		Short: "Start parts of a cluster that were stopped",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := c.startComponent(cmd.Context(), name); err != nil {
					return fmt.Errorf("start %s: %w", name, err)
				}
			}
			return nil
		},
	}
}

func loadCommand(load func() (*Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "load IMAGE.tar...",
		Short: "Import the images of OCI tars into every node's containerd",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, images []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			for _, n := range c.nodes() {
				for _, image := range images {
					if err := n.load(cmd.Context(), image); err != nil {
						return fmt.Errorf("load %s: %w", image, err)
					}
				}
			}
			return nil
		},
	}
}

func kubeconfigCommand(load func() (*Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the path of the administrator's kubeconfig",
		Long: "Print the path of the administrator's kubeconfig. The API server is reached in the\n" +
			"network namespaces of the control plane and of the nodes only: see `cluster exec`.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), c.kubeconfig("admin"))
			return nil
		},
	}
}

func kubectlCommand(load func() (*Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl -- ARGS...",
		Short: "Run the cluster's kubectl as its administrator",
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			return c.become(c.inControlPlane(append([]string{"kubectl"}, args...)))
		},
	}
}

func execCommand(load func() (*Cluster, error)) *cobra.Command {
	var nodeName, pod string
	var publish uint16
	cmd := &cobra.Command{
		Use:   "exec [--node N | --pod [NAMESPACE/]NAME | --publish PORT] -- CMD...",
		Short: "Run one of the machine's commands inside the cluster",
		Long: "Run one of the machine's commands inside the cluster: in the network namespace of the\n" +
			"control plane; with --node in all namespaces of that node; with --pod in the network\n" +
			"namespace of that pod and otherwise as with --node. $KUBECONFIG and $PATH are set for kubectl.\n" +
			"With --publish a server that listens on that port of 127.0.0.1 in the network namespace of\n" +
			"the control plane is reached at the same address from outside, until the command ends.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			c, err := load()
			if err != nil {
				return err
			}
			switch {
			case nodeName != "" && pod != "" || publish != 0 && nodeName+pod != "":
				return errors.New("--node, --pod and --publish exclude each other")
			case publish != 0:
				return c.publish(cmd.Context(), publish, argv)
			case pod != "":
				argv, err = c.insidePod(cmd.Context(), pod, argv)
			case nodeName != "":
				var n node
				if n, err = c.parseNode(nodeName); err == nil {
					argv, err = n.inside(argv)
				}
			default:
				argv = c.inControlPlane(argv)
			}
			if err != nil {
				return err
			}
			return c.become(argv)
		},
	}
	cmd.Flags().StringVar(&nodeName, "node", "", "name or number of a node")
	cmd.Flags().StringVar(&pod, "pod", "", "a pod, in the namespace default unless given")
	cmd.Flags().Uint16Var(&publish, "publish", 0, "port of 127.0.0.1 to reach from outside the cluster while the command runs")
	return cmd
}

// componentCommand is what up starts every component by.
func componentCommand() *cobra.Command {
	var ns string
	cmd := &cobra.Command{
		Use:    "component",
		Hidden: true,
		RunE:   func(_ *cobra.Command, argv []string) error { return becomeComponent(ns, argv) },
	}
	cmd.Flags().StringVar(&ns, "netns", "", "")
	return cmd
}

// nodeInitCommand is PID 1 of a node.
func nodeInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "node-init CLUSTER NODE",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := loadCluster(stateRoot, args[0])
			if err != nil {
				return err
			}
			n, err := c.parseNode(args[1])
			if err != nil {
				return err
			}
			return n.run()
		},
	}
}
