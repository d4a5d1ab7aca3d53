package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/compiler"
)

// A process of agents runs many of them: the agent itself, with its watches, caches and node core, above a
// fleetKernel. Each has its own connection to the API server.

// agentsState is what a process of agents says about itself.
type agentsState struct {
	Ready int          // agents whose policies are in force
	Bytes map[part]int // of responses, that all have received
	Watch int          // requests for a watch, since the start
	List  int          // requests for a list, since the start
}

// agents are the agents of one process.
type agents struct {
	kernels []*fleetKernel
	live    []*agent.Agent
	meter   *meter
	watches atomic.Int64
	lists   atomic.Int64

	mu       sync.Mutex
	arrivals chan arrival // nil: nobody reads them
}

// runAgents is a process of agents.
func runAgents(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("agents", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "Of the API server.")
	nodes := flags.String("nodes", "", "The nodes' names, separated by commas.")
	listen := flags.String("listen", "", "Where /state and /arrivals are.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.DisableCompression = true // as in the other cases: bytes are counted uncompressed
	a := &agents{meter: newMeter()}
	ended := make(chan error, 1)
	for i, name := range strings.Split(*nodes, ",") {
		if err := a.start(ctx, i, name, config, ended); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/state", a.serveState)
	mux.HandleFunc("/arrivals", a.serveArrivals)
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: time.Second}
	go func() { ended <- server.ListenAndServe() }()
	select {
	case <-ctx.Done():
		return server.Close()
	case err := <-ended:
		return err
	}
}

// start starts one agent.
func (a *agents) start(ctx context.Context, i int, nodeName string, config *rest.Config, ended chan<- error) error {
	config = a.meter.config(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &requestCounter{a, next} })
	config.Dial = (&net.Dialer{Timeout: 30 * time.Second}).DialContext // of its own, so that it has a connection of its own
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Cache: agent.CacheOptions(nodeName), Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	kernel := &fleetKernel{classes: map[netip.Addr]compiler.ClassID{}}
	kernel.changed = func(at arrival) { at.Agent = i; a.report(at) }
	one := agent.New(mgr.GetCache(), kernel, agent.Options{
		NamespaceCache: agent.NamespaceCaches(mgr, sharedNamespace), SharedNamespace: sharedNamespace,
		Policies: agent.NewPolicies(mgr.GetAPIReader()), Budget: compiler.DefaultBudget, GuaranteedNamespaces: compiler.DefaultNamespaces,
		CheckInterval: time.Minute, Log: logr.Discard(), Registry: prometheus.NewRegistry(),
	})
	if err := mgr.Add(one); err != nil {
		return err
	}
	a.kernels, a.live = append(a.kernels, kernel), append(a.live, one)
	go func() {
		if err := mgr.Start(ctx); err != nil {
			ended <- fmt.Errorf("the agent of %s: %w", nodeName, err)
		}
	}()
	return nil
}

// report passes an arrival on, if somebody reads them.
func (a *agents) report(at arrival) {
	a.mu.Lock()
	to := a.arrivals
	a.mu.Unlock()
	if to != nil {
		to <- at
	}
}

func (a *agents) serveState(w http.ResponseWriter, _ *http.Request) {
	s := agentsState{Watch: int(a.watches.Load()), List: int(a.lists.Load())}
	for _, one := range a.live {
		if isReady(one) {
			s.Ready++
		}
	}
	a.meter.mu.Lock()
	s.Bytes = maps.Clone(a.meter.bytes)
	a.meter.mu.Unlock()
	_ = json.NewEncoder(w).Encode(s)
}

// isReady reports whether an agent's policies are in force.
func isReady(a *agent.Agent) bool {
	for _, check := range a.Ready() {
		if check(nil) != nil {
			return false
		}
	}
	return true
}

// serveArrivals writes what each kernel has, and then every change, a line each, until the reader goes.
func (a *agents) serveArrivals(w http.ResponseWriter, r *http.Request) {
	arrivals := make(chan arrival, 1<<16)
	a.mu.Lock()
	a.arrivals = arrivals
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.arrivals = nil
		a.mu.Unlock()
		for { // a kernel may wait
			select {
			case <-arrivals:
			case <-time.After(time.Second):
				return
			}
		}
	}()
	out := bufio.NewWriter(w)
	flush := func() bool {
		err := out.Flush()
		w.(http.Flusher).Flush()
		return err == nil
	}
	for i, k := range a.kernels {
		k.addresses(func(addr netip.Addr) { writeArrival(out, arrival{Agent: i, Address: addr, Present: true}) })
	}
	_, _ = out.WriteString("\n") // the end of what there is
	for flush() {
		select {
		case <-r.Context().Done():
			return
		case at := <-arrivals:
			writeArrival(out, at)
			for range len(arrivals) {
				writeArrival(out, <-arrivals)
			}
		}
	}
}

func writeArrival(out *bufio.Writer, a arrival) {
	_, _ = fmt.Fprintf(out, "%d %s %t %d\n", a.Agent, a.Address, a.Present, a.At)
}

// parseArrival reads a line of writeArrival.
func parseArrival(line string) (arrival, error) {
	var a arrival
	var address string
	if _, err := fmt.Sscanf(line, "%d %s %t %d", &a.Agent, &address, &a.Present, &a.At); err != nil {
		return a, fmt.Errorf("arrival %q: %w", line, err)
	}
	var err error
	a.Address, err = netip.ParseAddr(address)
	return a, err
}

// requestCounter counts an agent's requests for lists and watches.
type requestCounter struct {
	*agents
	next http.RoundTripper
}

func (c *requestCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet {
		if r.URL.Query().Get("watch") != "" {
			c.watches.Add(1)
		} else {
			c.lists.Add(1)
		}
	}
	return c.next.RoundTrip(r)
}
