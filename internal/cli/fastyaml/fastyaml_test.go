package fastyaml

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func value(t *testing.T, text []byte) (out any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

// fast is what the parser says, or nil where it is not sure.
func fast(document string, skip Skip) []byte {
	if out, ok := Try([]byte(document), skip); ok {
		return out
	}
	return nil
}

// check that the parser, where it is sure, is right.
func check(t *testing.T, document string) (sure bool) {
	t.Helper()
	got := fast(document, nil)
	if got == nil {
		return false
	}
	want, err := yaml.YAMLToJSON([]byte(document))
	if err != nil {
		t.Fatalf("%s\nis accepted: %s\nand wrong: %v", document, got, err)
	}
	if !reflect.DeepEqual(value(t, got), value(t, want)) {
		t.Fatalf("%s\nis %s\nnot %s", document, got, want)
	}
	return true
}

var known = []string{
	"a: b\n", "a: 1\nb: 'it''s'\nc: \"x\\ty\\u003c\"\n", "a:\n  b: c\n  d:\n  - e\n  - f: g\n    h: i\n  -\n    j: k\nl:\n", "- a\n- - b\n  - c\n- d: e\n",
	"# comment\na: b # comment\n\n  # another\nc:\n  # and one\n  d: e#f\n", "a: {b: c, d: [1, 2, {e: f}], \"g\":1}\nh: []\ni: {}\n",
	"a: {b: c,\n  d: e}\n", `{"a": "b", "c": [1, -2, 1.5, true, null], "d": {}}`, "a: 10.0.0.0/8\nb: 10.1.2.3\nc: 1.5\nd: 0x10\ne: 010\nf: 1e3\ng: 2026-01-01\nh: 08\ni: 1_000\n",
	"a: yes\nb: No\nc: ~\nd: null\ne: .inf1\nf: -5\ng: nothing\nh: y\n", "a: http://example.com/b?c=d\n", "a:\n- b\nc: d\n", "é: 1\n", "a: größer\n", "  a: b\n", "a: b: c\n",
	"a: b\n c\n", "a: |\n  b\n", "a: &x b\nc: *x\n", "a: b\na: c\n", "a: !!str 1\n", "a: 'b\n  c'\n", "? a\n: b\n", "a: [b\n", "a: b\nc\n", "on: 1\n", "1: 2\n", "a: - b\n", "a:\tb\n",
	"a: [b, c: d]\n", "a: {b, c}\n", "a: [b, ]\n", "a: {b: fd00::1}\n", "a: fd00::1\n", "a: \"\\ud83d\\ude00\"\n", "<<: {a: b}\n", "\"<<\": {a: b}\n", "a: -\n", "- \n- a\n", "a: #b\n", "a: b #\n", "a: '#'\n",
	"a:\n    b: c\n  d: e\n", "a: b\n...\n", "a: ---\n", "a: ...\n", "a: -.5\n", "a: 5d9c8b7f6\nb: 5e3\nc: 2026-01-01t00:00:00z\nd: 5x3\ne: 0b11\nf: 1_0\ng: 5e\nh: 1b1\ni: 7o7\n", "- a\nb: c\n", "a: \"b\" c\n", "a: @b\n", "a: %b\n", "a: {b: c}d\n", "a: {b: c} d: e\n", "a: <b\n", "a: =\n", "a: 1:30\n", "{a: 1:30}\n", "a: 12345678901234567890\n",
	"a: {b: \"c\"\n,d: e}\n", "a:\n  {b: c}\n", "a:\n- {b: c}\n- [d]\n- 'e'\n", "a.b/c-d: e\n", "a: .\n", "a: +\n", "a: -.\n", "a: 0\nb: 00\nc: 0.0\n", "- -1\n- - -1\n", "a: \"\"\nb: ''\n", "a: ''''\n", "---\na: b\n", "a: b\n...\n", "a: ---\n", "a: ...\n", "a: -.5\n", "a: 5d9c8b7f6\nb: 5e3\nc: 2026-01-01t00:00:00z\nd: 5x3\ne: 0b11\nf: 1_0\ng: 5e\nh: 1b1\ni: 7o7\n",
}

func TestAnswersAreSigsYAMLs(t *testing.T) {
	sure := 0
	for _, document := range known {
		if check(t, document) {
			sure++
		}
	}
	if sure < 25 {
		t.Errorf("sure of %d of %d", sure, len(known))
	}
}

func FuzzFast(f *testing.F) {
	for _, document := range known {
		f.Add(document)
	}
	f.Fuzz(func(t *testing.T, document string) {
		if len(document) < 1000 {
			check(t, document)
		}
	})
}

// Manifests of this repository, in their styles, need no other parser; those below testdata may be wrong on purpose.
func TestManifestsAreRead(t *testing.T) {
	for _, dir := range []string{"config", "examples"} {
		err := filepath.WalkDir(filepath.Join("../../..", dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, document := range strings.Split(string(text), "\n---\n") {
				if !check(t, document) && strings.Contains(document, "apiVersion: networking.k8s.io/v1") {
					t.Errorf("%s: not sure of\n%s", path, document)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// random values, and documents of them in random style.
type random struct{ *rand.Rand }

var words = []string{"a", "app", "kubernetes.io/metadata.name", "x-1", "10.0.0.0/8", "fd00::/8", "yes", "null", "8080", "1.5", "it's", `say "hi"`, "a b", " a", "#a", "a: b", "", "- a", "{", "größer", "line\nbreak", "0x1f", "2026-01-01T00:00:00Z", "true"}

func (r random) value(depth int) any {
	switch n := r.IntN(8); {
	case n < 2 && depth > 0:
		out := map[string]any{}
		for range r.IntN(5) {
			out[words[r.IntN(len(words))]] = r.value(depth - 1)
		}
		return out
	case n < 4 && depth > 0:
		out := []any{}
		for range r.IntN(4) {
			out = append(out, r.value(depth-1))
		}
		return out
	case n == 4:
		return r.IntN(100000) - 100
	case n == 5:
		return []any{nil, true, 1.25}[r.IntN(3)]
	}
	return words[r.IntN(len(words))]
}

// styles in which a value is written down.
func (r random) document(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if r.IntN(3) == 0 {
		text, err = json.MarshalIndent(v, "", strings.Repeat(" ", r.IntN(5)))
	}
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	if r.IntN(2) == 0 {
		out = strings.ReplaceAll(out, ":\n", ": # comment\n")
	}
	return out
}

func TestRandomDocuments(t *testing.T) {
	sure := 0
	for seed := range uint64(5000) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		if check(t, r.document(t, map[string]any{"spec": r.value(4), "status": r.value(3)})) {
			sure++
		}
	}
	if sure < 1000 {
		t.Errorf("sure of %d of 5000", sure)
	}
}

// What is skipped is left out or, where the parser is not sure, there; and nothing else is another.
func TestSkipped(t *testing.T) {
	skip := Skip{"heavy": {}, "spec": {"heavy": {}, "list": {"heavy": {}}}}
	without := func(v any, skip Skip) any { return prune(v, skip) }
	for seed := range uint64(5000) {
		r := random{rand.New(rand.NewPCG(seed, 2))}
		list := []any{}
		for range r.IntN(3) {
			list = append(list, map[string]any{"heavy": r.value(3), "name": r.value(0)})
		}
		document := r.document(t, map[string]any{"a": 1, "heavy": r.value(3), "spec": map[string]any{"heavy": r.value(3), "list": list, "other": r.value(2)}, "z": "z"})
		got, err := ToJSON([]byte(document), skip)
		if err != nil {
			t.Fatal(err)
		}
		want, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(without(value(t, got), skip), without(value(t, want), skip)) {
			t.Fatalf("%s\nis %s\nnot %s", document, got, want)
		}
	}
	script := "spec:\n  heavy:\n  - command:\n    - sh\n    - |\n      echo 'a\n      b: \"\n    env: [{a: b}]\n  other: c\n"
	if got := string(fast(script, skip)); got != `{"spec":{"other":"c"}}` {
		t.Errorf("%s", got)
	}
	quoted := "spec:\n  heavy:\n    a: \"b\n  other: c\"\n  other: d\n"
	if got := fast(quoted, skip); got != nil {
		t.Errorf("%s", got)
	}
}

func prune(v any, skip Skip) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			if below, all := skip.under([]byte(key)); !all {
				out[key] = prune(value, below)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, value := range v {
			out = append(out, prune(value, skip))
		}
		return out
	}
	return v
}

func TestErrorsAreSigsYAMLs(t *testing.T) {
	for _, document := range []string{"a: [b\n", "a: b\n\tc: d\n", "a: *b\n"} {
		_, want := yaml.YAMLToJSON([]byte(document))
		if _, err := ToJSON([]byte(document), nil); err == nil || fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("%q: %v, want %v", document, err, want)
		}
	}
}
