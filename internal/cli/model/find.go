package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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

// FindWorkloads returns the workloads of a name with pods that have addresses of their own. There are several where a name
// without a kind is that of two.
func (c *Cluster) FindWorkloads(text, namespace string) ([]Workload, error) {
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
