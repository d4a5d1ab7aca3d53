package shop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// How long a probe waits for an answer: at first, while policies are on their way, and in a steady state, where it is long enough
// for a lost SYN to be sent again on a busy machine.
const (
	quick  = 500 * time.Millisecond
	steady = 3 * time.Second
)

// Measure connects from everywhere to everywhere once, by Pod IP and by Service, and holds it against what the
// NetworkPolicies of the moment mean for the pods of the moment.
func (s *Shop) Measure(ctx context.Context) ([]*matrix.Table, error) { return s.measure(ctx, steady) }

// AwaitInForce measures until everything is as the policies say, and returns what it saw last. The error, after
// the timeout, names what is not.
func (s *Shop) AwaitInForce(ctx context.Context, timeout time.Duration) ([]*matrix.Table, error) {
	deadline := time.Now().Add(timeout)
	for patience := quick; ; patience = min(2*patience, steady) { // a machine may be too busy for the first
		tables, err := s.measure(ctx, patience)
		if err != nil {
			return nil, err
		}
		err = Verify(tables)
		if err == nil || time.Now().After(deadline) {
			return tables, err
		}
	}
}

// mostNamed is how many probes an error names. The tables show all.
const mostNamed = 12

// Verify returns an error that names probes which did not go as the policies say.
func Verify(tables []*matrix.Table) error {
	var wrong []string
	for _, t := range tables {
		for _, p := range t.Wrong() {
			wrong = append(wrong, t.Title+": "+p.String())
		}
	}
	n := len(wrong)
	if n == 0 {
		return nil
	}
	if n > mostNamed {
		wrong = append(wrong[:mostNamed], "…")
	}
	return fmt.Errorf("%d connections did not go as the policies say:\n\t%s", n, strings.Join(wrong, "\n\t"))
}

func (s *Shop) measure(ctx context.Context, timeout time.Duration) ([]*matrix.Table, error) {
	world, err := s.World(ctx)
	if err != nil {
		return nil, err
	}
	views, err := s.views(ctx, world.Pods)
	if err != nil {
		return nil, err
	}
	tables := make([]*matrix.Table, len(views))
	var all errgroup.Group
	for i, view := range views {
		tables[i] = view.Plan(world)
		all.Go(func() error { return tables[i].Run(ctx, timeout) })
	}
	return tables, all.Wait()
}

// World is everything that NetworkPolicies are about, as it is now.
func (s *Shop) World(ctx context.Context) (*reference.NetworkPolicies, error) {
	var all corev1.NamespaceList
	var policies networkingv1.NetworkPolicyList
	pods, err := s.Pods(ctx)
	if err := errors.Join(err, s.Client.List(ctx, &all), s.Client.List(ctx, &policies)); err != nil {
		return nil, err
	}
	return &reference.NetworkPolicies{Namespaces: all.Items, Pods: pods, Policies: policies.Items}, nil
}

func (s *Shop) views(ctx context.Context, pods []corev1.Pod) ([]matrix.View, error) {
	var services []corev1.Service
	for _, namespace := range namespaces {
		var list corev1.ServiceList
		if err := s.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		services = append(services, list.Items...)
	}
	slices.SortStableFunc(services, func(a, b corev1.Service) int { return cmp.Compare(rank(a.Name), rank(b.Name)) })
	var sources []matrix.Source
	for i := range pods {
		if pods[i].Namespace != dnsNamespace {
			sources = append(sources, s.podSource(&pods[i]))
		}
	}
	endpoints := matrix.PodEndpoints(pods)
	endpoints = append(endpoints, matrix.HostEndpoints("partner", partner, partnerTCP...)...)
	endpoints = append(endpoints, matrix.HostEndpoints("partner test", partnerTest, partnerTCP...)...)
	return []matrix.View{
		{Title: "Pod IP", Sources: append(sources, s.outsideSource()), Endpoints: endpoints},
		// A Service's address means something on the nodes only.
		{Title: "Service", Sources: sources, Endpoints: matrix.ServiceEndpoints(services, pods)},
	}, nil
}

func (s *Shop) podSource(pod *corev1.Pod) matrix.Source {
	return matrix.Source{
		Row:       pod.Labels[matrix.WorkloadLabel],
		Name:      pod.Namespace + "/" + pod.Name,
		Addresses: policy.PodAddresses(pod),
		Dial: func(ctx context.Context, targets []reach.Target, timeout time.Duration) ([]reach.Result, error) {
			return s.Cluster.Dial(ctx, pod, targets, timeout)
		},
	}
}

func (s *Shop) outsideSource() matrix.Source {
	return matrix.Source{
		Row:       "outside",
		Name:      "outside",
		Addresses: outside,
		Dial: func(ctx context.Context, targets []reach.Target, timeout time.Duration) ([]reach.Result, error) {
			return s.Cluster.DialOutside(ctx, s.probe, targets, timeout)
		},
	}
}
