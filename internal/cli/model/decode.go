package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
)

// item is one object, and what it is.
type item struct {
	head
	raw    []byte
	where  string // in the Lists around it
	object metav1.Object
	err    error
}

type head struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Namespace    scalar `json:"namespace"`
		Name         scalar `json:"name"`
		GenerateName scalar `json:"generateName"`
	} `json:"metadata"`
	Items json.RawMessage `json:"items"`
}

// scalar is a string or, in an object that is not read, what YAML takes a name such as y or 10 for.
type scalar string

// UnmarshalJSON never fails: objects that are read are decoded into their own types, which do.
func (s *scalar) UnmarshalJSON(text []byte) error {
	var out string
	if json.Unmarshal(text, &out) != nil {
		out = string(text)
	}
	*s = scalar(out)
	return nil
}

var errNotObject = errors.New("not a Kubernetes object")

// itemsOf a document: its object, or those of a List. lists counts the Lists.
func itemsOf(raw []byte) (items []*item, lists int, err error) {
	if string(raw) == "null" {
		return nil, 0, nil
	}
	if len(raw) > 0 && raw[0] != '{' {
		return nil, 0, fmt.Errorf("%w: put --- between objects, or put them into a List", errNotObject)
	}
	i := &item{raw: raw}
	if strict, err := kjson.UnmarshalStrict(raw, &i.head, kjson.DisallowDuplicateFields); err != nil {
		if i.Kind == "" {
			err = fmt.Errorf("%w: %w", errNotObject, err)
		}
		return nil, 0, err
	} else if len(strict) > 0 {
		return nil, 0, errors.Join(strict...)
	}
	switch {
	case i.Kind == "":
		return nil, 0, fmt.Errorf("%w: it has no kind", errNotObject)
	case strings.HasSuffix(i.Kind, "List") && i.Items != nil, i.Kind == "List":
	default:
		return []*item{i}, 0, nil
	}
	var list []json.RawMessage
	if i.Items != nil {
		if err := json.Unmarshal(i.Items, &list); err != nil {
			return nil, 0, fmt.Errorf("items of %s: %w", i.Kind, err)
		}
	}
	lists = 1
	for n, raw := range list {
		raw = bytes.TrimSpace(raw)
		within, more, err := itemsWithin(raw, i.TypeMeta)
		if err != nil {
			return items, lists, fmt.Errorf("items[%d]: %w", n, err)
		}
		lists += more
		for _, o := range within {
			o.where = fmt.Sprintf("items[%d]: %s", n, o.where)
			items = append(items, o)
		}
	}
	return items, lists, nil
}

// itemsWithin a List. Items of a typed List need not give their type.
func itemsWithin(raw []byte, list metav1.TypeMeta) ([]*item, int, error) {
	kind := strings.TrimSuffix(list.Kind, "List")
	items, lists, err := itemsOf(raw)
	if kind == "" || !errors.Is(err, errNotObject) || len(raw) == 0 || raw[0] != '{' {
		return items, lists, err
	}
	i := &item{raw: raw}
	if err := json.Unmarshal(raw, &i.head); err != nil || i.Kind != "" {
		return nil, 0, fmt.Errorf("%w: %w", errNotObject, err)
	}
	i.Kind, i.APIVersion = kind, list.APIVersion
	return []*item{i}, 0, nil
}

// decode the object, if it is of a kind that is read.
func (i *item) decode() { i.err = i.read() }

// path to the object in the text of its document.
func (i *item) path() string { return strings.ReplaceAll(i.where, ": ", ".") }

// describe is "Kind namespace/name".
func (i *item) describe() string {
	name := i.Metadata.Name
	if name == "" && i.Metadata.GenerateName != "" {
		name = i.Metadata.GenerateName + "*"
	}
	return i.Kind + " " + strings.TrimPrefix(string(i.Metadata.Namespace+"/"+name), "/")
}

// describeOther is as describe, with the group of a kind that has the name of one of Kubernetes'.
func (i *item) describeOther() string {
	if _, ok := known(i.Kind); !ok {
		return i.describe()
	}
	kind, name, _ := strings.Cut(i.describe(), " ")
	return kind + "." + schema.FromAPIVersionAndKind(i.APIVersion, i.Kind).Group + " " + name
}

func (i *item) read() error {
	if i.TypeMeta == clusterPolicyBeta {
		i.TypeMeta = clusterPolicyType
	}
	if err := refusal(i.TypeMeta); err != nil {
		return err
	}
	newObject, ok := kinds[i.TypeMeta]
	if !ok {
		if w := customWorkload(i.TypeMeta, i.raw); w != nil {
			i.object = w
		}
		return nil
	}
	if i.TypeMeta == clusterPolicyType {
		if err := checkClusterPolicy(i.raw); err != nil {
			return err
		}
	}
	o := newObject()
	strict, err := kjson.UnmarshalStrict(i.raw, o)
	if err != nil {
		if bytes.Contains(i.raw, []byte("{{")) {
			return errTemplate
		}
		return err
	}
	if isTemplate(o) {
		return errTemplate
	}
	if err := errors.Join(serious(strict, o, strings.HasSuffix(i.Kind, "NetworkPolicy"))...); err != nil {
		return err
	}
	i.object = o
	return checkMeta(o)
}

// serious are the errors that the API server's strict validation would report. What kubectl prints of an object that is stored may have
// fields that this version does not know; only those of a NetworkPolicy's spec would change an answer.
func serious(strict []error, o metav1.Object, isPolicy bool) []error {
	stored := o.GetUID() != "" || o.GetResourceVersion() != ""
	return slices.DeleteFunc(strict, func(err error) bool {
		var at kjson.FieldError
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), "unknown field") {
			return false
		}
		first, _, _ := strings.Cut(at.FieldPath(), ".")
		return first == "status" || stored && (!isPolicy || first == "metadata")
	})
}

func (i *item) addTo(m *Manifests) error {
	switch {
	case i.object != nil:
		if _, ok := i.object.(*custom); ok {
			m.customs = append(m.customs, i.describeOther())
		}
		m.Add(i.object)
	case m.Other != nil:
		return m.Other(i.TypeMeta, i.raw)
	case i.TypeMeta == applicationType:
		return m.addApplication(i)
	case isAdminPolicy(i.TypeMeta):
		return m.addAdminPolicy(i)
	case isPolicyOfOthers(i.TypeMeta):
		m.notEvaluated = append(m.notEvaluated, i.describeOther())
	}
	return nil
}
