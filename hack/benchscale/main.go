// Command benchscale measures the cost of the resolver, the controller and the agents' watches in large
// clusters: in memory, and on a real API server with pods on nodes that do not exist. A fleet is hundreds of
// agents on such nodes, beside as many clients with kube-proxy's watches.
//
//	KUBEBUILDER_ASSETS=$(bin/cluster assets) benchscale --controller=bin/controller --write=docs/performance.md
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// options of a run.
type options struct {
	seed uint64
	// in memory: the cluster, the number of changes, and the addresses of the large group
	memory         size
	changes, large int
	writeChanges   int // of which the writes are counted
	// on the API server: the cluster, changes a second, how long they last, and those while an agent's share
	// is measured
	cluster         size
	clusterPolicies int // in both
	rates           []int
	length          time.Duration
	shareRate       int
	watchers        int // nodes that watch while streams are counted
	controller      string
	// maxAddresses of a slice; 0: the controller's default
	maxAddresses int
	profile      string
	// of a fleet: how many agents, and the namespaces that have pods on one node
	agents, perNode int
}

// words formats a cluster for the report.
func (o options) words(s size) string {
	return fmt.Sprintf("%s, %s ClusterNetworkPolicies", s.words(), thousands(o.clusterPolicies))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "benchscale: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "floor":
			return runFloor(ctx, args[1:])
		case "agents":
			return runAgents(ctx, args[1:])
		}
	}
	o := options{
		memory: size{1000, 10_000, 100_000}, changes: 10_000, large: 150_000, writeChanges: 3000,
		cluster: size{200, 1000, 20_000}, clusterPolicies: 100, rates: []int{10, 50}, length: time.Minute, shareRate: 10, watchers: 100, agents: 300,
	}
	flags := flag.NewFlagSet("benchscale", flag.ExitOnError)
	only := flags.String("only", "memory,writes,services,cluster", "The cases to run.")
	write := flags.String("write", "", "Page to write the report to, between its marks. Empty: standard output only.")
	flags.BoolFunc("quick", "Small cases, which check in two minutes that everything works.", func(string) error {
		o.memory, o.changes, o.large = size{100, 1000, 10_000}, 1000, 15_000
		o.cluster, o.length, o.watchers, o.agents = size{20, 100, 400}, 5*time.Second, 20, 20
		return nil
	})
	flags.Var(&o.memory, "memory", "Namespaces,policies,pods in memory.")
	flags.Var(&o.cluster, "cluster", "Namespaces,policies,pods on the API server.")
	flags.IntVar(&o.clusterPolicies, "cluster-policies", o.clusterPolicies, "ClusterNetworkPolicies besides, in both clusters.")
	flags.DurationVar(&o.length, "length", o.length, "How long pods change at each rate.")
	flags.StringVar(&o.profile, "profile", "", "A file for a CPU profile of the API server while pods change at the highest rate.")
	flags.Uint64Var(&o.seed, "seed", 1, "Seed of the random cluster and changes.")
	flags.StringVar(&o.controller, "controller", "bin/controller", "The controller's binary.")
	flags.IntVar(&o.agents, "agents", o.agents, "Agents of a fleet.")
	flags.IntVar(&o.perNode, "per-node", teamSize, "Namespaces that have pods on one node of a fleet.")
	flags.IntVar(&o.maxAddresses, "max-addresses-per-slice", 0, "The controller's flag; 0: its default.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctrl.SetLogger(logr.Discard())
	out := &report{began: time.Now(), progress: os.Stderr}
	var beside []churned // results of another controller
	for _, c := range strings.Split(*only, ",") {
		var err error
		switch c {
		case "memory":
			err = memoryCases(ctx, o, out)
		case "writes":
			err = caseWrites(ctx, o, out)
		case "services":
			beside, err = serviceCases(ctx, o, out)
		case "cluster":
			err = clusterCases(ctx, o, beside, out)
		case "fleet":
			err = fleetCases(ctx, o, out)
		default:
			err = fmt.Errorf("--only=%s: the cases are memory, writes, services, cluster and fleet", c)
		}
		if err != nil {
			return err
		}
	}
	text := out.markdown(command(target(*only), flags))
	_, _ = os.Stdout.Write(text)
	if *write == "" {
		return nil
	}
	return replaceIn(*write, target(*only), text)
}

// target is the make target that runs these cases.
func target(only string) string {
	if only == "fleet" {
		return "bench-fleet"
	}
	return "bench-scale"
}

// command is the command line that repeats the measurement.
func command(target string, flags *flag.FlagSet) string {
	var args []string
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "controller", "write", "profile":
		case "only":
			if target == "bench-fleet" {
				break
			}
			args = append(args, "--only="+f.Value.String())
		case "quick":
			args = append(args, "--quick")
		default:
			args = append(args, fmt.Sprintf("--%s=%s", f.Name, f.Value))
		}
	})
	if len(args) == 0 {
		return "make " + target
	}
	return fmt.Sprintf("make %s ARGS='%s'", target, strings.Join(args, " "))
}
