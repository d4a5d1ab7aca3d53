//go:build hostile && envtest

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
)

var hostilePolicies = flag.Int("hostile-policies", 1000, "number of policies of TestHostileLargestPoliciesOfOneNamespace")

// mostDelay is how long a change of another namespace may take meanwhile, in 99 of 100 cases. On a busy machine it may take mostRatio times
// what the API server alone takes to create an object.
const (
	mostDelay = time.Second
	mostRatio = 5
)

// TestHostileLargestPoliciesOfOneNamespace creates policies of the largest kind in one namespace while the controller runs with the memory
// limit of its Deployment, and starts it once more when all of them are there. It measures changes of other namespaces meanwhile.
func TestHostileLargestPoliciesOfOneNamespace(t *testing.T) {
	t.Setenv("ETCD_QUOTA_BACKEND_BYTES", fmt.Sprint(8<<30)) // each write of a PolicyEndpoint takes up to 1 MiB, until it is compacted
	config, stop, err := apitest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	old := kubeconfig
	defer func() { kubeconfig = old }()
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := writeKubeconfig(config); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), networkingv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hostile", "shop"} {
		if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	o := &others{t: t, c: c}
	o.watch()
	limit := memoryLimit(t)

	first := startLimited(t, limit)
	o.change(20)
	o.report("before")
	began := time.Now()
	during := o.whileThat(func() { createLargest(t, c, *hostilePolicies); awaitLargest(t, c, *hostilePolicies) })
	t.Logf("%d policies are resolved after %v", *hostilePolicies, time.Since(began).Round(time.Second))
	during("while they are created")
	versions := versionsOf(t, c)
	first.stopLimited(t, limit)

	began = time.Now()
	second := startLimited(t, limit)
	o.change(1)
	o.times, o.server = nil, nil
	t.Logf("the first change was written %v after the restart", time.Since(began).Round(time.Millisecond))
	again := o.whileThat(func() { second.awaitIdle(t) })
	again("after the restart")
	second.stopLimited(t, limit)
	if got := versionsOf(t, c); !slices.Equal(got, versions) {
		t.Errorf("the restart wrote PolicyEndpoints: %d before, %d after", len(versions), len(got))
	}
}

