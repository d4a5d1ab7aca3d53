//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
)

// TestChanges changes one thing after the other under policies that stay; what is in force follows.
func TestChanges(t *testing.T) {
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	backend := ingressPolicy("backend", "backend", networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"purpose": "monitoring"}},
	})
	create(t, database, backend)
	tables := awaitInForce(t)
	check(t, tables, "open: backend > database 5432")
	check(t, tables, "open: prometheus > backend 8000")

	t.Run("a policy's peers", func(t *testing.T) {
		change(t, database, func() { database.Spec.Ingress[0].From[0].PodSelector = workload("frontend") })
		tables := awaitInForce(t)
		check(t, tables, "closed: backend > database 5432")
		check(t, tables, "open: frontend > database 5432")
	})
	t.Run("a policy's ports", func(t *testing.T) {
		change(t, database, func() {
			database.Spec.Ingress[0].Ports = tcp(5440)
		})
		tables := awaitInForce(t)
		check(t, tables, "closed: frontend > database 5432")
		check(t, tables, "open: frontend > database 5440")
	})
	t.Run("a policy's pods", func(t *testing.T) {
		change(t, database, func() { database.Spec.PodSelector = *workload("frontend") })
		check(t, awaitInForce(t), "open: outside > database 5432")
		change(t, database, func() { database.Spec.PodSelector = *workload("database") })
		check(t, awaitInForce(t), "closed: outside > database 5432")
	})
	t.Run("a namespace's labels", func(t *testing.T) {
		monitoring := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "monitoring"}}
		relabel(t, monitoring, "purpose", "other")
		check(t, awaitInForce(t), "closed: prometheus > backend 8000")
		relabel(t, monitoring, "purpose", "monitoring")
		check(t, awaitInForce(t), "open: prometheus > backend 8000")
	})
	t.Run("a pod's labels", func(t *testing.T) {
		change(t, database, func() {
			database.Spec.Ingress[0].From[0].PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"role": "admin"}}
		})
		check(t, awaitInForce(t), "closed: backend > database 5440")
		for _, pod := range pods(t, "backend") {
			relabel(t, &pod, "role", "admin")
		}
		check(t, awaitInForce(t), "open: backend > database 5440")
	})
	t.Run("pods that are replaced", func(t *testing.T) {
		changePods(t, func() {
			for _, name := range []string{"database", "prometheus"} {
				for _, pod := range pods(t, name) {
					if err := store.Client.Delete(t.Context(), &pod); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
		tables := awaitInForce(t)
		check(t, tables, "open: prometheus > backend 8000")
		check(t, tables, "closed: outside > database 5432")
	})
	t.Run("more pods, and fewer", func(t *testing.T) {
		for _, replicas := range []int32{4, 2} {
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "backend"}}
			get(t, deployment)
			changePods(t, func() {
				change(t, deployment, func() { deployment.Spec.Replicas = &replicas })
			})
			check(t, awaitInForce(t), "closed: frontend > backend 8000")
		}
	})
	t.Run("a policy that goes", func(t *testing.T) {
		if err := store.Client.Delete(t.Context(), backend); err != nil {
			t.Fatal(err)
		}
		tables := awaitInForce(t)
		check(t, tables, "open: frontend > backend 8000")
		check(t, tables, "closed: frontend > database 5432")
	})
}

// ingressPolicy lets peers reach the pods of a workload of the shop, and no other pod.
func ingressPolicy(name, of string, peers ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *workload(of),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: peers}},
		},
	}
}

func tcp(port int32) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromInt32(port))}}
}

func workload(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{matrix.WorkloadLabel: name}}
}

// pods are those of a workload of the shop.
func pods(t *testing.T, workload string) []corev1.Pod {
	t.Helper()
	all, err := store.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []corev1.Pod
	for _, pod := range all {
		if pod.Labels[matrix.WorkloadLabel] == workload {
			out = append(out, pod)
		}
	}
	if len(out) == 0 {
		t.Fatalf("workload %s has no pods", workload)
	}
	return out
}

func get(t *testing.T, object client.Object) {
	t.Helper()
	if err := store.Client.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		t.Fatal(err)
	}
}

// change patches an object by what edit does to it.
func change(t *testing.T, object client.Object, edit func()) {
	t.Helper()
	before := object.DeepCopyObject().(client.Object)
	edit()
	if err := store.Client.Patch(t.Context(), object, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// relabel gives an object a label, for as long as the test lasts.
func relabel(t *testing.T, object client.Object, key, value string) {
	t.Helper()
	get(t, object)
	old := "null"
	if v, ok := object.GetLabels()[key]; ok {
		old = strconv.Quote(v)
	}
	label := func(value string) client.Patch {
		return client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+key+`":`+value+`}}}`))
	}
	if err := store.Client.Patch(t.Context(), object, label(strconv.Quote(value))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Client.Patch(context.Background(), object, label(old)); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// changePods waits, after what edit does, until all pods of the shop are ready, and Services no longer lead to those that
// are gone: kube-proxy follows a moment later, and whom it sends nowhere does not see policies at work.
func changePods(t *testing.T, edit func()) {
	t.Helper()
	gone := podAddresses(t)
	edit()
	if err := store.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for address := range podAddresses(t) {
		delete(gone, address)
	}
	for _, node := range []string{"n1", "n2"} {
		eventually(t, "kube-proxy of "+node+" has followed", func(ctx context.Context) error {
			rules, err := cluster.Output(test.OnNode(ctx, node, "nft", "list", "ruleset"))
			if err != nil {
				return err
			}
			for address := range gone {
				if regexp.MustCompile(`\b` + regexp.QuoteMeta(address) + `\b`).MatchString(rules) {
					return fmt.Errorf("%s is gone and still in a rule", address)
				}
			}
			return nil
		})
	}
}

func podAddresses(t *testing.T) map[string]bool {
	t.Helper()
	pods, err := store.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]bool{}
	for _, pod := range pods {
		for _, ip := range pod.Status.PodIPs {
			addresses[ip.IP] = true
		}
	}
	return addresses
}
