// Package skewtest compares the types of APIs with recorded answers of other versions, for tests.
package skewtest

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"
)

// Recorded fails unless the answer in a file is read as it was meant into a value of the type of a value, and written in the same way, so that
// readers of the version that made it read this one's; and unless fields of a later version change nothing. Maps with keys of their own, and what is
// passed on as it is, get no such fields: they are named.
func Recorded(t *testing.T, file string, of any, without ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	answer := read(t, text, of, true) // fails if a field was renamed or removed
	var want, got any
	written, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(written, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is written as %s", file, written)
	}
	later, err := json.Marshal(withUnknown(want, without))
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(read(t, later, of, false))
	if err != nil || !bytes.Equal(again, written) {
		t.Errorf("%s with fields of a later version is read as %s, %v", file, again, err)
	}
}

func read(t *testing.T, text []byte, of any, strictly bool) any {
	t.Helper()
	into := reflect.New(reflect.TypeOf(of)).Interface()
	d := json.NewDecoder(bytes.NewReader(text))
	if strictly {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
	return into
}

// withUnknown adds a field of a later version to each object.
func withUnknown(of any, without []string) any {
	switch v := of.(type) {
	case []any:
		for i := range v {
			v[i] = withUnknown(v[i], without)
		}
	case map[string]any:
		for key, value := range v {
			if !slices.Contains(without, key) {
				v[key] = withUnknown(value, without)
			}
		}
		v["ofALaterVersion"] = map[string]any{"field": 7}
	}
	return of
}
