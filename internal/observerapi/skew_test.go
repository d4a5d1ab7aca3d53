package observerapi_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Answers of the version before are read as they were meant, and this version writes them in the same way, so that readers of the version before
// read this one's. The recordings never change: a new version gets new ones.
func TestRecordedAnswers(t *testing.T) {
	for name, of := range map[string]any{
		"flows": observerapi.FlowList{}, "hits": observerapi.HitList{}, "status": observerapi.Status{}, "node": observerapi.NodeReport{},
		"followed-flow": observerapi.FollowedLine{}, "followed-missing": observerapi.Missing{},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			read := func(text []byte, strictly bool) any {
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
			answer := read(text, true) // fails if a field was renamed or removed
			var want, got any
			written, err := json.Marshal(answer)
			if err != nil || json.Unmarshal(written, &got) != nil || json.Unmarshal(text, &want) != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("it is written as %s", written)
			}
			later, err := json.Marshal(withUnknown(want))
			if err != nil {
				t.Fatal(err)
			}
			again := read(later, false)
			if n, ok := again.(*observerapi.NodeReport); ok { // passed on as it is
				n.Report = answer.(*observerapi.NodeReport).Report
			}
			if !reflect.DeepEqual(again, answer) {
				t.Errorf("with fields of a later version it is read as %+v", again)
			}
		})
	}
}

// withUnknown adds a field of a later version to each object that is none of labels.
func withUnknown(of any) any {
	switch v := of.(type) {
	case []any:
		for i := range v {
			v[i] = withUnknown(v[i])
		}
	case map[string]any:
		for key, value := range v {
			if key != "labels" && key != "namespaceLabels" {
				v[key] = withUnknown(value)
			}
		}
		v["ofALaterVersion"] = map[string]any{"field": 7}
	}
	return of
}

// A line of a later version is neither a flow nor a loss.
func TestFollowedLinesOfOtherVersions(t *testing.T) {
	for text, isFlow := range map[string]bool{
		`{"protocol":"TCP","connections":1}`: true, `{"losses":[{"node":"n1"}]}`: false, `{"missed":3}`: false, `{"ofALaterVersion":1}`: false, `{}`: false,
	} {
		var l observerapi.FollowedLine
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.IsFlow() != isFlow {
			t.Errorf("%s is a flow: %t, %v", text, l.IsFlow(), err)
		}
	}
}
