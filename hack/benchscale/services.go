package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/kidoban/kidoban/internal/policy"
)

// Kubernetes' controller of EndpointSlices does similar work: it writes the addresses of selectors to objects
// of at most 100 addresses. It gets the same pods and changes on an API server of its own, with a Service for
// each selector, as many workers and the same rate limit.

// serviceLabels are the labels that Services select by, one for each Service, with the prefix of the
// Services' names.
var serviceLabels = map[string]string{"app": "app", "tier": "tier", "version": "version", "pod-template-hash": "hash"}

// serviceCases measures the churn with that controller.
func serviceCases(ctx context.Context, o options, out *report) (all []churned, err error) {
	c, err := startCluster(newLoad(o.cluster, o.clusterPolicies, o.seed))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel() // the API server waits for open watches
		err = errors.Join(err, c.close())
	}()
	out.logf("EndpointSlices: creating %s and their Services", o.cluster.words())
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	services, err := c.startServices(ctx, slices.Collect(maps.Keys(serviceLabels)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = services.process.cmd.Process.Kill() }()
	seen := services.observer
	for _, rate := range o.rates {
		out.logf("EndpointSlices: %d changes/s", rate)
		done, err := c.churn(ctx, seen, rate, o.length)
		if err != nil {
			return nil, err
		}
		out.note("CPU of %s changes at %d/s with the controller of EndpointSlices: %s.", thousands(done.changes), rate, done.cpu)
		out.add(row{fmt.Sprintf("EndpointSlices, %d changes/s", rate), fmt.Sprintf("p50 of %s until all of %s Services are right (p99 %s, longest %s; not right a minute later: %s)",
			thousands(len(done.took)), thousands(done.objects), short(done.took.percentile(99)), short(done.took.percentile(100)), thousands(done.lost)),
			-1, short(done.took.percentile(50)), "–"})
		all = append(all, done)
	}
	if err := c.caseStreams(ctx, o, seen, serviceWatcher{}, out); err != nil {
		return nil, err
	}
	out.note("EndpointSlices: kube-controller-manager with its controller of EndpointSlices alone, in the same run on an API server of its own with the same namespaces, pods and changes. %s Services without ports select the pods by one label each, so that each pod is in four; there are as many workers, and the same rate limit. Everything else is the default; for example, it retries after 1 s, and then after twice the time each time.",
		thousands(len(seen.groups)))
	return all, nil
}

// services are the Services of a cluster, with Kubernetes' controller of their EndpointSlices.
type services struct {
	observer *serviceObserver
	process  *process
}

// startServices creates a Service for each value of these labels in each namespace, starts the controller,
// and waits until the EndpointSlices are right.
func (c *cluster) startServices(ctx context.Context, labels []string) (*services, error) {
	seen := newServiceObserver(c, labels)
	if err := seen.create(ctx, c); err != nil {
		return nil, err
	}
	if err := seen.watch(ctx, c); err != nil {
		return nil, err
	}
	p, err := start(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kube-controller-manager"), "--kubeconfig="+c.kubeconfig,
		"--controllers=endpointslice-controller", "--concurrent-service-endpoint-syncs=16", "--kube-api-qps=800", "--kube-api-burst=1600",
		"--leader-elect=false", "--secure-port=0")
	if err != nil {
		return nil, err
	}
	if err := poll(ctx, 5*time.Minute, 500*time.Millisecond, func() error { return seen.expectRight(c) }); err != nil {
		_ = p.cmd.Process.Kill()
		return nil, fmt.Errorf("%w; the log of %s ends with: %s", err, p.cmd.Path, p.log.last())
	}
	return &services{seen, p}, nil
}

// serviceObserver watches EndpointSlices. Its groups are the Services.
type serviceObserver struct {
	members
	labels []string // keys of serviceLabels
}

func newServiceObserver(c *cluster, labels []string) *serviceObserver {
	o := &serviceObserver{newMembers(), labels}
	for i := range c.pods {
		p := &c.pods[i]
		for _, label := range labels {
			kind := serviceLabels[label]
			key := policy.GroupKey{Namespace: namespaceName(p.namespace), Name: kind + "-" + p.labels[label]}
			if o.groups[key] == nil {
				selector, _ := parseSelectors(key.Namespace, nil, matching(label, p.labels[label]))
				o.groups[key] = &groupView{selector: selector, addresses: map[netip.Addr]int{}}
			}
		}
	}
	return o
}

func (o *serviceObserver) create(ctx context.Context, c *cluster) error {
	var services []*corev1.Service
	for key, g := range o.groups {
		label, value, _ := strings.Cut(g.selector.pods.String(), "=")
		services = append(services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec: corev1.ServiceSpec{
				ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{label: value},
				PublishNotReadyAddresses: true, // EndpointSlices leave out pods whose node does not exist otherwise
			},
		})
	}
	return inParallel(ctx, len(services), func(ctx context.Context, i int) error {
		_, err := c.clients.CoreV1().Services(services[i].Namespace).Create(ctx, services[i], metav1.CreateOptions{})
		return err
	})
}

func (o *serviceObserver) watch(ctx context.Context, c *cluster) error {
	factory := informers.NewSharedInformerFactory(c.clients, 0)
	handler, err := factory.Discovery().V1().EndpointSlices().Informer().AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { o.see(nil, obj) },
		UpdateFunc: o.see,
		DeleteFunc: func(obj any) { o.see(obj, nil) },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !toolscache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return ctx.Err()
	}
	return nil
}

func (o *serviceObserver) see(old, now any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was, _ := old.(*discoveryv1.EndpointSlice)
	is, _ := now.(*discoveryv1.EndpointSlice)
	either := is
	if either == nil {
		either = was
	}
	key := policy.GroupKey{Namespace: either.Namespace, Name: either.Labels[discoveryv1.LabelServiceName]}
	if g := o.groups[key]; g != nil {
		see(&o.members, key, g, netip.MustParseAddr, addressesOf(was), addressesOf(is))
	}
}

func addressesOf(s *discoveryv1.EndpointSlice) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, e := range s.Endpoints {
		out = append(out, e.Addresses...)
	}
	return out
}

// expectRight fails if the EndpointSlices do not contain exactly the pods of each Service.
func (o *serviceObserver) expectRight(c *cluster) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	wrong, want, got := 0, 0, 0
	for i := range c.pods {
		p := &c.pods[i]
		for _, label := range o.labels {
			kind := serviceLabels[label]
			g := o.groups[policy.GroupKey{Namespace: namespaceName(p.namespace), Name: kind + "-" + p.labels[label]}]
			if g == nil { // no pod had this value when the Services were created
				continue
			}
			want++
			if g.addresses[p.address] == 0 {
				wrong++
			}
		}
	}
	for _, g := range o.groups {
		got += len(g.addresses)
	}
	if wrong > 0 || got != want {
		return fmt.Errorf("EndpointSlices lack %d of %d addresses, and have %d", wrong, want, got)
	}
	return nil
}
