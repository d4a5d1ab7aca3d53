package model

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// Manifests collects the objects of a cluster, from documents or from the API server.
type Manifests struct {
	// Namespace of objects that do not give theirs.
	Namespace string
	// Addressing of pods whose addresses are not known.
	Addressing Addressing
	// Live is set where the objects are all that the cluster has.
	Live bool
	// Other, if it is set, receives the objects of all kinds that are not read here, as JSON. Items of Lists may have their type
	// from the List.
	Other func(t metav1.TypeMeta, raw []byte) error
	// Notes are remarks for the user: files that were skipped.
	Notes []string

	cluster      Cluster
	templates    []*template
	endpoints    []*corev1.Endpoints                 //nolint:staticcheck // manifests still have them
	jobs         map[Workload]*metav1.OwnerReference // the controllers of Jobs, nil for a Job without one
	notEvaluated []string
	applications []string
	customs      []string
	generated    map[string]int
}

// Read the documents of a stream of YAML or JSON. name is the stream's name in errors. Of objects with the same name the
// last one counts, as with kubectl apply.
func (m *Manifests) Read(name string, r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return m.read([]*file{{name: name, text: text}})
}

// Add an object. The caller must not change it afterwards.
func (m *Manifests) Add(object metav1.Object) {
	m.place(object)
	c := &m.cluster
	switch o := object.(type) {
	case *corev1.Namespace:
		c.Namespaces = append(c.Namespaces, *o)
	case *corev1.Node:
		c.Nodes = append(c.Nodes, *o)
	case *corev1.Service:
		c.Services = append(c.Services, *o)
	case *corev1.Endpoints: //nolint:staticcheck // manifests still have them
		m.endpoints = append(m.endpoints, o)
	case *discoveryv1.EndpointSlice:
		c.EndpointSlices = append(c.EndpointSlices, *o)
	case *networkingv1.NetworkPolicy:
		c.Policies = append(c.Policies, *o)
	case *cnp.ClusterNetworkPolicy:
		c.ClusterPolicies = append(c.ClusterPolicies, *o)
	case *corev1.Pod:
		c.Pods = append(c.Pods, Pod{Pod: *o})
	default:
		if job, ok := object.(*batchv1.Job); ok {
			if m.jobs == nil {
				m.jobs = map[Workload]*metav1.OwnerReference{}
			}
			m.jobs[Workload{job.Namespace, "Job", job.Name}] = metav1.GetControllerOf(job)
		}
		if t, owner := templateOf(object); t != nil {
			t.owner = owner
			m.templates = append(m.templates, t)
		}
	}
}

// place an object into its namespace. An object with a generated name gets one that is its own.
func (m *Manifests) place(o metav1.Object) {
	switch o.(type) {
	case *corev1.Namespace, *corev1.Node, *cnp.ClusterNetworkPolicy:
	default:
		if o.GetNamespace() == "" {
			o.SetNamespace(m.Namespace)
		}
	}
	if o.GetName() == "" && o.GetGenerateName() != "" {
		if m.generated == nil {
			m.generated = map[string]int{}
		}
		key := fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetGenerateName())
		m.generated[key]++
		o.SetName(fmt.Sprintf("%s%05d", o.GetGenerateName(), m.generated[key]))
	}
}

