package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/policy"
)

// workloadKinds are the kinds of workloads by the names that kubectl takes for them.
var workloadKinds = map[string]string{
	"pod": "Pod", "pods": "Pod", "po": "Pod",
	"deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment",
	"statefulset": "StatefulSet", "statefulsets": "StatefulSet", "sts": "StatefulSet",
	"daemonset": "DaemonSet", "daemonsets": "DaemonSet", "ds": "DaemonSet",
	"replicaset": "ReplicaSet", "replicasets": "ReplicaSet", "rs": "ReplicaSet",
	"replicationcontroller": "ReplicationController", "replicationcontrollers": "ReplicationController", "rc": "ReplicationController",
	"job": "Job", "jobs": "Job",
	"cronjob": "CronJob", "cronjobs": "CronJob", "cj": "CronJob",
}

// Name is what a person calls a workload or a pod: "name", "namespace/name", "kind/name" or "kind/namespace/name".
type Name struct {
	// Kind is empty where the name does not say it.
	Kind            string
	Namespace, Name string
}

// ParseName reads a name; one without a namespace is in the given one. The first of two parts is a kind if it is a name of one, as in
// deploy/web, and a namespace otherwise.
func ParseName(text, namespace string) (Name, error) {
	parts := strings.Split(text, "/")
	kind := workloadKinds[strings.ToLower(parts[0])]
	switch {
	case slices.Contains(parts, ""):
	case len(parts) == 1:
		return Name{Namespace: namespace, Name: text}, nil
	case len(parts) == 2 && kind != "":
		return Name{kind, namespace, parts[1]}, nil
	case len(parts) == 2:
		return Name{Namespace: parts[0], Name: parts[1]}, nil
	case len(parts) == 3 && kind != "":
		return Name{kind, parts[1], parts[2]}, nil
	}
	return Name{}, fmt.Errorf("%q is not namespace/name, kind/name or kind/namespace/name", text)
}

// IsOf reports whether the name is that of a workload.
func (n Name) IsOf(w Workload) bool {
	return n.Name == w.Name && n.Namespace == w.Namespace && (n.Kind == "" || n.Kind == w.Kind)
}

// KindOr is the kind, or another word where the name does not say it.
func (n Name) KindOr(word string) string { return cmp.Or(n.Kind, word) }

// CutService cuts the kind off the name of a Service, as in svc/web.
func CutService(text string) (name string, ok bool) {
	kind, name, _ := strings.Cut(text, "/")
	switch strings.ToLower(kind) {
	case "svc", "service", "services":
		return name, name != ""
	}
	return text, false
}

// FindService finds a Service by "name" or "namespace/name"; one without a namespace is in the given one.
func (c *Cluster) FindService(text, namespace string) (*corev1.Service, error) {
	name := text
	if ns, rest, ok := strings.Cut(text, "/"); ok {
		namespace, name = ns, rest
	}
	for i := range c.Services {
		if s := &c.Services[i]; s.Namespace == namespace && s.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no Service %s/%s", namespace, name)
}

// ServicePods are the pods behind a Service: those that it selects or, without a selector, those at the addresses of its endpoints.
func (c *Cluster) ServicePods(s *corev1.Service) ([]*Pod, error) {
	is := func(p *Pod) bool { return labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels)) }
	if len(s.Spec.Selector) == 0 {
		var addresses []netip.Addr
		for i := range s.Spec.Ports {
			for _, b := range c.Backends(s, &s.Spec.Ports[i]) {
				addresses = append(addresses, b.Address.Addr())
			}
		}
		is = func(p *Pod) bool {
			return slices.ContainsFunc(policy.PodAddresses(&p.Pod), func(a netip.Addr) bool { return slices.Contains(addresses, a) })
		}
	}
	var out []*Pod
	for i := range c.Pods {
		if p := &c.Pods[i]; p.Namespace == s.Namespace && is(p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no pods behind Service %s/%s", s.Namespace, s.Name)
	}
	return out, nil
}

// FindWorkloads returns the workloads of a name with pods that have addresses of their own. There are several where a name
// without a kind is that of two, and where a Service has pods of several.
func (c *Cluster) FindWorkloads(text, namespace string) ([]Workload, error) {
	if name, ok := CutService(text); ok {
		return c.serviceWorkloads(name, namespace)
	}
	name, err := ParseName(text, namespace)
	if err != nil {
		return nil, err
	}
	var found []Workload
	var there []string
	for _, w := range c.Workloads() {
		switch {
		case name.IsOf(w):
			found = append(found, w)
		case w.Namespace == name.Namespace:
			there = append(there, w.Name)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(there) > 0:
		return nil, fmt.Errorf("no %s %s in namespace %s; there are %s", name.KindOr("workload"), name.Name, name.Namespace, shorten(there))
	}
	return nil, fmt.Errorf("no %s %s, and none at all in namespace %s", name.KindOr("workload"), name.Name, name.Namespace)
}

func (c *Cluster) serviceWorkloads(name, namespace string) ([]Workload, error) {
	s, err := c.FindService(name, namespace)
	if err != nil {
		return nil, err
	}
	pods, err := c.ServicePods(s)
	if err != nil {
		return nil, err
	}
	var out []Workload
	for _, p := range pods {
		if policy.IsPeer(&p.Pod) && !slices.Contains(out, p.Workload) {
			out = append(out, p.Workload)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the pods behind Service %s/%s have no addresses of their own", s.Namespace, s.Name)
	}
	return out, nil
}
