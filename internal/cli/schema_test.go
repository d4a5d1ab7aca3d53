package cli_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/cli/command"
)

var schemas = filepath.Join("..", "..", "docs", "cli", "schema")

// TestSchemas compares docs/cli/schema with the Go types of what commands print as JSON and YAML.
func TestSchemas(t *testing.T) {
	env, _ := testEnv()
	kinds := command.Kinds{}
	walk(cli.New(env), func(cmd *cobra.Command) {
		flag := cmd.Flags().Lookup("output")
		if flag == nil {
			return
		}
		for kind, of := range flag.Value.(*command.Output).Kinds() {
			if other := kinds[kind]; other != nil && reflect.TypeOf(other) != reflect.TypeOf(of) {
				t.Errorf("%s: the kind %s is another command's", cmd.CommandPath(), kind)
			}
			kinds[kind] = of
		}
	})
	if len(kinds) < 10 {
		t.Errorf("only the kinds %v were found", kinds)
	}
	var want []string
	for kind, of := range kinds {
		want = append(want, kind+".json")
		text, err := json.MarshalIndent(schemaOf(kind, reflect.TypeOf(of)), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join(schemas, kind+".json"), string(text)+"\n")
	}
	entries, err := os.ReadDir(schemas)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			t.Errorf("docs/cli/schema/%s is of no kind", e.Name())
		}
	}
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, c := range cmd.Commands() {
		walk(c, visit)
	}
}

type object = map[string]any

// schemaOf a kind whose fields are those of a type. Readers must expect fields that a later version adds.
func schemaOf(kind string, t reflect.Type) object {
	d := &definitions{of: map[string]reflect.Type{}, schemas: object{}}
	s := d.fields(t)
	properties := s["properties"].(object)
	properties["apiVersion"] = object{"const": command.APIVersion}
	properties["kind"] = object{"const": kind}
	s["required"] = append([]string{"apiVersion", "kind"}, s["required"].([]string)...)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = kind
	if len(d.schemas) > 0 {
		s["$defs"] = d.schemas
	}
	return s
}

// definitions are the schemas of the structures that a kind's fields lead to.
type definitions struct {
	of      map[string]reflect.Type
	schemas object
}

var (
	jsonType   = reflect.TypeFor[json.Marshaler]()
	textType   = reflect.TypeFor[encoding.TextMarshaler]()
	objectType = reflect.TypeFor[runtime.Object]()
)

func (d *definitions) schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[metav1.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[intstr.IntOrString]():
		return object{"type": []string{"integer", "string"}}
	case t == reflect.TypeFor[json.RawMessage](), t.Kind() == reflect.Interface:
		return object{}
	case t == reflect.TypeFor[*big.Int]():
		return object{"type": "integer"}
	case t.Implements(textType):
		return object{"type": "string"}
	case t.Kind() == reflect.Struct && reflect.PointerTo(t).Implements(objectType):
		return object{"type": "object", "description": "an object of Kubernetes"}
	case t.Kind() == reflect.Struct && t.Implements(jsonType):
		panic(fmt.Sprintf("%v marshals itself: add its schema", t))
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		return d.reference(t)
	}
	if t.Kind() < reflect.Int || t.Kind() > reflect.Uint64 {
		panic(fmt.Sprintf("%v cannot be printed as JSON", t))
	}
	return object{"type": "integer"}
}

func (d *definitions) reference(t reflect.Type) object {
	if t.Name() == "" {
		return d.fields(t)
	}
	name := t.Name()
	if other := d.of[name]; other != nil && other != t {
		name = path.Base(t.PkgPath()) + "." + name
	}
	if d.of[name] == nil {
		d.of[name] = t // before its fields, which may lead back to it
		d.schemas[name] = d.fields(t)
	}
	return object{"$ref": "#/$defs/" + name}
}

// fields of a structure, as encoding/json names them.
func (d *definitions) fields(t reflect.Type) object {
	properties, required := object{}, []string{}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous && name == "":
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			inner := d.fields(embedded)
			for n, s := range inner["properties"].(object) {
				properties[n] = s
			}
			required = append(required, inner["required"].([]string)...)
			continue
		case name == "":
			name = f.Name
		}
		s := d.schema(f.Type)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, name)
			if k := f.Type.Kind(); k == reflect.Pointer || k == reflect.Map || k == reflect.Slice && !f.Type.Implements(textType) {
				s = object{"anyOf": []object{s, {"type": "null"}}}
			}
		}
		properties[name] = s
	}
	return object{"type": "object", "properties": properties, "required": required}
}
