package controller

import (
	"fmt"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/stream"
)

// watched are the kinds in the controller's cache.
func watched() []client.Object {
	return []client.Object{&corev1.Namespace{}, &corev1.Pod{}, &corev1.Node{}, &corev1.Service{}, &discoveryv1.EndpointSlice{}, &networkingv1.NetworkPolicy{}, &v1alpha1.PolicyEndpoint{}, &v1alpha1.ClusterPolicyEndpoint{}, &v1alpha1.PolicyEndpointSlice{}}
}

// CacheOptions limits the manager's cache to what the controller uses: objects without the fields that it
// does not read, and only the PolicyEndpoints and slices with the controller's label.
func CacheOptions() cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController})}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                     {Transform: stripPod},
			&corev1.Namespace{}:               {Transform: stripNamespace},
			&corev1.Node{}:                    {Transform: stripNode},
			&corev1.Service{}:                 {Transform: stripService},
			&discoveryv1.EndpointSlice{}:      {Namespaces: map[string]cache.Config{kubeSystem: {}, openShiftDNS: {}}, Transform: stripEndpoints},
			&networkingv1.NetworkPolicy{}:     {Transform: stripPolicy},
			&v1alpha1.PolicyEndpoint{}:        {Label: ours.Label, Transform: stripEndpoint},
			&v1alpha1.ClusterPolicyEndpoint{}: ours,
			&v1alpha1.PolicyEndpointSlice{}:   ours,
		},
	}
}

// stripPolicy keeps an outline of a large policy: see loadPolicy.
func stripPolicy(in any) (any, error) {
	np, ok := in.(*networkingv1.NetworkPolicy)
	if !ok {
		return nil, fmt.Errorf("%T is not a NetworkPolicy", in)
	}
	np.ManagedFields, np.Annotations, np.OwnerReferences = nil, nil, nil
	enforcement, ok := np.Labels[v1alpha1.LabelEnforcement]
	if np.Labels = nil; ok {
		np.Labels = map[string]string{v1alpha1.LabelEnforcement: enforcement}
	}
	return resolver.OutlinePolicy(np), nil
}

// stripEndpoint keeps an outline of a large spec, which is enough to compare it.
func stripEndpoint(in any) (any, error) {
	pe, ok := in.(*v1alpha1.PolicyEndpoint)
	if !ok {
		return nil, fmt.Errorf("%T is not a PolicyEndpoint", in)
	}
	pe.ManagedFields = nil
	pe.Spec = *resolver.Outline(&pe.Spec)
	return pe, nil
}

func stripNamespace(in any) (any, error) {
	ns, ok := in.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("%T is not a Namespace", in)
	}
	return &corev1.Namespace{ObjectMeta: identity(&ns.ObjectMeta)}, nil
}

func stripPod(in any) (any, error) {
	pod, ok := in.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("%T is not a Pod", in)
	}
	out := &corev1.Pod{ObjectMeta: identity(&pod.ObjectMeta)}
	if static := pod.Annotations[corev1.MirrorPodAnnotationKey]; static != "" {
		out.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: static}
	}
	out.Spec.HostNetwork = pod.Spec.HostNetwork
	out.Spec.NodeName = unique.Make(pod.Spec.NodeName).Value() // one copy of each name
	if pod.Spec.ServiceAccountName == stream.AgentServiceAccount {
		out.Spec.ServiceAccountName = stream.AgentServiceAccount
	}
	out.Spec.Containers = stripContainers(pod.Spec.Containers)
	out.Spec.InitContainers = stripContainers(pod.Spec.InitContainers)
	out.Status.Phase = pod.Status.Phase
	out.Status.PodIPs = pod.Status.PodIPs
	return out, nil
}

func stripNode(in any) (any, error) {
	node, ok := in.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("%T is not a Node", in)
	}
	out := &corev1.Node{ObjectMeta: identity(&node.ObjectMeta)}
	out.Status.Addresses = node.Status.Addresses
	return out, nil
}

// stripService keeps ports of the cluster's DNS Services only, those at which they answer: a Service with ports is one of these.
func stripService(in any) (any, error) {
	s, ok := in.(*corev1.Service)
	if !ok {
		return nil, fmt.Errorf("%T is not a Service", in)
	}
	out := &corev1.Service{ObjectMeta: identity(&s.ObjectMeta)}
	out.Labels = nil
	if isDNSService(s) {
		out.Labels = map[string]string{dnsLabel: s.Labels[dnsLabel]} // an object may come here twice
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; isDNSPort(p) {
				out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: p.Port})
			}
		}
	}
	out.Spec.ClusterIPs = s.Spec.ClusterIPs
	out.Spec.ExternalIPs = s.Spec.ExternalIPs
	out.Status.LoadBalancer.Ingress = s.Status.LoadBalancer.Ingress
	return out, nil
}

func stripEndpoints(in any) (any, error) {
	e, ok := in.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, fmt.Errorf("%T is not an EndpointSlice", in)
	}
	out := &discoveryv1.EndpointSlice{ObjectMeta: identity(&e.ObjectMeta), AddressType: e.AddressType, Ports: e.Ports}
	for i := range e.Endpoints {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: e.Endpoints[i].Addresses})
	}
	return out, nil
}

// stripContainers keeps the named ports, and the containers that have any.
func stripContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range in {
		var ports []corev1.ContainerPort
		for _, p := range in[i].Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if ports != nil {
			out = append(out, corev1.Container{RestartPolicy: in[i].RestartPolicy, Ports: ports})
		}
	}
	return out
}

func identity(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels}
}
