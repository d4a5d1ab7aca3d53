//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// rolledPods is how many pods are replaced at once: ROLL, or so many that two cores take minutes.
func rolledPods(t *testing.T) int32 {
	if s := os.Getenv("ROLL"); s != "" {
		n, err := strconv.Atoi(s)
		must(t, err)
		return int32(n)
	}
	return 200
}

// podsRolled replaces many servers while a stranger and a friend call all that there are.
func podsRolled(t *testing.T, x *trial) {
	n := rolledPods(t)
	labels := map[string]string{roleLabel: server, "rolled": "true"}
	template := servingPod("", server, "").Spec
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rolled"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxUnavailable: ptr.To(intstr.FromString("100%")), MaxSurge: ptr.To(intstr.FromInt32(0)),
			}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template},
		},
	}
	create(t, deployment)
	t.Cleanup(func() {
		_ = api.DeleteAllOf(context.Background(), &corev1.Pod{}, client.InNamespace(namespace), client.MatchingLabels(labels))
	})
	awaitRolled(t, n)
	out, err := cluster.Output(test.Kubectl(t.Context(), "-n", namespace, "rollout", "restart", "deployment/rolled"))
	must(t, err)
	t.Log(n, "pods:", out)
	x.canary.toggle(t)

	var refused, allowed tally
	for end := time.Now().Add(5 * time.Minute); ; {
		var list corev1.PodList
		must(t, api.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels(labels)))
		var all, known []reach.Target
		ready := 0
		for i := range list.Items {
			pod := &list.Items[i]
			to := targets(pod, "tcp", servedPort)
			all = append(all, to...)
			if pod.Annotations["kubectl.kubernetes.io/restartedAt"] != "" && isReady(pod) {
				ready++
				known = append(known, to...)
			}
		}
		results, err := test.Dial(t.Context(), member(t, stranger, steady[0]), all, time.Second)
		must(t, err)
		for _, r := range results {
			refused.count("stranger", r, false)
		}
		// The list is a second old by now: these have been ready for that long.
		allowed.add(dial(t, member(t, friend, steady[1]), true, known...))
		if ready == int(n) && len(list.Items) == int(n) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d pods are ready", ready, n)
		}
	}
	x.heal = x.canary.await(t, time.Now())
	x.aside("… strangers call pods that go and pods that come", nothingWrong, refused)
	x.aside("… friends call new pods, one second after they are ready", nothingWrong, allowed)
}

func awaitRolled(t *testing.T, n int32) {
	t.Helper()
	within(t, 5*time.Minute, "the pods are ready", func(ctx context.Context) error {
		var d appsv1.Deployment
		if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "rolled"}, &d); err != nil {
			return err
		}
		if d.Status.ReadyReplicas != n || d.Status.UpdatedReplicas != n {
			return fmt.Errorf("%d of %d", d.Status.ReadyReplicas, n)
		}
		return nil
	})
}

// addressesReused gives the address of a friend that has just gone to a stranger, and that of a server to a pod that no policy speaks of.
func addressesReused(t *testing.T, x *trial) {
	var first tally
	for round := range 8 {
		old := startPod(t, servingPod(fmt.Sprintf("old-friend-%d", round), friend, third))
		to := targets(member(t, server, steady[round%2]), "tcp", servedPort)
		eventually(t, "the friend is let in", func(ctx context.Context) error { return want(ctx, old, to, reach.Open) })
		addresses := old.Status.PodIPs
		must(t, api.Delete(t.Context(), old))
		eventually(t, "the friend is gone", func(ctx context.Context) error {
			_, err := getPod(ctx, old.Name)
			if client.IgnoreNotFound(err) != nil {
				return err
			}
			if err == nil {
				return fmt.Errorf("it is still there")
			}
			return nil
		})
		allocateNext(t, third, addresses)
		dials := []string{"dial", "--timeout=2s"}
		for _, target := range to {
			dials = append(dials, target.String())
		}
		heir := pod(fmt.Sprintf("heir-%d", round), stranger, third, dials...)
		heir.Spec.RestartPolicy = corev1.RestartPolicyNever
		create(t, heir)
		var said string
		eventually(t, "the stranger has called", func(ctx context.Context) error {
			now, err := getPod(ctx, heir.Name)
			if err != nil {
				return err
			}
			if now.Status.Phase != corev1.PodSucceeded {
				return fmt.Errorf("it is %s", now.Status.Phase)
			}
			if len(now.Status.PodIPs) > 0 && now.Status.PodIPs[0] != addresses[0] {
				t.Fatalf("the heir got %v, not %v: nothing is tested", now.Status.PodIPs, addresses)
			}
			said, err = cluster.Output(test.Kubectl(ctx, "-n", namespace, "logs", heir.Name))
			return err
		})
		first.add(countLog(t, heir.Name, said, false))
		remove(t, heir)
	}
	x.aside("… strangers with a friend's former address, their first connections", nothingWrong, first)
	x.canary.toggle(t)
	x.heal = x.canary.await(t, time.Now())
}

