package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

var kinds = map[string]bool{
	"Namespace": true, "Pod": true, "Service": true, "EndpointSlice": true, "Node": true, "NetworkPolicy": true, "Deployment": true, "ReplicaSet": true,
	"ReplicationController": true, "StatefulSet": true, "DaemonSet": true, "Job": true, "CronJob": true,
}

// item is one object, and what it is.
type item struct {
	head
	raw   []byte
	where string // in the Lists around it
	add   func(*Manifests)
	err   error
}

type head struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// itemsOf a document: its object, or those of a List.
func itemsOf(raw []byte) ([]*item, error) {
	i := &item{raw: raw}
	if len(raw) > 0 && raw[0] != '{' && string(raw) != "null" {
		return nil, errors.New("this is no object: put --- between objects, or put them into a List")
	}
	if err := json.Unmarshal(raw, &i.head); err != nil {
		return nil, err
	}
	if !strings.HasSuffix(i.Kind, "List") || i.Items == nil {
		return []*item{i}, nil
	}
	var out []*item
	for n, raw := range i.Items {
		within, err := itemsOf(raw)
		if err != nil {
			return out, fmt.Errorf("items[%d]: %w", n, err)
		}
		for _, o := range within {
			if o.Kind == "" { // items of a typed list need not say what they are
				o.Kind, o.APIVersion = strings.TrimSuffix(i.Kind, "List"), i.APIVersion
			}
			o.where = fmt.Sprintf("items[%d]: %s", n, o.where)
			out = append(out, o)
		}
	}
	return out, nil
}

// decode finds out what there is to add.
func (i *item) decode() {
	if i.add, i.err = i.object(); i.err != nil {
		i.err = fmt.Errorf("%s%s %s: %w", i.where, i.Kind, strings.TrimPrefix(i.Metadata.Namespace+"/"+i.Metadata.Name, "/"), i.err)
	}
}

func (i *item) addTo(m *Manifests) error {
	switch {
	case i.add != nil:
		i.add(m)
	case m.Other != nil:
		return m.Other(i.TypeMeta, i.raw)
	}
	return nil
}

func (i *item) object() (func(*Manifests), error) {
	switch i.GroupVersionKind().Group + "/" + i.Kind {
	case "/Namespace":
		return decode(i.raw, func(m *Manifests, o *corev1.Namespace) { m.cluster.Namespaces = append(m.cluster.Namespaces, *o) })
	case "/Node":
		return decode(i.raw, func(m *Manifests, o *corev1.Node) { m.cluster.Nodes = append(m.cluster.Nodes, *o) })
	case "/Service":
		return decode(i.raw, func(m *Manifests, o *corev1.Service) {
			m.place(o)
			m.cluster.Services = append(m.cluster.Services, *o)
		})
	case "discovery.k8s.io/EndpointSlice":
		return decode(i.raw, func(m *Manifests, o *discoveryv1.EndpointSlice) {
			m.place(o)
			m.cluster.EndpointSlices = append(m.cluster.EndpointSlices, *o)
		})
	case "networking.k8s.io/NetworkPolicy":
		return decodePolicy(i.raw)
	case "/Pod":
		return decode(i.raw, addPod)
	case "apps/Deployment":
		return decodeTemplate(i.raw, fromDeployment)
	case "apps/ReplicaSet":
		return decodeTemplate(i.raw, fromReplicaSet)
	case "/ReplicationController":
		return decodeTemplate(i.raw, fromReplicationController)
	case "apps/StatefulSet":
		return decodeTemplate(i.raw, fromStatefulSet)
	case "apps/DaemonSet":
		return decodeTemplate(i.raw, fromDaemonSet)
	case "batch/Job":
		return decodeTemplate(i.raw, fromJob)
	case "batch/CronJob":
		return decodeTemplate(i.raw, fromCronJob)
	}
	return nil, nil // of no concern to policies
}

func decode[T any](raw []byte, add func(*Manifests, *T)) (func(*Manifests), error) {
	o := new(T)
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, o); err != nil {
		return nil, err
	}
	return func(m *Manifests) { add(m, o) }, nil
}

// decodePolicy refuses a misspelt field, which changes what a policy means; kubectl apply refuses it too.
func decodePolicy(raw []byte) (func(*Manifests), error) {
	o := &networkingv1.NetworkPolicy{}
	strict, err := kjson.UnmarshalStrict(raw, o)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	return func(m *Manifests) {
		m.place(o)
		m.cluster.Policies = append(m.cluster.Policies, *o)
	}, nil
}

func decodeTemplate[T any](raw []byte, read func(*T) *template) (func(*Manifests), error) {
	return decode(raw, func(m *Manifests, o *T) {
		m.place(any(o).(metav1.Object))
		if t := read(o); t != nil {
			m.templates = append(m.templates, t)
		}
	})
}

func addPod(m *Manifests, o *corev1.Pod) {
	m.place(o)
	m.cluster.Pods = append(m.cluster.Pods, Pod{Pod: *o, Workload: WorkloadOf(o), Synthetic: o.Status.Phase == ""}) // nobody has seen it run
}
