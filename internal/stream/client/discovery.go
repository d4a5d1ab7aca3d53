package client

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/kidoban/kidoban/internal/stream"
)

// controllerLabels select the controller's pods in kidoban's namespace.
const controllerLabels = "app.kubernetes.io/name=kidoban,app.kubernetes.io/component=controller"

// Replicas returns Options.Replicas that watches the controller's pods: cluster DNS may be behind policies that this agent enforces.
func Replicas(api corev1client.CoreV1Interface, namespace string) func(context.Context, func(map[string]struct{})) {
	return func(ctx context.Context, set func(map[string]struct{})) {
		watched := toolscache.NewFilteredListWatchFromClient(api.RESTClient(), "pods", namespace,
			func(o *metav1.ListOptions) { o.LabelSelector = controllerLabels })
		informer := toolscache.NewSharedInformer(watched, &corev1.Pod{}, 0)
		changed := make(chan struct{}, 1)
		notify := func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		_, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { notify() }, UpdateFunc: func(any, any) { notify() }, DeleteFunc: func(any) { notify() },
		})
		if err != nil {
			panic(err) // the informer has not been started
		}
		go informer.RunWithContext(ctx)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			addresses := map[string]struct{}{}
			for _, obj := range informer.GetStore().List() {
				if address, ok := addressOf(obj.(*corev1.Pod)); ok {
					addresses[address] = struct{}{}
				}
			}
			set(addresses)
		}
	}
}

// addressOf returns where a pod of the controller serves the stream; false if it does not.
func addressOf(pod *corev1.Pod) (string, bool) {
	if pod.Status.PodIP == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return "", false
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == stream.PortName {
				return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(p.ContainerPort))), true
			}
		}
	}
	return "", false
}

// Authority returns Options.Authority that reads the ConfigMap, which the controller alone may write.
func Authority(api corev1client.CoreV1Interface, namespace string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		cm, err := api.ConfigMaps(namespace).Get(ctx, stream.CAConfigMap, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if cm.Data[stream.CAKey] == "" {
			return nil, fmt.Errorf("ConfigMap %s/%s has no key %s", namespace, stream.CAConfigMap, stream.CAKey)
		}
		return []byte(cm.Data[stream.CAKey]), nil
	}
}
