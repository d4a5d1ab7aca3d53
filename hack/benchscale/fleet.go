package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The fleet is many agents of one cluster, in few processes, beside as many clients with kube-proxy's watches.

// fleetCases are the cases of a fleet on a real API server.
func fleetCases(ctx context.Context, o options, out *report) (err error) {
	l := newLoad(o.cluster, o.clusterPolicies, o.seed)
	l.perNode = o.perNode
	c, err := startCluster(l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		cancel(nil) // the API server waits for open watches
		err = errors.Join(err, c.close())
	}()
	nodes := c.nodes()
	if len(nodes) < o.agents {
		return fmt.Errorf("--agents=%d: the cluster has %d nodes", o.agents, len(nodes))
	}
	nodes = nodes[:o.agents]
	out.logf("fleet: creating %s on %d nodes", o.words(o.cluster), len(c.nodes()))
	if err := c.fill(ctx); err != nil {
		return err
	}
	if err := c.createNodes(ctx); err != nil {
		return err
	}
	services, err := c.startServices(ctx, []string{"app"})
	if err != nil {
		return err
	}
	defer func() { _ = services.process.cmd.Process.Kill() }()
	controller, err := c.startController(o)
	if err != nil {
		return err
	}
	defer func() { _ = controller.cmd.Process.Kill() }()
	if err := controller.ready(ctx); err != nil {
		return err
	}
	if err := poll(ctx, 5*time.Minute, time.Second, func() error { return c.expectRight(ctx) }); err != nil {
		return err
	}
	other, err := c.newOtherClient()
	if err != nil {
		return err
	}
	idle := other.measure(ctx, func() { wait(ctx, 10*time.Second) })
	proxies, err := c.caseProxies(ctx, o, out)
	if err != nil {
		return err
	}
	f, tracker, err := c.caseFleetStart(ctx, nodes, proxies.perWatcher, out)
	if err != nil {
		return err
	}
	if err := c.caseFleetChanges(ctx, o, f, tracker, o.rates[0], &proxies.counter, out); err != nil {
		f.kill()
		return err
	}
	f.kill()
	if err := c.caseFleetRestart(ctx, nodes, other, idle, out); err != nil {
		return err
	}
	few := nodes[:min(len(nodes), max(1, len(nodes)/10))]
	if f, err = c.startFleet(few); err != nil {
		return err
	}
	defer f.kill()
	if err := f.ready(ctx, len(few)); err != nil {
		return err
	}
	tracker, err = c.trackFleet(ctx, f)
	if err != nil {
		return err
	}
	return c.caseFleetChanges(ctx, o, f, tracker, o.rates[len(o.rates)-1], &proxies.counter, out)
}

// nodes are the nodes' names, in a fixed order that takes the namespaces' blocks in turn.
func (c *cluster) nodes() []string {
	seen := map[string]bool{}
	var out []string
	for j := range nodesPerBlock {
		for ns := 0; ns < c.namespaces; ns += c.perNode {
			if n := c.nodeName(ns, j); !seen[n] {
				seen[n] = true
				out = append(out, n)
			}
		}
	}
	return out
}

// createNodes creates the Nodes, which kube-proxy watches.
func (c *cluster) createNodes(ctx context.Context) error {
	names := c.nodes()
	return inParallel(ctx, len(names), func(ctx context.Context, i int) error {
		_, err := c.clients.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: names[i]}}, metav1.CreateOptions{})
		return err
	})
}

// proxies are clients with kube-proxy's watches.
type proxies struct {
	counter    counter
	perWatcher float64 // memory of the API server for each
}

// proxyStreams are the watches of kube-proxy on a node.
func proxyStreams(node string) []stream {
	return []stream{
		{"/apis/discovery.k8s.io/v1/endpointslices", nil, protobuf},
		{"/api/v1/services", nil, protobuf},
		{"/api/v1/nodes", map[string]string{"fieldSelector": "metadata.name=" + node}, protobuf},
	}
}

