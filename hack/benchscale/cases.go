package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// clusterCases are the cases on a real API server.
func clusterCases(ctx context.Context, o options, beside []churned, out *report) (err error) {
	l := newLoad(o.cluster, o.clusterPolicies, o.seed)
	c, err := startCluster(l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		cancel(nil) // the API server waits for open watches
		err = errors.Join(err, c.close())
	}()
	out.logf("cluster: creating %s", o.words(o.cluster))
	if err := c.fill(ctx); err != nil {
		return err
	}
	shared, err := measureSharing(c.policies, c.pods)
	if err != nil {
		return err
	}
	want := fromNothing(newLoad(o.cluster, o.clusterPolicies, o.seed), c.pods).Stats()
	out.note("On the API server: %s; a pod is a peer of %.1f policies on average, the most used selector is used by %s; the selectors come to %s groups with %s addresses in %s slices.",
		o.words(o.cluster), shared.policiesPerPod, thousands(shared.mostUsed), thousands(want.Groups), thousands(want.Addresses), thousands(want.Slices))
	floor, err := c.caseFloor(ctx, o, out)
	if err != nil {
		return err
	}
	observer := newObserver()
	if err := observer.watch(ctx, c.clients.RESTClient(), cancel); err != nil {
		return err
	}
	controller, err := c.caseFromNothing(ctx, o, observer, want.Policies, out)
	if err != nil {
		return err
	}
	defer func() { _ = controller.cmd.Process.Kill() }()
	if err := c.caseChurn(ctx, o, controller, observer, []yardstick{{"the floor's", floor}, {"the EndpointSlices'", beside}}, out); err != nil {
		return err
	}
	if err := c.caseShare(ctx, o, observer, out); err != nil {
		return err
	}
	if err := c.caseStreams(ctx, o, observer, agentWatcher{}, out); err != nil {
		return err
	}
	if _, err := controller.end(); err != nil {
		return err
	}
	return c.caseRestart(ctx, o, want.Policies, out)
}

// caseFloor measures the churn with the floor's controller.
func (c *cluster) caseFloor(ctx context.Context, o options, out *report) ([]churned, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &floorObserver{waiting: map[netip.Addr]floorChange{}}
	if err := t.prepare(ctx, c); err != nil {
		return nil, err
	}
	if err := t.watch(ctx, c); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := startProbed(self, "floor", "--kubeconfig="+c.kubeconfig)
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.cmd.Process.Kill() }()
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	var all []churned
	for _, rate := range o.rates {
		out.logf("cluster: floor, %d changes/s", rate)
		done, err := c.churn(ctx, t, rate, o.length)
		if err != nil {
			return nil, err
		}
		out.note("CPU of the floor's %s changes at %d/s: %s.", thousands(done.changes), rate, done.cpu)
		if done.lost > 0 {
			return nil, fmt.Errorf("the floor lost %d changes", done.lost)
		}
		out.add(row{fmt.Sprintf("floor, %d changes/s", rate), fmt.Sprintf("p50 of %s (p99 %s)", thousands(len(done.took)), short(done.took.percentile(99))),
			-1, short(done.took.percentile(50)), "–"})
		all = append(all, done)
	}
	cpu, err := p.end()
	out.note("The floor is a controller with one informer that writes one small patch for each pod event, with as many workers, in the same run on the same API server. It used %s of CPU.", short(cpu))
	return all, err
}

func (c *cluster) startController(o options) (*process, error) {
	args := []string{"--kubeconfig=" + c.kubeconfig, "--namespace=" + sharedNamespace, "--leader-elect"}
	if o.maxAddresses > 0 {
		args = append(args, fmt.Sprintf("--max-addresses-per-slice=%d", o.maxAddresses))
	}
	return startProbed(o.controller, args...)
}