// Cluster is the cluster of these objects. A workload without a pod that runs has the pods that its controller would make of its
// template, also where it is scaled to zero, waits for its next run or has ended. Pods without an address are given one.
func (m *Manifests) Cluster() (*Cluster, error) {
	c := m.cluster
	c.Offline = !m.Live
	c.Notes = slices.Clone(m.Notes)
	for _, note := range []struct {
		about string
		names []string
	}{
		{"not evaluated", m.notEvaluated},
		{"in force only with the controller's --application-network-policies", m.applications},
		{"read as workloads, by their pod templates alone", m.customs},
		{"not evaluated, as nothing enforces them (" + HintAdminPolicy + ")", c.AdminPolicies},
		{"given more than once, with differences (the last one counts)", repeated(c)},
	} {
		if len(note.names) > 0 {
			c.Notes = append(c.Notes, note.about+": "+shorten(note.names))
		}
	}
	c.Namespaces = last(c.Namespaces)
	c.Nodes = last(c.Nodes)
	c.Services = last(c.Services)
	c.EndpointSlices = last(c.EndpointSlices)
	c.Policies = last(c.Policies)
	c.ClusterPolicies = last(c.ClusterPolicies)
	c.Pods = last(c.Pods)
	m.addEndpoints(&c)
	have := map[Workload]bool{}
	for i := range c.Pods {
		p := &c.Pods[i]
		p.Workload = m.workloadOf(&p.Pod)
		have[p.Workload] = have[p.Workload] || !hasEnded(&p.Pod)
	}
	latest := map[Workload]*template{}
	for _, t := range m.templates {
		if t.owner == nil {
			latest[t.workload] = t
		}
	}
	for _, t := range m.templates { // of a ReplicaSet or a Job, where its own controller was not read
		if t.owner == nil {
			continue
		}
		w := Workload{t.workload.Namespace, t.owner.Kind, t.owner.Name}
		if latest[w] == nil && !have[w] && !t.old {
			t.workload = w
			latest[w] = t
		}
	}
	m.makePods(&c, latest, have)
	c.Complete()
	return &c, c.addressPods(m.Addressing)
}

// shorten a list of names for a line.
func shorten(names []string) string {
	if n := len(names); n > 6 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", n-5)
	}
	return strings.Join(names, ", ")
}

// repeated are the policies of which there are several, with different specs.
func repeated(c Cluster) (names []string) {
	at := map[string]any{}
	add := func(name string, spec any) {
		if old, ok := at[name]; ok && !slices.Contains(names, name) && !equalJSON(old, spec) {
			names = append(names, name)
		}
		at[name] = spec
	}
	for i := range c.Policies {
		add(Describe("NetworkPolicy", &c.Policies[i]), normal(&c.Policies[i]))
	}
	for i := range c.ClusterPolicies {
		add(Describe(ClusterPolicyKind, &c.ClusterPolicies[i]), c.ClusterPolicies[i].Spec)
	}
	return names
}

// makePods of those workloads that have none. Where two workloads would give the same name to theirs, the kind is in the second's.
func (m *Manifests) makePods(c *Cluster, templates map[Workload]*template, have map[Workload]bool) {
	taken := map[string]bool{}
	for i := range c.Pods {
		taken[c.Pods[i].Key()] = true
	}
	for _, w := range slices.SortedFunc(maps.Keys(templates), Workload.Compare) {
		if have[w] || m.Live && c.Namespace(w.Namespace) == nil {
			continue
		}
		pods := templates[w].pods()
		if slices.ContainsFunc(pods, func(p Pod) bool { return taken[p.Key()] }) {
			for i := range pods {
				pods[i].Name = fmt.Sprintf("%s-%s-%d", w.Name, strings.ToLower(w.Kind), i)
			}
		}
		for i := range pods {
			taken[pods[i].Key()] = true
		}
		c.Pods = append(c.Pods, pods...)
	}
}

// addEndpoints as the EndpointSlices that Kubernetes makes of them, where those were not read.
func (m *Manifests) addEndpoints(c *Cluster) {
	sliced := map[string]bool{}
	for i := range c.EndpointSlices {
		es := &c.EndpointSlices[i]
		sliced[es.Namespace+"/"+es.Labels[discoveryv1.LabelServiceName]] = true
	}
	for _, e := range m.endpoints {
		if sliced[e.Namespace+"/"+e.Name] {
			continue
		}
		for _, subset := range e.Subsets {
			es := discoveryv1.EndpointSlice{}
			es.Namespace, es.Name, es.Labels = e.Namespace, e.Name, map[string]string{discoveryv1.LabelServiceName: e.Name}
			for i := range subset.Ports {
				p := &subset.Ports[i]
				es.Ports = append(es.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &p.Port})
			}
			for _, a := range subset.Addresses {
				es.Endpoints = append(es.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.IP}})
			}
			c.EndpointSlices = append(c.EndpointSlices, es)
		}
	}
}

// hasEnded reports whether a pod runs no more.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
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