// memoryLimit is that of the controller's Deployment.
func memoryLimit(t *testing.T) int64 {
	data, err := os.ReadFile(filepath.Join(apitest.Root(), "config", "controller", "deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d.Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value()
}

// limited is a controller with a limit of its memory.
type limited struct {
	*process
	metrics string
}

func startLimited(t *testing.T, limit int64) *limited {
	l := &limited{metrics: freeAddr(t)}
	l.process = start(t, "--metrics-bind-address="+l.metrics, "--health-probe-bind-address=0", fmt.Sprint("--memory-limit=", limit))
	return l
}

// stopLimited ends the controller and compares the most memory that it had with the limit.
func (l *limited) stopLimited(t *testing.T, limit int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%v; the controller printed\n%s", err, l.output.String())
	}
	var kib int64
	_, value, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(value, &kib); err != nil {
		t.Fatal(err)
	}
	t.Logf("the controller had %d MiB at most", kib>>10)
	if kib<<10 > limit {
		t.Errorf("that is more than its limit, %d MiB", limit>>20)
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := l.end(t); err != nil {
		t.Errorf("%v; the controller printed\n%s", err, l.output.String())
	}
}

// awaitIdle waits until the controller has resolved every policy once.
func (l *limited) awaitIdle(t *testing.T) {
	const name = `kidoban_controller_resolve_duration_seconds_count{input="networkpolicy"} `
	for deadline := time.Now().Add(30 * time.Minute); ; time.Sleep(time.Second) {
		n := 0
		if _, value, ok := strings.Cut(get(t, "http://"+l.metrics+"/metrics"), name); ok {
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Fatal(err)
			}
		}
		if n >= *hostilePolicies {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d policies were resolved", n)
		}
	}
}

// others are changes of other namespaces.
type others struct {
	t *testing.T
	c client.WithWatch

	mu    sync.Mutex
	seen  map[string]time.Time // addresses in slices, and policies with a PolicyEndpoint
	next  int
	times []time.Duration
	// server are the times in which the API server alone creates an object that has nothing to do with policies.
	server []time.Duration
}

// watch records when addresses and PolicyEndpoints appear in namespace shop.
func (o *others) watch() {
	o.seen = map[string]time.Time{}
	in := client.InNamespace("shop")
	slicesOf, err := o.c.Watch(o.t.Context(), &v1alpha1.PolicyEndpointSliceList{}, in)
	if err != nil {
		o.t.Fatal(err)
	}
	endpoints, err := o.c.Watch(o.t.Context(), &v1alpha1.PolicyEndpointList{}, in)
	if err != nil {
		o.t.Fatal(err)
	}
	note := func(key string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if _, ok := o.seen[key]; !ok {
			o.seen[key] = time.Now()
		}
	}
	go func() {
		for {
			select {
			case e, ok := <-slicesOf.ResultChan():
				if !ok {
					return
				}
				if s, ok := e.Object.(*v1alpha1.PolicyEndpointSlice); ok {
					for _, a := range s.Spec.Addresses {
						note(string(a))
					}
				}
			case e, ok := <-endpoints.ResultChan():
				if !ok {
					return
				}
				if pe, ok := e.Object.(*v1alpha1.PolicyEndpoint); ok {
					note(pe.Spec.PolicyRef.Name)
				}
			}
		}
	}()
}

// change makes changes, one policy and one pod in turn, each when the one before was written. It reports whether all were.
func (o *others) change(count int) bool {
	web := map[string]string{"app": "web"}
	for range count {
		o.next++
		key := fmt.Sprint("policy-", o.next)
		var err error
		begin := time.Now()
		if o.next%2 == 1 {
			np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: key}}
			np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: web}}}}}
			err = o.c.Create(o.t.Context(), np)
		} else {
			ip := fmt.Sprintf("10.9.%d.%d", o.next/250, 1+o.next%250)
			key = ip + "/32"
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("pod-", o.next), Labels: web},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}, AutomountServiceAccountToken: new(false)}}
			if err = o.c.Create(o.t.Context(), pod); err == nil {
				pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}
				begin = time.Now()
				err = o.c.Status().Update(o.t.Context(), pod)
			}
		}
		if err == nil {
			err = o.await(key, begin)
		}
		if err != nil {
			o.t.Error(err)
			return false
		}
		begin = time.Now()
		if err := o.c.Create(o.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("beside-", o.next)}}); err != nil {
			o.t.Error(err)
			return false
		}
		o.server = append(o.server, time.Since(begin))
	}
	return true
}

