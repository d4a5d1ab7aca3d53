// Command agent enforces NetworkPolicies on the node that it runs on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/agent/npbackend"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/agentapi/serve"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/startup"
	"github.com/kidoban/kidoban/internal/version"
)

type options struct {
	nodeName, namespace string
	bpffs               string
	servers             startup.Servers
	memoryLimit         int64
	audit               bool
	mode                string
	guardBoot           bool
	sizes               dataplane.Sizes
	budget              compiler.Cost
	guaranteed          int
	removeTaint         bool
	checkInterval       time.Duration
	apiAddr             string
	nriSocket           string
	npSocket            string
	tokenFile           string
	holdTimeout         time.Duration
	tunnelEnds          prefixes
	names               names
	observer            observer
	events              eventLog
	ruleSeries          int
	cleanup, wait       bool
	version             bool
	log                 zap.Options
}

func main() {
	o := options{log: startup.LogOptions()}
	o.bind(flag.CommandLine)
	if err := startup.ParseFlags(flag.CommandLine, os.Args[1:], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(2)
	}
	if o.version {
		fmt.Println(version.String())
		return
	}
	startup.SetLogger(&o.log)
	if err := run(o); err != nil {
		ctrl.Log.Error(err, "The agent stops; its policies stay in force")
		os.Exit(1)
	}
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "Name of the node that the agent runs on. Default: environment NODE_NAME.")
	fs.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "kidoban's own namespace, which holds the address groups that cross namespaces. Default: environment POD_NAMESPACE.")
	fs.StringVar(&o.bpffs, "bpffs", dataplane.DefaultBPFFS, "Mount point of the node's BPF file system.")
	o.servers.Bind(fs, ":8162", "127.0.0.1:8163")
	fs.Int64Var(&o.memoryLimit, "memory-limit", 0, "Memory that the container may use, in bytes; 0: no limit. The Go runtime's soft limit is what two generations of full BPF maps leave of it, less 10 %. The DaemonSet sets it.")
	fs.StringVar(&o.apiAddr, "api-bind-address", fmt.Sprintf("127.0.0.1:%d", agentapi.DefaultPort), "Address to serve the read-only API on; kubectl kidoban reaches it by port-forwarding. 0 serves none.")
	fs.BoolVar(&o.audit, "audit", false, "Count and log what policies deny, and let it pass. The label kidoban.dev/enforcement=audit or =enforce of a namespace overrides this.")
	fs.StringVar(&o.mode, "enforcing-mode", os.Getenv("NETWORK_POLICY_ENFORCING_MODE"), "How pods are treated that no policy selects. standard: all their traffic is allowed. guarded: like standard, but a pod's traffic is denied until the agent knows the pod. strict: like guarded, and a pod that no policy isolates in a direction is isolated in it. Default: environment NETWORK_POLICY_ENFORCING_MODE, or standard.")
	fs.BoolVar(&o.guardBoot, "guard-boot", false, "Let no pod start on the node before the agent's policies are in force, also in mode standard and with --audit; the modes guarded and strict always do so. Pods on the host network start. Needs NRI; config/components/boot-guard sets it.")
	fs.Var(mapSizes{&o.sizes}, "map-entries", "Maximum entries of BPF maps, such as addresses=1000000,rows=600000. Maps: pods, addresses, networks, rows, ports, interfaces, revoked, domains, resolvers, learned, names; docs/dataplane.md has the defaults.")
	o.budget = compiler.DefaultBudget
	fs.Var(policyBudget{&o.budget}, "policy-budget", "What the policies on one pod may come to in one direction, such as rows=65536,ports=500000. The most expensive ones beyond it isolate the pod and allow nothing. prefixes (default 131072): addresses and blocks; rows (32768): kinds of peers; ports (262144): entries of port lists; steps (2097152) of the compiler.")
	fs.IntVar(&o.guaranteed, "guaranteed-namespaces", compiler.DefaultNamespaces, "Each of this many namespaces is guaranteed an equal share of each BPF map. Where a map is full, the newest policies of namespaces beyond their share isolate their pods and allow nothing.")
	fs.BoolVar(&o.removeTaint, "remove-startup-taint", false, "Remove the taint "+agent.StartupTaint+" from the node when its policies are in force. Needs permission to get and patch nodes: config/components/startup-taint.")
	fs.DurationVar(&o.checkInterval, "check-interval", time.Minute, "How often the kernel's maps are compared with the policies, and repaired.")
	fs.StringVar(&o.nriSocket, "nri-socket", agent.DefaultNRISocket, "Socket on which the container runtime listens for NRI plugins; empty: a pod's policies are in force a moment after its start, not before.")
	fs.StringVar(&o.npSocket, "vpc-cni-socket", "", "Socket on which to serve the Amazon VPC CNI's network policy backend, "+npbackend.DefaultSocket+
		": a pod's network is then ready only when its policies are in force. A socket that another agent serves is left alone. Empty: not served. config/components/vpc-cni sets it.")
	fs.StringVar(&o.tokenFile, "controller-token-file", defaultTokenFile, "File with the agent's token for the stream to the controller, on which it announces new pods and reports which policies are in force; empty, or without the file: there is no stream.")
	fs.DurationVar(&o.holdTimeout, "hold-timeout", agent.DefaultHoldTimeout, "How long a pod's first container waits until all nodes know the pod's addresses, counted from their announcement; at most 1s. 0: it does not wait. Needs the stream to the controller, and NRI.")
	fs.Var(&o.tunnelEnds, "tunnel-ends", "Addresses or CIDRs, separated by commas, whose encapsulated packets the node takes, besides the ends of its tunnels that the kernel has: "+
		"for devices that take packets from everywhere. Needed with tunnels whose metadata comes with each packet.")
	o.events.bind(fs)
	o.names.bind(fs)
	o.observer.bind(fs)
	fs.IntVar(&o.ruleSeries, "rule-metrics-max-series", 2000, "Maximum series of kidoban_agent_rule_hits_total, which counts packets for each policy and rule; 0: the metric is off.")
	fs.BoolVar(&o.cleanup, "cleanup", false, "Remove everything of kidoban from this node, and exit.")
	fs.BoolVar(&o.wait, "wait", false, "Wait for a signal after --cleanup: a pod of a DaemonSet must not end (config/cleanup).")
	fs.BoolVar(&o.version, "version", false, "Print the version, and exit.")
	o.log.BindFlags(fs)
}

