//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/policy"
)

// The world: on each of the steady nodes a server, a friend and a stranger. Servers let friends in, on one port; friends may call servers,
// and to no other pod. No policy is about strangers.
const (
	namespace = "chaos"
	roleLabel = "role"
	server    = "server"
	friend    = "friend"
	stranger  = "stranger"

	servedPort = 8080 // TCP and UDP: open to friends
	shutPort   = 8081 // open to no pod
)

// canaryPorts are open to friends in turn: that a change is in force everywhere shows by them.
var canaryPorts = [2]uint16{8082, 8083}

func makeWorld(ctx context.Context) error {
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		ingress("server", server, friend, udp(servedPort), tcp(servedPort)),
		canaryPolicy(),
		&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "friend"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: *role(friend),
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
				Egress:      []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{PodSelector: role(server)}}}},
			},
		},
	}
	for _, node := range steady {
		for _, r := range []string{server, friend, stranger} {
			p := servingPod(r+"-"+node, r, node)
			// Where the machine is busy with other things, one that asks for nothing is let wait for seconds.
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")}
			objects = append(objects, p)
		}
	}
	for _, o := range objects {
		if err := createRetrying(ctx, o); err != nil {
			return err
		}
	}
	return wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		for _, node := range steady {
			for _, r := range []string{server, friend, stranger} {
				if pod, err := getPod(ctx, r+"-"+node); err != nil || !isReady(pod) {
					return false, err
				}
			}
		}
		return true, nil
	})
}

// createRetrying waits for the namespace's service account, which a pod needs, and takes what is there already.
func createRetrying(ctx context.Context, o client.Object) error {
	return wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		err := api.Create(ctx, o)
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return true, client.IgnoreAlreadyExists(err)
	})
}

func role(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{roleLabel: name}}
}

// ingress lets pods of a role reach those of another on some ports.
func ingress(name, to, from string, ports ...networkingv1.NetworkPolicyPort) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *role(to),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{PodSelector: role(from)}}, Ports: ports,
			}},
		},
	}
}

// egressTo is a rule for a named port of a role's pods.
func egressTo(to, port string) networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{
		To:    []networkingv1.NetworkPolicyPeer{{PodSelector: role(to)}},
		Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromString(port))}},
	}
}

func canaryPolicy() *networkingv1.NetworkPolicy {
	return ingress("canary", server, friend, tcp(canaryPorts[0]))
}

func tcp(port uint16) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromInt32(int32(port)))}
}

func udp(port uint16) networkingv1.NetworkPolicyPort {
	p := tcp(port)
	p.Protocol = ptr.To(corev1.ProtocolUDP)
	return p
}

// servingPod answers on all ports of the world, as the pods of every role do.
func servingPod(name, role, node string) *corev1.Pod {
	return pod(name, role, node, "serve", fmt.Sprintf("--tcp=%d,%d,%d,%d", servedPort, shutPort, canaryPorts[0], canaryPorts[1]), fmt.Sprintf("--udp=%d", servedPort))
}

func pod(name, role, node string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{roleLabel: role}},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			Containers:                    []corev1.Container{{Name: "probe", Image: "kidoban.dev/probe:dev", Args: args}},
			// A node that comes back must find its pods as they were.
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
}

func getPod(ctx context.Context, name string) (*corev1.Pod, error) {
	var pod corev1.Pod
	return &pod, api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod)
}

func isReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// startPod makes a pod that the test deletes at its end, and waits until it is ready.
func startPod(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	create(t, pod)
	return awaitPod(t, pod.Name)
}

func awaitPod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	var ready *corev1.Pod
	eventually(t, "pod "+name+" is ready", func(ctx context.Context) error {
		pod, err := getPod(ctx, name)
		if err == nil && !isReady(pod) {
			err = fmt.Errorf("it is %s", pod.Status.Phase)
		}
		ready = pod
		return err
	})
	return ready
}

// create makes objects that the test deletes at its end.
func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		must(t, api.Create(t.Context(), o))
		t.Cleanup(func() { remove(t, o) })
	}
}

// remove deletes an object, if it is there, also after the test's end.
func remove(t *testing.T, o client.Object) {
	t.Helper()
	if err := api.Delete(context.Background(), o, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}

// member is a pod of the world: server, friend or stranger of a steady node.
func member(t *testing.T, role, node string) *corev1.Pod {
	t.Helper()
	pod, err := getPod(t.Context(), role+"-"+node)
	must(t, err)
	return pod
}

// targets are a port at all addresses of a pod.
func targets(pod *corev1.Pod, protocol string, port uint16) []reach.Target {
	var out []reach.Target
	for _, address := range policy.PodAddresses(pod) {
		out = append(out, reach.Target{Protocol: protocol, Address: netip.AddrPortFrom(address, port)})
	}
	return out
}
