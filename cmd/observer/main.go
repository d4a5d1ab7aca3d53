// Command observer keeps the flows that agents push, and answers questions about them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/internal/certificates"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/directory"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observer/onward"
	"github.com/kidoban/kidoban/internal/observer/serve"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observer/watch"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/startup"
	"github.com/kidoban/kidoban/internal/streamserver"
	"github.com/kidoban/kidoban/internal/ui"
	"github.com/kidoban/kidoban/internal/version"
)

type options struct {
	namespace   string
	servers     startup.Servers
	flows, api  string
	uiURL       string
	store       string
	limits      store.Limits
	memoryLimit int64
	onward      onwardFlags
	followers   followerFlags
	version     bool
	log         zap.Options
}

const (
	flowsFlag = "--flows-bind-address"
	apiFlag   = "--api-bind-address"
	// certificateSecret is the Secret with the certificates and keys, which all replicas use.
	certificateSecret = "kidoban-observer-certificates"
	// patience is how long a push waits for the names of new pods.
	patience = 3 * time.Second
)

func main() {
	o := options{log: startup.LogOptions()}
	o.bind(flag.CommandLine)
	if err := startup.ParseFlags(flag.CommandLine, os.Args[1:], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "observer:", err)
		os.Exit(2)
	}
	if o.version {
		fmt.Println(version.String())
		return
	}
	startup.SetLogger(&o.log)
	if err := run(o); err != nil {
		ctrl.Log.Error(err, "Stopping; policies stay in force, and agents keep the records that they have room for")
		os.Exit(1)
	}
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "Namespace of kidoban. Default: environment POD_NAMESPACE.")
	o.servers.Bind(fs, ":8080", ":8081")
	fs.StringVar(&o.flows, flowsFlag[2:], ":8443", "Address on which agents push flow records.")
	fs.StringVar(&o.api, apiFlag[2:], fmt.Sprint(":", observerapi.Port), "Address of the API for readers, and of Hubble's Observer API.")
	fs.StringVar(&o.uiURL, uiFlag[2:], "", "Address at which browsers open the map, such as https://tools.example.com/kidoban/, behind an Ingress or a Gateway; it is served below this path on the API's port, to readers with a token. Empty: it is not served.")
	fs.StringVar(&o.store, "store", "/var/lib/kidoban-observer", "Where flows are kept: a directory, or a PostgreSQL database (postgres://USER:PASSWORD@HOST/DATABASE), which several replicas can share. A database's URL is best set as the environment variable KIDOBAN_STORE, from a Secret.")
	fs.DurationVar(&o.limits.Age, "retention", 7*24*time.Hour, "Age of the oldest flows.")
	fs.DurationVar(&o.limits.ExactAge, "exact-retention", 24*time.Hour, "Age of the oldest flows with pods, addresses and a resolution of 10 seconds. Older ones are kept by workload and hour.")
	fs.Int64Var(&o.limits.Bytes, "max-bytes", 4<<30, "Size of the store. Beyond it the oldest flows are rolled up, and then deleted.")
	fs.IntVar(&o.limits.Addresses, "max-addresses-per-hour", 10_000, "Maximum number of different addresses outside the cluster that are kept in an hour. Flows of others are kept without the address.")
	fs.Int64Var(&o.memoryLimit, "memory-limit", 0, "Memory that the container may use, in bytes; 0: no limit. The Go runtime's soft limit is 10 % less. The Deployment sets it.")
	o.onward.bind(fs)
	o.followers.bind(fs)
	fs.BoolVar(&o.version, "version", false, "Print the version and exit.")
	o.log.BindFlags(fs)
}

// check validates the flags before anything starts.
func (o *options) check() error {
	if o.namespace == "" {
		return errors.New("set --namespace or the environment variable POD_NAMESPACE")
	}
	if o.store == "" {
		return errors.New("set --store to a directory or the URL of a database")
	}
	if o.limits.Bytes < 64<<20 {
		return fmt.Errorf("--max-bytes=%d is too small: at least %d", o.limits.Bytes, 64<<20)
	}
	if o.limits.Age < time.Hour || o.limits.ExactAge < time.Hour {
		return fmt.Errorf("--retention=%s and --exact-retention=%s must be at least 1h", o.limits.Age, o.limits.ExactAge)
	}
	if o.uiURL != "" {
		if _, err := ui.ParseURL(o.uiURL); err != nil {
			return fmt.Errorf("%s: %w", uiFlag, err)
		}
	}
	if o.limits.Addresses < 1 {
		return fmt.Errorf("--max-addresses-per-hour=%d must be positive", o.limits.Addresses)
	}
	return errors.Join(startup.LimitMemory(o.memoryLimit, 0), o.followers.check(), o.servers.Check(), startup.CheckFree(flowsFlag, o.flows), startup.CheckFree(apiFlag, o.api))
}

