package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/rest"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// caseStreams has as many nodes watch as a larger cluster has, and counts the streams and the bytes that they
// receive while pods change. Nothing is decoded: a stream is one HTTP request whose body is read and thrown
// away, so that many fit on one machine. Unlike caseShare it leaves out what a client's cache adds, which
// does not depend on the objects.

// stream is a watch that a node has.
type stream struct {
	path   string
	params map[string]string
	accept string
}

// watcher is a program that runs on each node of a cluster.
type watcher interface {
	name() string
	// streams are the watches of the i-th node's.
	streams(c *cluster, i int) []stream
}

// agentWatcher watches as kidoban's agent does, without its node's pods: PolicyEndpoints, slices and the
// Namespace of each namespace that its node has pods in, and of the shared one.
type agentWatcher struct{}

func (agentWatcher) name() string { return "agents" }

func (agentWatcher) streams(c *cluster, i int) []stream {
	teams := max(1, c.namespaces/teamSize)
	names := []string{sharedNamespace}
	for ns := range min(teamSize, c.namespaces) {
		names = append(names, namespaceName(i%teams*teamSize+ns))
	}
	var out []stream
	for _, ns := range names {
		for _, resource := range []string{"policyendpoints", "policyendpointslices"} {
			out = append(out, stream{path: "/apis/" + v1alpha1.GroupVersion.String() + "/namespaces/" + ns + "/" + resource, accept: "application/json"})
		}
		out = append(out, stream{"/api/v1/namespaces", map[string]string{"fieldSelector": "metadata.name=" + ns}, protobuf})
	}
	return out
}

const protobuf = "application/vnd.kubernetes.protobuf;stream=watch"

// serviceWatcher watches EndpointSlices as kube-proxy does, without Services and Nodes.
type serviceWatcher struct{}

func (serviceWatcher) name() string { return "watchers of EndpointSlices" }

func (serviceWatcher) streams(*cluster, int) []stream {
	return []stream{{path: "/apis/discovery.k8s.io/v1/endpointslices", accept: protobuf}}
}

// counter reads streams and counts their bytes.
type counter struct {
	bytes  atomic.Int64
	mu     sync.Mutex
	failed error // of a stream that ended before the context
}

func (c *counter) Write(b []byte) (int, error) {
	c.bytes.Add(int64(len(b)))
	return len(b), nil
}

// follow opens a stream and reads it until the context is done.
func (c *counter) follow(ctx context.Context, client rest.Interface, s stream) error {
	request := client.Get().AbsPath(s.path).SetHeader("Accept", s.accept).Param("watch", "1")
	for k, v := range s.params {
		request = request.Param(k, v)
	}
	body, err := request.Stream(ctx)
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.path, err)
	}
	go func() {
		defer func() { _ = body.Close() }()
		if _, err := io.Copy(c, body); ctx.Err() == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.failed = fmt.Errorf("the watch of %s ended: %v", s.path, err)
		}
	}()
	return nil
}

func (c *counter) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *cluster) caseStreams(ctx context.Context, o options, t tracker, w watcher, out *report) error {
	out.logf("cluster: %d %s", o.watchers, w.name())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []stream
	for i := range o.watchers {
		all = append(all, w.streams(c, i)...)
	}
	var seen counter
	if err := inParallel(ctx, len(all), func(_ context.Context, i int) error { // the group's context ends with the group
		return seen.follow(ctx, c.clients.RESTClient(), all[i])
	}); err != nil {
		return err
	}
	received := func() int { return int(seen.bytes.Load()) }
	if err := waitStable(ctx, received); err != nil {
		return err
	}
	before := received()
	done, err := c.churn(ctx, t, o.shareRate, o.length)
	if err != nil {
		return err
	}
	if err := waitStable(ctx, received); err != nil {
		return err
	}
	if err := seen.err(); err != nil {
		return err
	}
	perChange := (received() - before) / done.changes
	out.add(row{fmt.Sprintf("%d %s", o.watchers, w.name()),
		fmt.Sprintf("bytes that one of them receives for a pod's change, on average (%s watches in all; %s bytes to all of them; %s for what there is at their start)",
			thousands(len(all)), thousands(perChange), kibibytes(before)), -1, thousands(perChange / o.watchers), "–"})
	out.note("CPU of %s changes at %d/s with %d %s: %s.", thousands(done.changes), o.shareRate, o.watchers, w.name(), done.cpu)
	return nil
}
