package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agent"
)

// meter counts the bytes of responses' bodies, by the kind of request.
type meter struct {
	mu    sync.Mutex
	bytes map[part]int
}

// part is a kind of request.
type part string

const (
	namespaced  part = "namespaces"
	sharedPart  part = "shared groups"
	podsOfNode  part = "pods of the node"
	everything  part = "everything"
	notMeasured part = "" // discovery, once for each client
)

func newMeter() *meter { return &meter{bytes: map[part]int{}} }

// config returns a copy of a config whose requests are measured.
func (m *meter) config(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return &meteredTransport{m, next} })
	return c
}

func (m *meter) get(p part) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes[p]
}

func (m *meter) partOf(r *http.Request) part {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/api/v1/pods"):
		return podsOfNode
	case strings.Contains(path, "/namespaces/"+sharedNamespace+"/") || r.URL.Query().Get("fieldSelector") == "metadata.name="+sharedNamespace:
		return sharedPart
	case strings.Contains(path, "/namespaces/") || r.URL.Query().Get("fieldSelector") != "":
		return namespaced
	case strings.HasPrefix(path, "/apis/"+v1alpha1.GroupVersion.String()+"/") || path == "/api/v1/namespaces":
		return everything
	}
	return notMeasured
}

type meteredTransport struct {
	*meter
	next http.RoundTripper
}

func (t *meteredTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err == nil {
		resp.Body = &meteredBody{resp.Body, t.meter, t.partOf(r)}
	}
	return resp, err
}

type meteredBody struct {
	io.ReadCloser
	m *meter
	p part
}

func (b *meteredBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.m.mu.Lock()
	b.m.bytes[b.p] += n
	b.m.mu.Unlock()
	return n, err
}

// share compares the bytes that an agent receives with those of a watch of all objects.
type share struct{ namespaced, shared, pods, everything int }

// ofNamespaced is the agent's part of what is not shared.
func (s share) ofNamespaced() float64 {
	return float64(s.namespaced) / float64(s.everything-s.shared)
}

func (s share) minus(t share) share {
	return share{s.namespaced - t.namespaced, s.shared - t.shared, s.pods - t.pods, s.everything - t.everything}
}

// watchShare runs the watches of one node's agent and those of all objects, until the context is done. It
// returns when both are in sync. The returned function returns the bytes that each has received.
func (c *cluster) watchShare(ctx context.Context, node string, namespaces []int) (func() share, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	one, all := newMeter(), newMeter()
	mgr, err := ctrl.NewManager(one.config(c.config), ctrl.Options{
		Scheme: scheme, Cache: agent.CacheOptions(node), Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return nil, err
	}
	names := []string{sharedNamespace}
	for _, ns := range namespaces {
		names = append(names, namespaceName(ns))
	}
	newCache := agent.NamespaceCaches(mgr, sharedNamespace)
	kinds := []client.Object{&corev1.Namespace{}, &v1alpha1.PolicyEndpointSlice{}, &v1alpha1.PolicyEndpoint{}}
	for _, name := range names {
		caches, err := newCache(name)
		if err != nil {
			return nil, err
		}
		if err := follow(ctx, caches, kinds...); err != nil {
			return nil, err
		}
	}
	if err := follow(ctx, mgr.GetCache(), &corev1.Pod{}); err != nil {
		return nil, err
	}
	full, err := cache.New(all.config(c.config), cache.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	if err := follow(ctx, full, kinds...); err != nil {
		return nil, err
	}
	return func() share {
		return share{one.get(namespaced), one.get(sharedPart), one.get(podsOfNode), all.get(everything)}
	}, nil
}

// follow starts a cache of some kinds and waits until it is in sync.
func follow(ctx context.Context, c cache.Cache, kinds ...client.Object) error {
	go func() { _ = c.Start(ctx) }()
	for _, obj := range kinds {
		if _, err := c.GetInformer(ctx, obj); err != nil {
			return fmt.Errorf("watch %T: %w", obj, err)
		}
	}
	if !c.WaitForCacheSync(ctx) {
		return fmt.Errorf("the caches are not in sync: %w", context.Cause(ctx))
	}
	return nil
}

// caseShare measures the bytes that one agent receives, at its start and while pods change.
func (c *cluster) caseShare(ctx context.Context, o options, t tracker, out *report) error {
	out.logf("cluster: the agent's share")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var namespaces []int
	for ns := range min(teamSize, c.namespaces) {
		namespaces = append(namespaces, ns+c.namespaces/teamSize/2*teamSize)
	}
	received, err := c.watchShare(ctx, c.nodeName(namespaces[0], 0), namespaces)
	if err != nil {
		return err
	}
	atStart := received()
	done, err := c.churn(ctx, t, o.shareRate, o.length)
	if err != nil {
		return err
	}
	if err := waitStable(ctx, func() int { return received().everything }); err != nil {
		return err
	}
	total := received()
	where := fmt.Sprintf("agent's share, %d of %s namespaces", len(namespaces), thousands(c.namespaces))
	bar := 0.06 / 0.05 * float64(len(namespaces)) / float64(c.namespaces)
	add := func(what string, s share, ratio float64, bar string) {
		out.add(row{where, fmt.Sprintf("%s: bytes of its namespaces ÷ of all that is not shared (%s of %s; besides, to every agent, %s of shared groups; %s of the node's own pods)",
			what, kibibytes(s.namespaced), kibibytes(s.everything-s.shared), kibibytes(s.shared), kibibytes(s.pods)),
			ratio, fmt.Sprintf("%.2f %%", 100*s.ofNamespaced()), bar})
	}
	add("at start", atStart, atStart.ofNamespaced()/bar, fmt.Sprintf("%.0f %%", 100*bar))
	add(fmt.Sprintf("while %s pods changed", thousands(done.changes)), total.minus(atStart), -1, "–") // hardly a byte is not shared
	return nil
}

// waitStable waits until a number has stayed the same for a second.
func waitStable(ctx context.Context, value func() int) error {
	last, since := value(), time.Now()
	return poll(ctx, time.Minute, 50*time.Millisecond, func() error {
		if now := value(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < time.Second {
			return fmt.Errorf("the number still changes")
		}
		return nil
	})
}

func kibibytes(n int) string { return thousands(n/1024) + " KiB" }
