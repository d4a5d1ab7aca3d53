package replicas

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
)

// Watch reports the addresses of all replicas each time they change, until the context is done.
type Watch func(ctx context.Context, set func(addresses map[string]struct{}))

// Component is what serves agents.
type Component struct {
	// Namespace and Name, the value of the label app.kubernetes.io/component, select its pods.
	Namespace, Name string
	// PortName is the name of the container port that it serves on.
	PortName string
	// Choose returns the pods to connect to; nil: all.
	Choose func([]*corev1.Pod) []*corev1.Pod
}

// WatchPods watches the pods of a component.
func WatchPods(api corev1client.CoreV1Interface, c Component) Watch {
	return func(ctx context.Context, set func(map[string]struct{})) {
		watched := toolscache.NewFilteredListWatchFromClient(api.RESTClient(), "pods", c.Namespace,
			func(o *metav1.ListOptions) {
				o.LabelSelector = "app.kubernetes.io/name=kidoban,app.kubernetes.io/component=" + c.Name
			})
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
			set(c.addresses(informer.GetStore().List()))
		}
	}
}

func (c *Component) addresses(objects []any) map[string]struct{} {
	var pods []*corev1.Pod
	for _, obj := range objects {
		if pod := obj.(*corev1.Pod); c.addressOf(pod) != "" {
			pods = append(pods, pod)
		}
	}
	if c.Choose != nil {
		pods = c.Choose(pods)
	}
	addresses := map[string]struct{}{}
	for _, pod := range pods {
		addresses[c.addressOf(pod)] = struct{}{}
	}
	return addresses
}

// addressOf returns where a pod serves; empty if it does not.
func (c *Component) addressOf(pod *corev1.Pod) string {
	if pod.Status.PodIP == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return ""
	}
	for _, container := range pod.Spec.Containers {
		for _, p := range container.Ports {
			if p.Name == c.PortName {
				return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(p.ContainerPort)))
			}
		}
	}
	return ""
}

// Authority returns the certificates, PEM, by which the replicas' certificates are verified.
type Authority func(ctx context.Context) ([]byte, error)

// ReadAuthority reads an Authority below a key of a ConfigMap.
func ReadAuthority(api corev1client.CoreV1Interface, namespace, name, key string) Authority {
	return func(ctx context.Context) ([]byte, error) {
		cm, err := api.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if cm.Data[key] == "" {
			return nil, fmt.Errorf("ConfigMap %s/%s has no key %s", namespace, name, key)
		}
		return []byte(cm.Data[key]), nil
	}
}
