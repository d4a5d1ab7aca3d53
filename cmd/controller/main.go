// Command controller resolves NetworkPolicies into PolicyEndpoints and PolicyEndpointSlices.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller"
	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/startup"
	"github.com/kidoban/kidoban/internal/version"
)

type options struct {
	namespace    string
	servers      startup.Servers
	stream       string
	memoryLimit  int64
	leaderElect  bool
	maxAddresses int
	budget       resolver.Budget
	batchWindow  time.Duration
	trusted      resolvers
	applications bool
	qps          float64
	burst        int
	version      bool
	log          zap.Options
}

func main() {
	o := options{log: startup.LogOptions()}
	o.bind(flag.CommandLine)
	if err := startup.ParseFlags(flag.CommandLine, os.Args[1:], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(2)
	}
	if o.version {
		fmt.Println(version.String())
		return
	}
	startup.SetLogger(&o.log)
	if err := run(o); err != nil {
		ctrl.Log.Error(err, "Stopping; agents keep the policies in force")
		os.Exit(1)
	}
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "Namespace of kidoban, for groups that cross namespaces and for the lease. Default: environment POD_NAMESPACE.")
	o.servers.Bind(fs, ":8080", ":8081")
	fs.StringVar(&o.stream, streamFlag[2:], ":8443", "Address on which agents connect, to announce the addresses of new pods and to report what is in force; 0: agents cannot connect.")
	fs.Int64Var(&o.memoryLimit, "memory-limit", 0, "Memory that the container may use, in bytes; 0: no limit. The Go runtime's soft limit is 10 % less. The Deployment sets it.")
	fs.BoolVar(&o.leaderElect, "leader-elect", false, "Write only while holding the lease. Needed with more than one replica.")
	fs.IntVar(&o.maxAddresses, "max-addresses-per-slice", 100, fmt.Sprintf("Maximum number of addresses in a PolicyEndpointSlice, from 1 to %d. With fewer, a change writes fewer bytes; with more, there are fewer objects. Existing slices with more addresses stay, and get no more.", v1alpha1.MaxAddressesPerSlice))
	fs.IntVar(&o.budget.Groups, "max-groups-per-namespace", 1000, "Maximum number of different groups of pods (peers) that the NetworkPolicies of one namespace may use. A policy that asks for more isolates its pods and allows nothing, or stays at the version before.")
	fs.IntVar(&o.budget.Addresses, "max-addresses-per-namespace", 1000000, "Maximum number of addresses of all groups of one namespace's policies, when a policy asks for another group. Groups of policies in force may grow beyond it.")
	fs.DurationVar(&o.batchWindow, "batch-window", 20*time.Millisecond, "Minimum time between two writes of one slice. The first change is written at once; changes during the window are written together at its end.")
	fs.Var(&o.trusted, "trusted-resolvers", "Addresses of DNS resolvers whose answers count for the domain names of policies, separated by commas, such as 169.254.20.10,fd00::10, beside those of the cluster's DNS Service.")
	fs.BoolVar(&o.applications, "application-network-policies", false, "Enforce ApplicationNetworkPolicies (networking.k8s.aws), too, where the cluster has the kind. The controller only reads them.")
	fs.Float64Var(&o.qps, "kube-api-qps", 800, "Maximum rate of requests to the API server per second, without those for the lease.")
	fs.IntVar(&o.burst, "kube-api-burst", 1600, "Maximum number of requests to the API server in a burst.")
	fs.BoolVar(&o.version, "version", false, "Print the version and exit.")
	o.log.BindFlags(fs)
}

const streamFlag = "--stream-bind-address"

func run(o options) error {
	if err := o.check(); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	config.DisableCompression = true // the API server would compress each event of each watch
	lease := rest.CopyConfig(config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(float32(o.qps), o.burst) // one for all kinds: QPS and Burst would be per kind
	dropped := controller.WatchDroppedFields(config, ctrl.Log.WithName("crds"))
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), networkingv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		MapperProvider: startup.Mapper(
			[]schema.GroupVersionKind{
				corev1.SchemeGroupVersion.WithKind("Pod"),
				corev1.SchemeGroupVersion.WithKind("Service"),
				discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
				networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
				v1alpha1.GroupVersion.WithKind("PolicyEndpoint"),
				v1alpha1.GroupVersion.WithKind("PolicyEndpointSlice"),
			},
			[]schema.GroupVersionKind{
				corev1.SchemeGroupVersion.WithKind("Namespace"),
				corev1.SchemeGroupVersion.WithKind("Node"),
				v1alpha1.GroupVersion.WithKind("ClusterPolicyEndpoint"),
			}),
		Cache:                         controller.CacheOptions(),
		Client:                        controller.ClientOptions(),
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // startup.Servers has limits
		LeaderElection:                o.leaderElect,
		LeaderElectionConfig:          lease,
		LeaderElectionID:              controller.Name,
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true, // the process exits when it loses the lease
	})
	if err != nil {
		return err
	}
	ctx := ctrl.SetupSignalHandler()
	progress := &controller.Progress{}
	agents, err := o.agents(mgr)
	if err != nil {
		return err
	}
	if err := controller.Add(mgr, controller.Options{
		Resolver:    resolver.Options{SharedNamespace: o.namespace, MaxAddresses: o.maxAddresses, Budget: o.budget},
		BatchWindow: o.batchWindow,
		Progress:    progress,
		Stream:      agents,

		DroppedFields:    dropped,
		TrustedResolvers: o.trusted,

		ApplicationPolicies: o.applications,
	}); err != nil {
		return err
	}
	synced, err := controller.Synced(ctx, mgr.GetCache())
	if err != nil {
		return err
	}
	ready := map[string]healthz.Checker{"synced": func(*http.Request) error { return synced() }}
	if _, err := o.servers.Add(ctx, mgr, metrics.Registry, progress.Live(), ready); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", version.String(), "namespace", o.namespace)
	return mgr.Start(ctx)
}

// agents returns where agents connect; nil: nowhere.
func (o *options) agents(mgr ctrl.Manager) (*controller.StreamOptions, error) {
	if o.stream == "0" || o.stream == "" {
		return nil, nil
	}
	client, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	return &controller.StreamOptions{Flag: streamFlag, Address: o.stream, Client: client}, nil
}

// check validates the flags before anything starts.
func (o *options) check() error {
	if o.namespace == "" {
		return errors.New("set --namespace or the environment variable POD_NAMESPACE")
	}
	if o.maxAddresses < 1 || o.maxAddresses > v1alpha1.MaxAddressesPerSlice {
		return fmt.Errorf("--max-addresses-per-slice=%d is out of range: 1 to %d", o.maxAddresses, v1alpha1.MaxAddressesPerSlice)
	}
	if o.budget.Groups < 1 || o.budget.Addresses < 1 {
		return fmt.Errorf("--max-groups-per-namespace=%d and --max-addresses-per-namespace=%d must be positive", o.budget.Groups, o.budget.Addresses)
	}
	if o.qps <= 0 || o.burst < 1 {
		return fmt.Errorf("--kube-api-qps=%v and --kube-api-burst=%d must be positive", o.qps, o.burst)
	}
	return errors.Join(startup.LimitMemory(o.memoryLimit, 0), o.servers.Check(), startup.CheckFree(streamFlag, o.stream))
}
