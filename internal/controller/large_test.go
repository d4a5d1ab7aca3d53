package controller

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/workqueue"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/resolver"
)

func about(namespace, name string) request {
	return request{kind: endpoint, name: types.NamespacedName{Namespace: namespace, Name: name}}
}

// Namespaces take turns with requests about large PolicyEndpoints, and all others pass.
func TestRequestsAboutLargeOnesTakeTurns(t *testing.T) {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[request]())
	defer q.ShutDown()
	var l largeTurns
	begin := func(r request, isLarge bool) func() {
		t.Helper()
		end, ok := l.begin(r, isLarge, q)
		if !ok {
			return nil
		}
		return end
	}
	end := begin(about("hostile", "0"), true)
	if end == nil {
		t.Fatal("the first one waits")
	}
	for i := range 3 {
		for range 2 { // an event in the meantime enqueues it once more
			if begin(about("hostile", fmt.Sprint(1+i)), true) != nil {
				t.Fatalf("%d at a time", 2+i)
			}
		}
	}
	if begin(about("shop", "a"), true) != nil {
		t.Error("another namespace does not wait")
	}
	small := begin(about("shop", "small"), false)
	if small == nil {
		t.Fatal("a small one waits")
	}
	small()
	var order []string
	for {
		end()
		if q.Len() == 0 {
			break
		}
		r, _ := q.Get()
		q.Done(r)
		order = append(order, r.name.String())
		if r.name.Namespace == "shop" { // no new request takes the turn of one that waited
			if begin(about("bank", "late"), true) != nil {
				t.Error("a request passed one that has its turn")
			}
		}
		// Its turn ends also if it is not about a large one any more.
		if end = begin(r, r.name.Namespace != "shop"); end == nil {
			t.Fatalf("%s has no turn", r.name)
		}
	}
	if got, want := strings.Join(order, " "), "hostile/1 shop/a hostile/2 bank/late hostile/3"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	if l.running != 0 || len(l.next)+len(l.waits) != 0 {
		t.Errorf("left are %d, %v, %v", l.running, l.next, l.waits)
	}
}

// largeOf is a policy of as many blocks as a PolicyEndpoint can have.
func largeOf(number int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "hostile", Name: fmt.Sprint("large-", number), UID: types.UID(fmt.Sprint("uid-", number)),
		Annotations: map[string]string{"note": strings.Repeat("x", 100_000)}, Labels: map[string]string{"note": "x"},
	}}
	for i := range v1alpha1.MaxRules {
		port := intstr.FromInt32(int32(1 + i))
		rule := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: &port}}}
		for j := range v1alpha1.MaxPeersPerRule {
			n := 2 * ((number+i)*v1alpha1.MaxPeersPerRule + j)
			rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("11.%d.%d.%d/32", n>>16&255, n>>8&255, n&255)}})
		}
		np.Spec.Ingress = append(np.Spec.Ingress, rule)
	}
	return np
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A large policy takes a small part of its own size: its object and its PolicyEndpoint in the cache, and the resolver's state.
func TestHostileALargePolicyTakesLittleMemory(t *testing.T) {
	const policies = 20
	r := resolver.New(resolver.Options{SharedNamespace: "kidoban-system", MaxAddresses: 100, Outlines: true})
	r.Start(resolver.Existing{})
	cache := make([]any, 0, 2*policies)
	keep := func(obj any, err error) {
		if err != nil {
			t.Fatal(err)
		}
		cache = append(cache, obj)
	}
	size := 0
	before := heap()
	for i := range policies {
		np := largeOf(i)
		size += np.Spec.Size()
		prepared := resolver.PrepareOutline(resolver.NetworkPolicy(np))
		r.SetPreparedPolicy(prepared)
		name, _ := r.EndpointName(types.NamespacedName{Namespace: np.Namespace, Name: np.Name})
		whole, ok := r.Whole(name, prepared)
		if !ok || len(whole.Spec.Ingress) != v1alpha1.MaxRules || len(whole.Problems) > 0 {
			t.Fatalf("the policy is not in force: %t %v", ok, whole.Problems)
		}
		keep(stripEndpoint(&v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Spec: *whole.Spec}))
		keep(stripPolicy(np))
	}
	kept := heap() - before
	runtime.KeepAlive(cache)
	runtime.KeepAlive(r)
	t.Logf("%d bytes for each policy of %d bytes", kept/policies, size/policies)
	if kept > uint64(size)/50 {
		t.Errorf("%d policies take %d bytes, more than 2 %% of their size, %d", policies, kept, size)
	}
}
