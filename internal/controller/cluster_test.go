//go:build envtest

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// maxAddresses is small, so that few pods make several slices.
const maxAddresses = 4

// cluster is the API server as one test uses it: with namespaces of its own.
type cluster struct {
	client.Client
	t      *testing.T
	prefix string
}

var tests struct {
	sync.Mutex
	n int
}

// newCluster creates a test's namespaces. When the test ends, it deletes policies, pods and the controller's objects.
func newCluster(t *testing.T, namespaces ...string) *cluster {
	t.Helper()
	c, err := client.New(admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	tests.Lock()
	tests.n++
	out := &cluster{Client: c, t: t, prefix: fmt.Sprintf("t%d-", tests.n)}
	tests.Unlock()
	for _, ns := range namespaces {
		out.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: out.ns(ns), Labels: map[string]string{"team": ns, "test": out.prefix + "x"}}})
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for _, ns := range append(slices.Clone(namespaces), "") {
			in := client.InNamespace(out.ns(ns))
			if ns == "" {
				in = shared
			}
			for _, obj := range []client.Object{&networkingv1.NetworkPolicy{}, &v1alpha1.PolicyEndpoint{}, &v1alpha1.PolicyEndpointSlice{}} {
				if err := c.DeleteAllOf(ctx, obj, in); err != nil {
					t.Error(err)
				}
			}
			if err := c.DeleteAllOf(ctx, &corev1.Pod{}, in, client.GracePeriodSeconds(0)); err != nil {
				t.Error(err)
			}
		}
	})
	return out
}

// ns is the real name of one of the test's namespaces.
func (c *cluster) ns(name string) string { return c.prefix + name }

func (c *cluster) create(obj client.Object) {
	c.t.Helper()
	if err := c.Create(context.Background(), obj); err != nil {
		c.t.Fatal(err)
	}
}

// pod creates a pod that runs with this address.
func (c *cluster) pod(ns, name string, labels map[string]string, ip string, ports ...corev1.ContainerPort) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.ns(ns), Name: name, Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none", Ports: ports}}, AutomountServiceAccountToken: new(false)},
	}
	c.create(p)
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
	if err := c.Status().Update(context.Background(), p); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// policy creates or changes a policy.
func (c *cluster) policy(ns, name, spec string) *networkingv1.NetworkPolicy {
	c.t.Helper()
	np := &networkingv1.NetworkPolicy{}
	key := client.ObjectKey{Namespace: c.ns(ns), Name: name}
	err := c.Get(context.Background(), key, np)
	np.Namespace, np.Name = key.Namespace, key.Name
	np.Spec = networkingv1.NetworkPolicySpec{}
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		c.t.Fatal(err)
	}
	if apierrors.IsNotFound(err) {
		c.create(np)
	} else if err := errors.Join(err, c.Update(context.Background(), np)); err != nil {
		c.t.Fatal(err)
	}
	return np
}

func (c *cluster) delete(obj client.Object) {
	c.t.Helper()
	if err := c.Delete(context.Background(), obj, client.GracePeriodSeconds(0)); err != nil {
		c.t.Fatal(err)
	}
}

// edit changes an existing object.
func edit[T client.Object](c *cluster, obj T, change func(T)) {
	c.t.Helper()
	for {
		if err := c.Get(context.Background(), client.ObjectKeyFromObject(obj), obj); err != nil {
			c.t.Fatal(err)
		}
		change(obj)
		err := c.Update(context.Background(), obj)
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			c.t.Fatal(err)
		}
	}
}

// endpointOf returns the PolicyEndpoint of a policy.
func (c *cluster) endpointOf(np *networkingv1.NetworkPolicy) (*v1alpha1.PolicyEndpoint, error) {
	var list v1alpha1.PolicyEndpointList
	if err := c.List(context.Background(), &list, client.InNamespace(np.Namespace), client.MatchingLabels{v1alpha1.LabelPolicyUID: string(np.UID)}); err != nil {
		return nil, err
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("%d PolicyEndpoints of %s", len(list.Items), np.Name)
	}
	return &list.Items[0], nil
}

// addresses returns the addresses of a group, which must be complete; sorted, each once.
func (c *cluster) addresses(namespace, group string) (string, error) {
	var list v1alpha1.PolicyEndpointSliceList
	if err := c.List(context.Background(), &list); err != nil {
		return "", err
	}
	byName := map[string]*v1alpha1.PolicyEndpointSlice{}
	for i := range list.Items {
		pes := &list.Items[i]
		if len(pes.Spec.Addresses) > maxAddresses {
			return "", fmt.Errorf("%s has %d addresses", pes.Name, len(pes.Spec.Addresses))
		}
		byName[pes.Namespace+"/"+pes.Name] = pes
	}
	members, complete := membersOf(byName, policy.GroupKey{Namespace: namespace, Name: group})
	if !complete {
		return "", fmt.Errorf("group %s/%s is not complete in %d slices", namespace, group, len(list.Items))
	}
	var all []string
	for _, a := range members {
		all = append(all, strings.TrimSuffix(strings.TrimSuffix(a, "/32"), "/128"))
	}
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != len(all) {
		return "", fmt.Errorf("group %s/%s has an address twice: %v", namespace, group, all)
	}
	return strings.Join(all, " "), nil
}

