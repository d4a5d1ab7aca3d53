package model

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Manifests collects the objects of documents.
type Manifests struct {
	// Namespace of objects that do not say theirs.
	Namespace string

	cluster   Cluster
	templates []*template
}

// Read takes in the documents of a stream of YAML or JSON. name is what errors call it. Of an object that was read before the last
// one counts, as with kubectl apply.
func (m *Manifests) Read(name string, r io.Reader) error {
	buffered := bufio.NewReaderSize(r, 1<<16)
	if isJSON(buffered) {
		decoder := json.NewDecoder(buffered)
		for n := 1; ; n++ {
			var raw json.RawMessage
			err := decoder.Decode(&raw)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = m.object(raw)
			}
			if err != nil {
				return fmt.Errorf("%s: document %d: %w", name, n, err)
			}
		}
	}
	var documents []*document
	for reader := utilyaml.NewYAMLReader(buffered); ; {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: document %d: %w", name, len(documents)+1, err)
		}
		documents = append(documents, &document{yaml: text})
	}
	translate(documents)
	for i, d := range documents {
		err := d.err
		if err == nil && d.json != nil {
			err = m.object(d.json)
		}
		if err != nil {
			return fmt.Errorf("%s: document %d: %w", name, i+1, err)
		}
	}
	return nil
}

type document struct {
	yaml, json []byte
	err        error
}

// translate makes JSON of the documents that concern policies, on all CPUs: of reading a big cluster it is most.
func translate(documents []*document) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(documents); i = int(next.Add(1)) - 1 {
				documents[i].translate()
			}
		})
	}
	wg.Wait()
}

func (d *document) translate() {
	if !concerns(d.yaml) {
		return
	}
	d.json, d.err = yaml.YAMLToJSON(d.yaml)
	if d.err != nil && bytes.Contains(d.yaml, []byte("{{")) {
		d.err = errors.New("this is a template: render it first, as by `helm template CHART | kubectl kidoban … -f -`")
	}
}

func isJSON(r *bufio.Reader) bool {
	head, _ := r.Peek(1 << 10)
	return bytes.HasPrefix(bytes.TrimSpace(head), []byte("{"))
}

// concerns is false for a document whose kind, in plain sight, is none of ours: most of a chart need not be parsed.
func concerns(document []byte) bool {
	for line := range bytes.Lines(document) {
		if kind, ok := bytes.CutPrefix(line, []byte("kind:")); ok {
			name := strings.Trim(string(bytes.TrimSpace(kind)), `"'`)
			return kinds[name] || strings.HasSuffix(name, "List") || strings.ContainsAny(name, "{#&")
		}
	}
	return true
}

var kinds = map[string]bool{
	"Namespace": true, "Pod": true, "Service": true, "EndpointSlice": true, "Node": true, "NetworkPolicy": true, "Deployment": true, "ReplicaSet": true,
	"ReplicationController": true, "StatefulSet": true, "DaemonSet": true, "Job": true, "CronJob": true,
}

func (m *Manifests) object(raw []byte) error {
	var o struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if string(bytes.TrimSpace(raw)) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	if strings.HasSuffix(o.Kind, "List") && o.Items != nil {
		item := strings.TrimSuffix(o.Kind, "List")
		for i, raw := range o.Items {
			if item != "" { // items of a typed list need not say what they are
				raw = typed(raw, item, o.APIVersion)
			}
			if err := m.object(raw); err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
		}
		return nil
	}
	if err := m.add(o.GroupVersionKind().Group, o.Kind, raw); err != nil {
		return fmt.Errorf("%s %s: %w", o.Kind, strings.TrimPrefix(o.Metadata.Namespace+"/"+o.Metadata.Name, "/"), err)
	}
	return nil
}

func typed(raw json.RawMessage, kind, apiVersion string) json.RawMessage {
	var t metav1.TypeMeta
	if json.Unmarshal(raw, &t) != nil || t.Kind != "" || !bytes.HasPrefix(raw, []byte("{")) {
		return raw
	}
	head, _ := json.Marshal(metav1.TypeMeta{Kind: kind, APIVersion: apiVersion})
	rest := bytes.TrimSpace(raw[1:])
	if !bytes.HasPrefix(rest, []byte("}")) {
		head = append(head[:len(head)-1], ',')
		return append(head, rest...)
	}
	return head
}

func (m *Manifests) add(group, kind string, raw []byte) error {
	switch group + "/" + kind {
	case "/Namespace":
		return add(raw, &m.cluster.Namespaces, func(*corev1.Namespace) {})
	case "/Node":
		return add(raw, &m.cluster.Nodes, func(*corev1.Node) {})
	case "/Service":
		return add(raw, &m.cluster.Services, func(o *corev1.Service) { m.place(o) })
	case "discovery.k8s.io/EndpointSlice":
		return add(raw, &m.cluster.EndpointSlices, func(o *discoveryv1.EndpointSlice) { m.place(o) })
	case "networking.k8s.io/NetworkPolicy":
		// A misspelt field changes what a policy means; kubectl apply refuses it too.
		if err := strictly(raw); err != nil {
			return err
		}
		return add(raw, &m.cluster.Policies, func(o *networkingv1.NetworkPolicy) { m.place(o) })
	case "/Pod":
		return m.addPod(raw)
	case "apps/Deployment":
		return addTemplate(m, raw, fromDeployment)
	case "apps/ReplicaSet":
		return addTemplate(m, raw, fromReplicaSet)
	case "/ReplicationController":
		return addTemplate(m, raw, fromReplicationController)
	case "apps/StatefulSet":
		return addTemplate(m, raw, fromStatefulSet)
	case "apps/DaemonSet":
		return addTemplate(m, raw, fromDaemonSet)
	case "batch/Job":
		return addTemplate(m, raw, fromJob)
	case "batch/CronJob":
		return addTemplate(m, raw, fromCronJob)
	}
	return nil // of no concern to policies
}

func strictly(raw []byte) error {
	strict, err := kjson.UnmarshalStrict(raw, &networkingv1.NetworkPolicy{})
	return errors.Join(append(strict, err)...)
}

func add[T any](raw []byte, list *[]T, place func(*T)) error {
	var o T
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &o); err != nil {
		return err
	}
	place(&o)
	*list = append(*list, o)
	return nil
}

func addTemplate[T any](m *Manifests, raw []byte, read func(*T) *template) error {
	var o T
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &o); err != nil {
		return err
	}
	m.place(any(&o).(metav1.Object))
	if t := read(&o); t != nil {
		m.templates = append(m.templates, t)
	}
	return nil
}

func (m *Manifests) addPod(raw []byte) error {
	var o Pod
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &o.Pod); err != nil {
		return err
	}
	m.place(&o)
	o.Workload = WorkloadOf(&o.Pod)
	o.Synthetic = o.Status.Phase == "" // nobody has seen it run
	m.cluster.Pods = append(m.cluster.Pods, o)
	return nil
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