func (o *others) await(key string, begin time.Time) error {
	for {
		o.mu.Lock()
		at, ok := o.seen[key]
		if ok {
			o.times = append(o.times, at.Sub(begin))
		}
		o.mu.Unlock()
		if ok {
			return nil
		}
		if time.Since(begin) > 5*time.Minute {
			return fmt.Errorf("%s is not written", key)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// whileThat makes changes until do ends, and returns a function that reports and checks how long they took.
func (o *others) whileThat(do func()) func(when string) {
	ctx, cancel := context.WithCancel(o.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil && o.change(1) {
			time.Sleep(50 * time.Millisecond)
		}
	})
	do()
	cancel()
	wg.Wait()
	return func(when string) {
		o.t.Helper()
		if p99, server := o.report(when); p99 > max(mostDelay, mostRatio*server) {
			o.t.Errorf("%s: p99 is more than %v, and more than %d times what the API server alone takes", when, mostDelay, mostRatio)
		}
	}
}

// report logs how long changes took since the last report, and how long the API server alone.
func (o *others) report(when string) (p99, server time.Duration) {
	slices.Sort(o.times)
	slices.Sort(o.server)
	n := len(o.times)
	if n == 0 || len(o.server) == 0 {
		o.t.Fatalf("%s: no change was written", when)
	}
	p99, server = o.times[n*99/100], o.server[len(o.server)*99/100]
	at := func(times []time.Duration, percent int) time.Duration {
		return times[len(times)*percent/100].Round(time.Millisecond)
	}
	o.t.Logf("%s: %d changes of another namespace, p50 %v, p99 %v, longest %v; the API server alone: p50 %v, p99 %v",
		when, n, at(o.times, 50), at(o.times, 99), o.times[n-1].Round(time.Millisecond), at(o.server, 50), at(o.server, 99))
	o.times, o.server = nil, nil
	return p99, server
}

const mostBlocks = v1alpha1.MaxRules * v1alpha1.MaxPeersPerRule

// largest is one of the largest policies. Their shapes differ.
func largest(number int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "hostile", Name: fmt.Sprint("large-", number)}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint(number % 10)}
	count := mostBlocks
	address := func(i int) string {
		i = 2 * (i + number)
		return fmt.Sprintf("11.%d.%d.%d/32", i>>16&255, i>>8&255, i&255)
	}
	block := func(i int) networkingv1.IPBlock { return networkingv1.IPBlock{CIDR: address(i)} }
	except := func(i int) networkingv1.IPBlock {
		return networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{address(i)}}
	}
	rules := v1alpha1.MaxRules
	// A fifth have the largest PolicyEndpoints, too. The API server validates one for about a second.
	switch number % 15 {
	case 0: // one rule with all blocks
		rules = 1
	case 1: // as many rules as there may be, with a port each
	case 2: // IPv6 addresses that have nothing in common
		count -= 48 * 40 // otherwise the PolicyEndpoint would be too large
		block = func(i int) networkingv1.IPBlock {
			x := uint64(i+1+number*mostBlocks) * 0x9E3779B97F4A7C15
			return networkingv1.IPBlock{CIDR: fmt.Sprintf("2001:db8:%x:%x:%x:%x:%x:%x/128", x>>48, x>>32&0xffff, x>>16&0xffff, x&0xffff, x*x>>48, x*x>>32&0xffff)}
		}
	default: // blocks of all addresses but one, in as many rules
		if block = except; number%2 == 0 { // in one rule
			rules = 1
		}
	}
	for r := range rules {
		port := intstr.FromInt32(int32(r + 1))
		rule := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: &port}}}
		for i := r * count / rules; i < (r+1)*count/rules; i++ {
			b := block(i)
			rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &b})
		}
		np.Spec.Ingress = append(np.Spec.Ingress, rule)
	}
	return np
}

func createLargest(t *testing.T, c client.Client, count int) {
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := range numbers {
				if err := c.Create(t.Context(), largest(n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range count {
		numbers <- n
	}
	close(numbers)
	wg.Wait()
}

// awaitLargest waits until the largest policies have PolicyEndpoints with all that they allow.
func awaitLargest(t *testing.T, c client.Client, count int) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PolicyEndpointList"))
	deadline := time.Now().Add(time.Hour)
	for ; ; time.Sleep(5 * time.Second) {
		if err := c.List(t.Context(), list, client.InNamespace("hostile")); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) >= count {
			break
		}
		if time.Now().After(deadline) || t.Failed() {
			t.Fatalf("%d of %d PolicyEndpoints", len(list.Items), count)
		}
	}
	for i := range list.Items {
		for {
			pe := &v1alpha1.PolicyEndpoint{}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(&list.Items[i]), pe); err != nil {
				t.Fatal(err)
			}
			if resolved := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved); resolved != nil {
				if resolved.Status != metav1.ConditionTrue || len(pe.Spec.Ingress) == 0 {
					t.Errorf("%s: %+v", pe.Name, resolved)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has no status", pe.Name)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// versionsOf are the PolicyEndpoints of the namespace with their versions, sorted.
func versionsOf(t *testing.T, c client.Client) (out []string) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PolicyEndpointList"))
	if err := c.List(t.Context(), list, client.InNamespace("hostile")); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		out = append(out, list.Items[i].Name+" "+list.Items[i].ResourceVersion)
	}
	slices.Sort(out)
	return out
}