// allocateNext has the node's CNI give these addresses to the next pod: host-local goes on from the last one that it gave.
func allocateNext(t *testing.T, node string, addresses []corev1.PodIP) {
	t.Helper()
	for i, ip := range addresses {
		previous := netip.MustParseAddr(ip.IP).Prev().String()
		file := test.Dir(node, "var", "lib", "cni", "networks", "ptp", fmt.Sprintf("last_reserved_ip.%d", i))
		must(t, os.WriteFile(file, []byte(previous), 0o644))
	}
}

func namespacesRelabelled(t *testing.T, x *trial) {
	const n = 20
	var all []*corev1.Namespace
	for i := range n {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("storm-%d", i)}}
		create(t, ns)
		all = append(all, ns)
	}
	policy := ingress("storm", server, friend, tcp(canaryPorts[0]), tcp(canaryPorts[1]))
	policy.Spec.Ingress[0].From[0].NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"storm": "in"}}
	create(t, policy)
	var callers []*corev1.Pod
	for _, ns := range all[:2] {
		caller := pod("caller", stranger, third, "serve", "--tcp=8080")
		caller.Namespace, caller.Labels[roleLabel] = ns.Name, friend
		must(t, createRetrying(t.Context(), caller))
		eventually(t, "the caller runs", func(ctx context.Context) error {
			err := api.Get(ctx, keyOf(caller), caller)
			if err == nil && !isReady(caller) {
				err = errNotReady(caller.Name)
			}
			return err
		})
		callers = append(callers, caller)
	}
	label := func(ns *corev1.Namespace, value string) {
		t.Helper()
		patch := fmt.Sprintf(`{"metadata":{"labels":{"storm":%q}}}`, value)
		must(t, api.Patch(t.Context(), ns, client.RawPatch(types.MergePatchType, []byte(patch))))
	}
	writes := 0
	for end := time.Now().Add(briefly()); time.Now().Before(end); writes++ {
		label(all[writes%n], []string{"in", "out"}[writes/n%2])
	}
	t.Log(writes, "labels written")
	label(all[0], "in")
	label(all[1], "out")
	x.canary.toggle(t)
	over := time.Now()
	to := append(targets(member(t, server, steady[0]), "tcp", canaryPorts[0]), targets(member(t, server, steady[0]), "tcp", canaryPorts[1])...)
	eventually(t, "the last labels are in force", func(ctx context.Context) error {
		return errors.Join(want(ctx, callers[0], to, reach.Open), want(ctx, callers[1], to, reach.TimedOut))
	})
	x.heal = x.canary.await(t, over)
}

func policiesStorm(t *testing.T, x *trial) {
	writes := 0
	for end := time.Now().Add(briefly()); time.Now().Before(end); writes += 2 {
		// It selects the pods that are called, allows them on a port that no pod calls, and names a group of its own.
		policy := ingress(fmt.Sprintf("storm-%d", writes), []string{server, friend}[writes/2%2], stranger, tcp(9999))
		policy.Spec.Ingress = append(policy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}, PodSelector: role(stranger)}},
			Ports: []networkingv1.NetworkPolicyPort{tcp(9998)},
		})
		if policy.Spec.PodSelector.MatchLabels[roleLabel] == friend { // whom strangers may call
			policy.Spec.Ingress[0].Ports = []networkingv1.NetworkPolicyPort{tcp(servedPort)}
		}
		must(t, api.Create(t.Context(), policy))
		must(t, api.Delete(t.Context(), policy))
	}
	t.Log(writes, "writes of policies")
	x.canary.toggle(t)
	x.heal = x.canary.await(t, time.Now())
}

// countLog counts what `probe dial` of a pod has printed.
func countLog(t *testing.T, name, log string, allowed bool) tally {
	t.Helper()
	var sum tally
	for line := range strings.Lines(log) {
		var r reach.Result
		must(t, json.Unmarshal([]byte(line), &r))
		sum.count(name, r, allowed)
	}
	return sum
}