// caseFromNothing starts the controller in a cluster without any object of its own.
func (c *cluster) caseFromNothing(ctx context.Context, o options, seen *observer, policies int, out *report) (*process, error) {
	out.logf("cluster: the controller starts")
	cpu := cpuNow()
	p, err := c.startController(o)
	if err != nil {
		return nil, err
	}
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	synced := time.Now()
	var last progress
	if err := poll(ctx, 5*time.Minute, 100*time.Millisecond, func() error {
		last = seen.progress()
		if last.endpoints != policies || last.reported != policies || time.Since(last.spec) < 2*time.Second {
			return fmt.Errorf("%d of %d PolicyEndpoints, %d with their status", last.endpoints, policies, last.reported)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("%w; the controller's log ends with: %s", err, p.log.last())
	}
	if err := c.expectRight(ctx); err != nil {
		return nil, err
	}
	out.note("CPU from the controller's start until every object was right and checked: %s.", cpuNow().since(cpu))
	took, statusTook := last.spec.Sub(synced), last.status.Sub(synced)
	out.add(row{"on the API server", fmt.Sprintf("from nothing, until the last of %s PolicyEndpoints and %s slices is right (the watches were in sync after %s)",
		thousands(last.endpoints), thousands(last.slices), short(synced.Sub(p.began))), ratioOf(took, 10*time.Second), short(took), "10 s"})
	out.add(row{"on the API server", "… and until the status of the last PolicyEndpoint is right", ratioOf(statusTook, 10*time.Second), short(statusTook), "10 s"})
	return p, nil
}

// yardstick is a controller that was given the same changes in the same run, at each rate. The first one is
// the floor.
type yardstick struct {
	whose string
	did   []churned
}

// ratios compares a time with the yardsticks' at the i-th rate.
func ratios(took time.Duration, i int, percentile float64, yardsticks []yardstick) string {
	var out []string
	for _, p := range yardsticks {
		if i < len(p.did) {
			out = append(out, fmt.Sprintf("%.2g × %s", took.Seconds()/p.did[i].took.percentile(percentile).Seconds(), p.whose))
		}
	}
	return strings.Join(out, ", ")
}

// caseChurn changes pods at each rate.
func (c *cluster) caseChurn(ctx context.Context, o options, p *process, seen *observer, yardsticks []yardstick, out *report) error {
	lines, begun := p.log.count(), time.Now()
	for i, rate := range o.rates {
		out.logf("cluster: %d changes/s", rate)
		before, err := c.writes(ctx)
		if err != nil {
			return err
		}
		profiled := c.profile(ctx, o)
		done, err := c.churn(ctx, seen, rate, o.length)
		if err := errors.Join(err, profiled()); err != nil {
			return err
		}
		out.note("CPU of %s changes at %d/s: %s.", thousands(done.changes), rate, done.cpu)
		after, err := c.writes(ctx)
		if err != nil {
			return err
		}
		if done.lost > 0 {
			return fmt.Errorf("%d changes are lost at %d/s; the controller's log ends with: %s", done.lost, rate, p.log.last())
		}
		if err := c.expectRight(ctx); err != nil {
			return fmt.Errorf("after %d changes/s: %w", rate, err)
		}
		where := fmt.Sprintf("%d changes/s", rate)
		p50, p99 := done.took.percentile(50), done.took.percentile(99)
		out.add(row{where, fmt.Sprintf("p50 of %s until every object is right (%s)", thousands(len(done.took)), ratios(p50, i, 50, yardsticks)), ratioOf(p50, 30*time.Millisecond), short(p50), "30 ms"})
		out.add(row{where, fmt.Sprintf("p99 (%s; longest %s)", ratios(p99, i, 99, yardsticks), short(done.took.percentile(100))), ratioOf(p99, 250*time.Millisecond), short(p99), "250 ms"})
		floor := &yardsticks[0].did[i]
		cpu := done.cpu.controllerAndServer().Seconds() / floor.cpu.controllerAndServer().Seconds()
		tail := p99.Seconds() / floor.took.percentile(99).Seconds()
		out.add(row{where, fmt.Sprintf("CPU of controller and API server ÷ the floor's (%.1f s ÷ %.1f s)",
			done.cpu.controllerAndServer().Seconds(), floor.cpu.controllerAndServer().Seconds()), cpu / 1.3, fmt.Sprintf("%.2f ×", cpu), "1.3 ×"})
		out.add(row{where, "p99 ÷ the floor's", tail / 7, fmt.Sprintf("%.1f ×", tail), "7 ×"})
		perChange := float64(after-before) / float64(done.changes)
		out.add(row{where, "writes per change", perChange / 2.5, fmt.Sprintf("%.2f", perChange), "2.5"})
		out.add(row{where, fmt.Sprintf("lost of %s changes of %s objects (%s writes)", thousands(done.changes), thousands(done.objects), thousands(after-before)), float64(done.lost), thousands(done.lost), "0"})
	}
	n := p.log.count() - lines
	out.add(row{"on the API server", fmt.Sprintf("log lines in those %s (%d since the start)", short(time.Since(begun)), p.log.count()), float64(n) / 10, thousands(n), "10"})
	return nil
}

// caseRestart starts the controller again while all its objects are right.
func (c *cluster) caseRestart(ctx context.Context, o options, policies int, out *report) error {
	out.logf("cluster: the controller starts again")
	before, err := c.writes(ctx)
	if err != nil {
		return err
	}
	p, err := c.startController(o)
	if err != nil {
		return err
	}
	defer func() { _ = p.cmd.Process.Kill() }()
	if err := p.ready(ctx); err != nil {
		return err
	}
	ready := time.Since(p.began)
	if err := poll(ctx, 2*time.Minute, 50*time.Millisecond, func() error { return p.idle(ctx, policies) }); err != nil {
		return err
	}
	compared := time.Since(p.began)
	cpu, err := p.end()
	if err != nil {
		return err
	}
	after, err := c.writes(ctx)
	if err != nil {
		return err
	}
	out.add(row{"restart", fmt.Sprintf("until ready (%s until it had compared every object; %s of CPU)", short(compared), short(cpu)), ratioOf(ready, 15*time.Second), short(ready), "15 s"})
	out.add(row{"restart", "writes", float64(after - before), thousands(after - before), "0"})
	return c.expectRight(ctx)
}

// idle fails until the controller has resolved all policies and compared all objects.
func (p *process) idle(ctx context.Context, policies int) error {
	for _, m := range []struct {
		name string
		want float64
	}{{"kidoban_controller_policies", float64(policies)}, {"workqueue_depth", 0}, {"controller_runtime_active_workers", 0}} {
		got, err := p.value(ctx, m.name)
		if err != nil {
			return err
		}
		if got != m.want {
			return fmt.Errorf("%s is %v, not %v", m.name, got, m.want)
		}
	}
	return nil
}

// writes is the number of requests so far that change what the controller writes, as the API server counts
// them.
func (c *cluster) writes(ctx context.Context) (int, error) {
	stream, err := c.clients.RESTClient().Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = stream.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(stream)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, m := range families["apiserver_request_total"].GetMetric() {
		ours, changing := false, true
		for _, l := range m.GetLabel() {
			switch l.GetName() {
			case "resource":
				ours = slices.Contains([]string{"policyendpoints", "clusterpolicyendpoints", "policyendpointslices", "clusternetworkpolicies"}, l.GetValue())
			case "verb":
				changing = l.GetValue() != "GET" && l.GetValue() != "LIST" && l.GetValue() != "WATCH"
			}
		}
		if ours && changing {
			sum += m.GetCounter().GetValue()
		}
	}
	return int(sum), nil
}

// profile takes a CPU profile of the API server, if the options name a file for it, until the returned
// function is called.
func (c *cluster) profile(ctx context.Context, o options) (end func() error) {
	if o.profile == "" {
		return func() error { return nil }
	}
	done := make(chan error)
	go func() {
		data, err := c.clients.RESTClient().Get().AbsPath("/debug/pprof/profile").Param("seconds", fmt.Sprint(int(o.length.Seconds()))).DoRaw(ctx)
		if err == nil {
			err = os.WriteFile(o.profile, data, 0o644)
		}
		done <- err
	}()
	return func() error { return <-done }
}