// caseProxies starts as many clients with kube-proxy's watches as there are agents, each on a connection of its own.
func (c *cluster) caseProxies(ctx context.Context, o options, out *report) (*proxies, error) {
	p := &proxies{}
	var at []sample
	nodes := c.nodes()
	for n := 0; ; {
		used, err := c.serverMemory(ctx)
		if err != nil {
			return nil, err
		}
		at = append(at, sample{float64(n), float64(used)})
		if n == o.agents {
			break
		}
		more := nodes[n:min(n+agentsPerProcess, o.agents)]
		out.logf("fleet: %d more clients with kube-proxy's watches", len(more))
		if err := inParallel(ctx, len(more), func(_ context.Context, i int) error {
			config := rest.CopyConfig(c.config)
			config.Dial = (&net.Dialer{Timeout: 30 * time.Second}).DialContext // makes it a connection of its own
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			for _, s := range proxyStreams(more[i]) {
				if err := p.counter.follow(ctx, client.RESTClient(), s); err != nil { // the group's context ends with the group
					return err
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
		if err := waitStable(ctx, func() int { return int(p.counter.bytes.Load()) }); err != nil {
			return nil, err
		}
		n += len(more)
	}
	perWatcher, deviation := slope(at)
	p.perWatcher = perWatcher
	out.add(row{fmt.Sprintf("%d clients with kube-proxy's watches", o.agents),
		fmt.Sprintf("memory of the API server for each: the slope over %s (± %s); 3 watches", samples(at), kibibytes(int(deviation))), -1, kibibytes(int(perWatcher)), "–"})
	return p, nil
}

// caseFleetStart starts the agents in steps and measures what the API server needs for each.
func (c *cluster) caseFleetStart(ctx context.Context, nodes []string, perProxy float64, out *report) (fleet, *fleetTracker, error) {
	var f fleet
	used, err := c.serverMemory(ctx)
	if err != nil {
		return nil, nil, err
	}
	at := []sample{{0, float64(used)}}
	listed, err := c.storageLists(ctx)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for some := range slices.Chunk(nodes, agentsPerProcess) {
		out.logf("fleet: %d more agents", len(some))
		cpu, begin := cpuNow(), time.Now()
		p, err := c.startAgents(some)
		if err != nil {
			f.kill()
			return nil, nil, err
		}
		f = append(f, p)
		n += len(some)
		if err := f.ready(ctx, n); err != nil {
			f.kill()
			return nil, nil, err
		}
		out.note("%d agents started beside %d: all in force after %s; %s.", len(some), n-len(some), short(time.Since(begin)), cpuNow().since(cpu))
		if used, err = c.serverMemory(ctx); err != nil {
			f.kill()
			return nil, nil, err
		}
		at = append(at, sample{float64(n), float64(used)})
	}
	s, err := f.total(ctx)
	if err != nil {
		f.kill()
		return nil, nil, err
	}
	perAgent, deviation := slope(at)
	where := fmt.Sprintf("%d agents", n)
	out.add(row{where, fmt.Sprintf("memory of the API server for each, the slope over %s (± %s), ÷ that of a client with kube-proxy's watches (%s); for 1,000 agents, extrapolated: %s (± %s)",
		samples(at), kibibytes(int(deviation)), kibibytes(int(perProxy)), kibibytes(int(1000*perAgent)), kibibytes(int(1000*deviation))),
		perAgent / perProxy, fmt.Sprintf("%.2f ×", perAgent/perProxy), "1 ×"})
	out.add(row{where, fmt.Sprintf("watches of each (%s lists of each; %s for what there is at the start)",
		fmt.Sprintf("%.1f", float64(s.List)/float64(n)), kibibytes(s.bytes()/n)), -1, fmt.Sprintf("%.1f", float64(s.Watch)/float64(n)), "–"})
	now, err := c.storageLists(ctx)
	if err != nil {
		f.kill()
		return nil, nil, err
	}
	out.add(row{where, "lists that their start caused in etcd", float64(now - listed), thousands(now - listed), "0"})
	tracker, err := c.trackFleet(ctx, f)
	if err != nil {
		f.kill()
	}
	return f, tracker, err
}

// caseFleetRestart starts all agents at once, as a node pool does that is scaled up.
func (c *cluster) caseFleetRestart(ctx context.Context, nodes []string, other *otherClient, idle durations, out *report) error {
	out.logf("fleet: %d agents at once", len(nodes))
	var f fleet
	var err error
	begin, cpu := time.Now(), cpuNow()
	during := other.measure(ctx, func() {
		if f, err = c.startFleet(nodes); err == nil {
			err = f.ready(ctx, len(nodes))
		}
	})
	defer f.kill()
	if err != nil {
		return err
	}
	where := fmt.Sprintf("start of %d agents at once", len(nodes))
	out.add(row{where, fmt.Sprintf("until all are in force; %s", cpuNow().since(cpu)), -1, short(time.Since(begin)), "–"})
	for _, percentile := range []float64{50, 99} {
		was, is := idle.percentile(percentile), during.percentile(percentile)
		out.add(row{where, fmt.Sprintf("p%.0f of %d requests of another client meanwhile ÷ idle (%s)", percentile, len(during), short(was)),
			is.Seconds() / was.Seconds() / 2, fmt.Sprintf("%.2f × (%s)", is.Seconds()/was.Seconds(), short(is)), "2 ×"})
	}
	return nil
}

// trackFleet follows what the agents' kernels have.
func (c *cluster) trackFleet(ctx context.Context, f fleet) (*fleetTracker, error) {
	use, err := newFleetUse(c.policies, c.allClusterPolicies())
	if err != nil {
		return nil, err
	}
	t := newFleetTracker(use, c.pods)
	for _, p := range f {
		if err := t.follow(ctx, p.listen, p.nodes); err != nil {
			return nil, err
		}
	}
	return t, poll(ctx, time.Minute, time.Second, func() error { return t.expectRight(c.pods) })
}

// caseFleetChanges changes pods and measures when the kernel of each agent concerned is right, and the bytes that all agents receive.
func (c *cluster) caseFleetChanges(ctx context.Context, o options, f fleet, t *fleetTracker, rate int, proxies *counter, out *report) error {
	n := 0
	for _, p := range f {
		n += len(p.nodes)
	}
	where := fmt.Sprintf("%d agents, %d changes/s", n, rate)
	out.logf("fleet: %s", where)
	before, err := f.total(ctx)
	if err != nil {
		return err
	}
	proxiesBefore := proxies.bytes.Load()
	done, err := c.churn(ctx, t, rate, o.length)
	if err := errors.Join(err, t.err()); err != nil {
		return err
	}
	if done.lost > 0 {
		return fmt.Errorf("%s: %d changes did not reach every agent", where, done.lost)
	}
	if err := waitStable(ctx, func() int { return int(proxies.bytes.Load()) }); err != nil {
		return err
	}
	after, err := f.total(ctx)
	if err != nil {
		return err
	}
	if err := poll(ctx, time.Minute, time.Second, func() error { return t.expectRight(c.pods) }); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	p99, bar := done.took.percentile(99), 250*time.Millisecond
	out.add(row{where, fmt.Sprintf("p99 of %s changes from the pod's status to the last kernel of the %.1f agents concerned (p50 %s, longest %s)",
		thousands(len(done.took)), float64(done.objects)/float64(max(1, len(done.took))), short(done.took.percentile(50)), short(done.took.percentile(100))), ratioOf(p99, bar), short(p99), short(bar)})
	out.note("CPU of %s changes at %d/s with %d agents and %d clients with kube-proxy's watches: %s.", thousands(done.changes), rate, n, o.agents, done.cpu)
	if n != o.agents {
		return nil
	}
	kidobans := (after.bytes() - after.Bytes[podsOfNode]) - (before.bytes() - before.Bytes[podsOfNode])
	others := int(proxies.bytes.Load() - proxiesBefore)
	out.add(row{where, fmt.Sprintf("bytes to all agents for one change (%s; besides, %s for the nodes' own pods) ÷ to as many kube-proxies (%s)",
		thousands(kidobans/done.changes), thousands((after.Bytes[podsOfNode]-before.Bytes[podsOfNode])/done.changes), thousands(others/done.changes)),
		float64(kidobans) / float64(others) / 0.1, fmt.Sprintf("%.3f ×", float64(kidobans)/float64(others)), "0.1 ×"})
	return nil
}