func run(o options) error {
	if o.cleanup {
		return cleanup(o)
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := errors.Join(
		o.servers.Check(),
		startup.CheckFree("--api-bind-address", o.apiAddr),
	); err != nil {
		return err
	}
	log := ctrl.Log
	format, sinks, err := o.events.sinks(o.nodeName)
	if err != nil {
		return err
	}
	mode, err := node.ParseMode(o.mode)
	if err != nil {
		return fmt.Errorf("--enforcing-mode, or environment NETWORK_POLICY_ENFORCING_MODE: %w", err)
	}
	pushes := o.observer.isUsable(log)
	dpOptions := dataplane.Options{BPFFS: o.bpffs, Sizes: o.sizes, Guard: agent.GuardOf(mode, o.audit), Audit: o.audit, Log: log.WithName("dataplane"),
		Events: dataplane.EventMode(o.events.mode), EventRate: uint32(o.events.rate), EventBurst: uint32(o.events.burst),
		Records: pushes, CountHits: o.ruleSeries > 0, Names: o.names.options()}
	if err := startup.LimitMemory(o.memoryLimit, 2*dpOptions.MapMemory()); err != nil {
		return err
	}
	if err := dataplane.Check(dpOptions); err != nil {
		return err
	}

	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:         scheme,
		MapperProvider: mapper(),
		Cache:          agent.CacheOptions(o.nodeName),
		Metrics:        metricsserver.Options{BindAddress: "0"}, // startup.Servers has limits
	})
	if err != nil {
		return err
	}
	dp, err := dataplane.New(dpOptions)
	if err != nil {
		return err
	}
	defer func() { _ = dp.Close() }()
	api, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	var taint *agent.NodeTaint
	if o.removeTaint {
		taint = &agent.NodeTaint{Nodes: api.CoreV1().Nodes(), NodeName: o.nodeName}
	}
	a := agent.New(mgr.GetCache(), agent.NewKernel(dp, o.tunnelEnds), agent.Options{
		NamespaceCache:  agent.NamespaceCaches(mgr, o.namespace),
		SharedNamespace: o.namespace,
		Policies:        agent.NewPolicies(mgr.GetAPIReader()),
		Audit:           o.audit,
		Mode:            mode,
		GuardBoot:       o.guardBoot,
		Budget:          o.budget,

		GuaranteedNamespaces: o.guaranteed,

		RuleSeries:    o.ruleSeries,
		Taint:         taint,
		CheckInterval: o.checkInterval,
		NRISocket:     o.nriSocket,
		Stream:        o.stream(api.CoreV1(), log),
		HoldTimeout:   o.holdTimeout,
		Log:           log.WithName("agent"),
		Registry:      metrics.Registry,
	})
	events := flowlog.New(flowlog.Options{
		Node: o.nodeName, Source: dp, Interval: o.events.interval, Directory: a.Names(), Format: format, Sinks: sinks, Log: log.WithName("flowlog"), Registry: metrics.Registry,
	})
	ctx := ctrl.SetupSignalHandler()
	served, err := o.servers.Add(ctx, mgr, metrics.Registry, a.Live(), a.Ready())
	if err := errors.Join(err,
		mgr.Add(a),
		mgr.Add(events),
		addNPBackend(mgr, o.npSocket, a, log.WithName("npbackend")),
		addAPI(mgr, o.apiAddr, o.nodeName, a, events.Recent(), served, log.WithName("api")),
	); err != nil {
		return err
	}
	if pushes {
		report := func() (*agentapi.NodeReport, error) { return serve.Report(o.nodeName, a, events.Recent(), served) }
		if err := mgr.Add(o.pusher(dp, a.Names(), report, api.CoreV1(), log.WithName("observer"))); err != nil {
			return err
		}
	}
	log.Info("The agent starts", "version", version.String(), "node", o.nodeName)
	return mgr.Start(ctx)
}