func run(o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	config.DisableCompression = true // the API server would compress each event of each watch
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		MapperProvider: startup.Mapper(
			[]schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("Service")},
			[]schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Namespace"), corev1.SchemeGroupVersion.WithKind("Node")}),
		Cache:   watch.CacheOptions(),
		Metrics: metricsserver.Options{BindAddress: "0"}, // startup.Servers has limits
	})
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	sinks, err := o.onward.sinks(host)
	if err != nil {
		return err
	}
	ctx := ctrl.SetupSignalHandler()
	kept, err := o.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	d := directory.New()
	synced, err := watch.Add(ctx, mgr.GetCache(), d)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	always := make(chan struct{}) // there is no leader
	close(always)
	keeper := &certificates.Keeper{
		Issuer: certificates.Issuer{ServerName: flow.ServerName, Lifetimes: certificates.Usual}, Secret: certificateSecret, ConfigMap: flow.CAConfigMap,
		Secrets: client.CoreV1().Secrets(o.namespace), ConfigMaps: client.CoreV1().ConfigMaps(o.namespace), Leading: always, Log: ctrl.Log.WithName("certificates"),
	}
	var server *ingest.Server
	f := flows.New(flows.Options{
		Store: kept, Nodes: d.Nodes, Agents: func() []ingest.Agent { return server.Agents() }, CertificateExpires: keeper.Expires, Version: version.String(),
	})
	stored, follow := live(kept, f)
	if server, err = ingest.New(ingest.Options{
		Flag: flowsFlag, Address: o.flows, Certificate: keeper.Certificate, Expires: keeper.Expires, Directory: d, Store: kept, Stored: stored, Patience: patience,
		Authenticator: &streamserver.Authenticator{Audience: flow.Audience, Namespace: o.namespace, Reviews: client.AuthenticationV1().TokenReviews(), Cluster: ingest.Cluster{Directory: d, Namespace: o.namespace}},
		Registry:      metrics.Registry, Log: ctrl.Log.WithName("flows"),
	}); err != nil {
		return err
	}
	guard := &access.Guard{Audience: flow.Audience, Tokens: client.AuthenticationV1().TokenReviews(), Access: client.AuthorizationV1().SubjectAccessReviews()}
	serving := serve.Options{
		Flag: apiFlag, Address: o.api, Certificate: keeper.Certificate, Flows: f, Agents: server, Version: version.String(), Log: ctrl.Log.WithName("api"), Guard: guard,
	}
	if err := o.servePage(&serving, config); err != nil {
		return err
	}
	api, err := serve.New(serving)
	if err != nil {
		return err
	}
	ready := map[string]healthz.Checker{"synced": func(*http.Request) error { return synced() }, "certificate": func(*http.Request) error {
		_, err := keeper.Certificate(nil)
		return err
	}}
	if _, err := o.servers.Add(ctx, mgr, metrics.Registry, map[string]healthz.Checker{"ping": healthz.Ping}, ready); err != nil {
		return err
	}
	maintain := manager.RunnableFunc(func(ctx context.Context) error { return maintain(ctx, kept, d) })
	show := manager.RunnableFunc(func(ctx context.Context) error { f.Run(ctx); return nil })
	runnables, err := o.followers.runnables(f, host, client.CoreV1(), metrics.Registry, ctrl.Log)
	if err != nil {
		return err
	}
	runnables = append(runnables, keeper, server, api, maintain, show, follow)
	if len(sinks) > 0 {
		sending := onward.New(onward.Options{Sinks: sinks, Log: ctrl.Log.WithName("onward"), Registry: metrics.Registry})
		runnables = append(runnables, manager.RunnableFunc(func(ctx context.Context) error { return sendOn(ctx, f, sending) }))
	}
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	ctrl.Log.Info("Starting", "version", version.String(), "namespace", o.namespace, "store", o.storeName())
	return mgr.Start(ctx)
}

// maintainPeriod is how often the store and the directory forget what is old.
const maintainPeriod = time.Minute

func maintain(ctx context.Context, kept store.Store, d *directory.Directory) error {
	tick := time.NewTicker(maintainPeriod)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			d.Forget(now)
			err := kept.Retain(ctx, now)
			if err != nil && !failing && ctx.Err() == nil {
				ctrl.Log.Error(err, "Cannot delete old flows")
			}
			failing = err != nil
		}
	}
}
