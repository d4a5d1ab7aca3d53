package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/podevents"
	"github.com/kidoban/kidoban/internal/observer/workloadmetrics"
)

// followerFlags say what else is made of flows as they arrive. docs/observer.md describes them.
type followerFlags struct {
	podEvents      bool
	workloadSeries int
}

func (o *followerFlags) bind(fs *flag.FlagSet) {
	fs.BoolVar(&o.podEvents, "pod-events", false, "Create Kubernetes Events at pods whose connections are denied, at most one per second. The component observer-pod-events sets it, and gives the observer the right to create Events in all namespaces.")
	fs.IntVar(&o.workloadSeries, "workload-series", 0, "Maximum number of series of the metric kidoban_observer_workload_connections_total, one for each pair of workloads and verdict; 0: no such metric.")
}

func (o *followerFlags) check() error {
	if o.workloadSeries < 0 {
		return fmt.Errorf("--workload-series=%d must not be negative", o.workloadSeries)
	}
	return nil
}

// runnables returns what the flags ask for. host names this replica.
func (o *followerFlags) runnables(f *flows.Flows, host string, events coreclient.EventsGetter, registry prometheus.Registerer, log logr.Logger) (out []manager.Runnable, err error) {
	if o.podEvents {
		e := podevents.New(podevents.Options{Events: events, Registry: registry, Log: log.WithName("events"), Host: host})
		out = append(out, following(f, func(ctx context.Context, a flows.Arrival) { e.Add(ctx, a.Flow, time.Now()) }))
	}
	if o.workloadSeries > 0 {
		m := workloadmetrics.New(o.workloadSeries)
		if err := registry.Register(m); err != nil {
			return nil, err
		}
		out = append(out, following(f, func(_ context.Context, a flows.Arrival) { m.Add(a.Flow, time.Now()) }))
	}
	return out, nil
}

// following calls a function for each flow as it arrives.
func following(f *flows.Flows, do func(context.Context, flows.Arrival)) manager.Runnable {
	return manager.RunnableFunc(func(ctx context.Context) error {
		for a := range f.Follow(ctx, access.Everything(), flows.Filter{}) {
			if a.Flow != nil {
				do(ctx, a)
			}
		}
		return nil
	})
}
