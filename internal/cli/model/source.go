package model

import (
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// source is where an object was read from.
type source struct {
	file     string
	document *document
	path     string // to the object in the Lists of the document
	// kind and name are those of an object that kustomize made from the file: its document is looked for when it is needed.
	kind, name string
}

// Position is a line of a file, from 1.
type Position struct {
	File string
	Line int
}

// Describe is "Kind namespace/name", or "Kind name" of an object without a namespace.
func Describe(kind string, o metav1.Object) string {
	return kind + " " + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
}

// remember where a policy or a namespace was read from.
func (c *Cluster) remember(i *item, from source) {
	object := i.describe()
	switch i.object.(type) {
	case *networkingv1.NetworkPolicy, *cnp.ClusterNetworkPolicy, *corev1.Namespace:
		object = Describe(i.Kind, i.object)
	default:
		if !isAdminPolicy(i.TypeMeta) && i.TypeMeta != applicationType {
			return
		}
	}
	if c.sources == nil {
		c.sources = map[string]source{}
	}
	c.sources[object] = from
}

// Position of a field of an object, which Describe describes; of the next field above it where the object does not have that one. False
// for an object that was not read from a file. For one that kustomize built, it is the position in the file that kustomize read it from.
func (c *Cluster) Position(object, path string) (Position, bool) {
	s, ok := c.sources[object]
	if !ok {
		return Position{}, false
	}
	if s.document == nil {
		if s.document = original(s.file, s.kind, s.name); s.document == nil {
			return Position{}, false
		}
	}
	return Position{s.file, s.document.lineOf(s.path + path)}, true
}

// lineOf a path in the document, from 1 in its file.
func (d *document) lineOf(path string) int {
	text := d.text
	if text == nil {
		text = d.json
	}
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(text, &document); err != nil || len(document.Content) == 0 {
		return d.line
	}
	return d.line + lineOf(document.Content[0], path) - 1
}

var step = regexp.MustCompile(`^\.?(?:\[(\d+)\]|([^.\[]+))`)

// lineOf a path below a node, such as spec.ingress[0].from.
func lineOf(n *yamlv3.Node, path string) int {
	line := n.Line
	for path != "" {
		m := step.FindStringSubmatch(path)
		if m == nil {
			break
		}
		path = path[len(m[0]):]
		if n.Kind == yamlv3.AliasNode {
			n = n.Alias
		}
		next := (*yamlv3.Node)(nil)
		switch {
		case m[1] != "" && n.Kind == yamlv3.SequenceNode:
			if i, err := strconv.Atoi(m[1]); err == nil && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		case m[2] != "" && n.Kind == yamlv3.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == m[2] {
					next = n.Content[i+1]
					line = n.Content[i].Line
				}
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return line
}