// listOf returns the slice that lists the slices of a group.
func (c *cluster) listOf(namespace, group string) *v1alpha1.PolicyEndpointSlice {
	c.t.Helper()
	var list v1alpha1.PolicyEndpointSliceList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		c.t.Fatal(err)
	}
	for i := range list.Items {
		for _, p := range list.Items[i].Spec.Groups {
			if p.Name == group && len(p.Slices) > 0 {
				return &list.Items[i]
			}
		}
	}
	c.t.Fatalf("no slice lists those of group %s/%s", namespace, group)
	return nil
}

// peers returns the addresses of the groups that a policy's first rule of a direction names.
func (c *cluster) peers(np *networkingv1.NetworkPolicy, direction v1alpha1.PolicyType) (string, error) {
	pe, err := c.endpointOf(np)
	if err != nil {
		return "", err
	}
	rules := pe.Spec.Ingress
	if direction == v1alpha1.PolicyTypeEgress {
		rules = pe.Spec.Egress
	}
	if len(rules) == 0 {
		return "no rule", nil
	}
	var out []string
	for _, g := range policy.GroupKeys(np.Namespace, shared, rules[:1]) {
		all, err := c.addresses(g.Namespace, g.Name)
		if err != nil {
			return "", err
		}
		out = append(out, all)
	}
	return strings.Join(out, " | "), nil
}

func (c *cluster) expectPeers(np *networkingv1.NetworkPolicy, direction v1alpha1.PolicyType, want string) {
	c.t.Helper()
	eventually(c.t, func() error {
		got, err := c.peers(np, direction)
		if err == nil && got != want {
			err = fmt.Errorf("peers of %s are %q, want %q", np.Name, got, want)
		}
		return err
	})
}

// eventually waits until something holds.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// startController runs a controller as the service account may, until stop is called or the test ends.
func startController(t *testing.T, leaderElect bool, change ...func(*ctrl.Options)) (stop func()) {
	t.Helper()
	return runController(t, leaderElect, nil, change...)
}

// runController is startController, with or without a stream.
func runController(t *testing.T, leaderElect bool, agents *StreamOptions, change ...func(*ctrl.Options)) (stop func()) {
	t.Helper()
	options := ctrl.Options{
		Scheme:                        scheme,
		Cache:                         CacheOptions(),
		Client:                        ClientOptions(),
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		LeaderElection:                leaderElect,
		LeaderElectionID:              Name,
		LeaderElectionNamespace:       shared,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(90 * time.Second), // no lease expires while the API server is slow
		RenewDeadline:                 new(60 * time.Second),
		RetryPeriod:                   new(500 * time.Millisecond),
		Controller:                    config.Controller{SkipNameValidation: new(true)}, // one after the other in this process
	}
	for _, f := range change {
		f(&options)
	}
	mgr, err := ctrl.NewManager(user, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := Add(mgr, Options{Resolver: resolver.Options{SharedNamespace: shared, MaxAddresses: maxAddresses}, BatchWindow: 20 * time.Millisecond, Stream: agents, ApplicationPolicies: true}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the manager ended: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// membersOf returns the addresses that the listed slices have of a group, as they come, and whether the group is complete.
func membersOf(byName map[string]*v1alpha1.PolicyEndpointSlice, key policy.GroupKey) (members []string, complete bool) {
	parts := map[string]policy.GroupPart{}
	listed := map[string]bool{}
	for _, pes := range byName {
		slice := policy.ReadSlice(pes)
		if _, err := slice.Groups(shared); err != nil {
			continue
		}
		for _, part := range slice.Parts(func(g policy.GroupKey) bool { return g == key }) {
			parts[pes.Namespace+"/"+pes.Name] = part
			for _, name := range part.Slices {
				listed[pes.Namespace+"/"+name] = true
			}
			for _, name := range part.SharedSlices {
				listed[shared+"/"+name] = true
			}
		}
	}
	complete = len(listed) > 0
	for name := range listed {
		part, ok := parts[name]
		complete = complete && ok
		for _, class := range part.Members {
			for _, a := range class {
				members = append(members, a.String())
			}
		}
	}
	return members, complete
}