// mapper knows the kinds that the agent reads, without a question to the API server, which may be away.
func mapper() func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	return startup.Mapper(
		[]schema.GroupVersionKind{
			corev1.SchemeGroupVersion.WithKind("Pod"),
			v1alpha1.GroupVersion.WithKind("PolicyEndpoint"),
			v1alpha1.GroupVersion.WithKind("PolicyEndpointSlice"),
			agent.NetworkPolicyKind,
		},
		append([]schema.GroupVersionKind{
			corev1.SchemeGroupVersion.WithKind("Namespace"),
			v1alpha1.GroupVersion.WithKind("ClusterPolicyEndpoint"),
		}, agent.ClusterNetworkPolicyKinds...))
}

// addNPBackend serves the VPC CNI's network policy backend on a socket, if there is one.
func addNPBackend(mgr ctrl.Manager, socket string, a *agent.Agent, log logr.Logger) error {
	if socket == "" {
		return nil
	}
	s := &npbackend.Server{Socket: socket, Enforce: a.EnforcePod, Log: log}
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		s.Run(ctx)
		return nil
	}))
}

// check rejects options that would only fail when the agent runs.
func (o *options) check() error {
	if o.nodeName == "" || o.namespace == "" {
		return errors.New("--node-name and --namespace must be set, or the environment variables NODE_NAME and POD_NAMESPACE")
	}
	if o.checkInterval < time.Second {
		return errors.New("--check-interval must be at least 1s")
	}
	if o.holdTimeout < 0 || o.holdTimeout > time.Second {
		return errors.New("--hold-timeout must be between 0 and 1s")
	}
	return o.names.check()
}

func cleanup(o options) error {
	if err := dataplane.Cleanup(o.bpffs); err != nil {
		return err
	}
	ctrl.Log.Info("Removed everything of kidoban from this node")
	if o.wait {
		<-ctrl.SetupSignalHandler().Done()
	}
	return nil
}
