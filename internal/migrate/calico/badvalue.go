package calico

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// badValues finds what of a value cannot be read as t, each with its path. The decoder's own error has Go's names, and no path of
// what reads itself, as ports do.
func badValues(path string, raw json.RawMessage, t reflect.Type) []error {
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	var out []error
	switch {
	case t.Kind() == reflect.Pointer:
		return badValues(path, raw, t.Elem())
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return []error{&Problem{Field: path, Problem: err.Error()}}
	case t.Kind() == reflect.Struct && raw[0] == '{':
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return []error{err}
		}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if value, ok := fields[name]; ok {
				out = append(out, badValues(path+"."+name, value, t.Field(i).Type)...)
			}
		}
	case t.Kind() == reflect.Slice && raw[0] == '[':
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return []error{err}
		}
		for i, value := range list {
			out = append(out, badValues(fmt.Sprintf("%s[%d]", path, i), value, t.Elem())...)
		}
	}
	if len(out) == 0 {
		out = append(out, &Problem{Field: path, Problem: fmt.Sprintf("%s where %s belongs", kindOfJSON(raw), kindOfGo(t))})
	}
	return out
}

func kindOfJSON(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	}
	return "the number " + string(raw)
}

func kindOfGo(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "a number"
}

// badSpec is what of an object's spec cannot be read.
func badSpec(object string, raw json.RawMessage, into any, decoder error) error {
	found := badValues("spec", raw, reflect.TypeOf(into).Elem())
	if len(found) == 0 {
		found = []error{decoder}
	}
	for i, err := range found {
		var p *Problem
		if !errors.As(err, &p) {
			p = &Problem{Field: "spec", Problem: err.Error()}
		}
		p.Object, p.Fix = object, "correct it"
		found[i] = p
	}
	return errors.Join(found...)
}
