package model

import (
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Manifests collects the objects of documents.
type Manifests struct {
	// Namespace of objects that do not say theirs.
	Namespace string
	// Other, if it is set, is given the objects of all kinds that are of no concern here, as JSON. Items of Lists may have their type
	// from the List.
	Other func(t metav1.TypeMeta, raw []byte) error

	cluster   Cluster
	templates []*template
}

// Read takes in the documents of a stream of YAML or JSON. name is what errors call it. Of an object that was read before the last
// one counts, as with kubectl apply.
func (m *Manifests) Read(name string, r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return m.read([]*file{{name: name, text: text}})
}

func (m *Manifests) place(o metav1.Object) {
	if o.GetNamespace() == "" {
		o.SetNamespace(m.Namespace)
	}
}

// Cluster is what the documents come to. The pods of workloads are made from their templates, where they are not in the
// documents themselves, and given addresses.
func (m *Manifests) Cluster() (*Cluster, error) {
	c := m.cluster
	c.Offline = true
	c.Namespaces = last(c.Namespaces)
	c.Nodes = last(c.Nodes)
	c.Services = last(c.Services)
	c.EndpointSlices = last(c.EndpointSlices)
	c.Policies = last(c.Policies)
	c.Pods = last(c.Pods)
	have := map[Workload]bool{}
	for i := range c.Pods {
		have[c.Pods[i].Workload] = true
	}
	latest := map[Workload]*template{}
	for _, t := range m.templates {
		latest[t.workload] = t
	}
	for w, t := range latest {
		if !have[w] {
			c.Pods = append(c.Pods, t.pods()...)
		}
	}
	c.Complete()
	return &c, c.addressPods()
}

// last keeps the last object of each name.
func last[T any](list []T) []T {
	at := map[string]int{}
	var out []T
	for i := range list {
		o := any(&list[i]).(metav1.Object)
		key := o.GetNamespace() + "/" + o.GetName()
		if j, ok := at[key]; ok {
			out[j] = list[i]
			continue
		}
		at[key] = len(out)
		out = append(out, list[i])
	}
	return out
}
