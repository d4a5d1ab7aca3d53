package observe

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestOutputsKeepToTheirSchemas checks the outputs of commands that their tests keep against docs/cli/schema.
func TestOutputsKeepToTheirSchemas(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	seen := map[string]bool{}
	for _, dir := range []string{"internal/cli/testdata/golden", "internal/cli/migrate/testdata/golden"} {
		files, err := filepath.Glob(root + dir + "/*.txt")
		if err != nil || len(files) == 0 {
			t.Fatal("no outputs", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var head struct{ APIVersion, Kind string }
			if !bytes.HasPrefix(text, []byte("{\n  \"apiVersion\"")) {
				continue // a table, another format, or an error
			}
			output := json.NewDecoder(bytes.NewReader(text)) // the exit code follows
			var raw json.RawMessage
			if err := output.Decode(&raw); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := json.Unmarshal(raw, &head); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			schema, err := compiler.Compile(root + "docs/cli/schema/" + head.Kind + ".json")
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := schema.Validate(value); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			seen[head.Kind] = true
		}
	}
	for _, kind := range []string{"CalicoConversion", "Difference", "Explanation", "Matrix", "Replay"} {
		if !seen[kind] {
			t.Errorf("no output of the kind %s was found", kind)
		}
	}
}
