package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/plain"
)

// Names of objects bring no control characters to the terminal.
func TestOutputIsPlain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hostile.yaml")
	manifest := `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: "a\x1b[2J\u009b\u202eb", namespace: shop}
spec: {podSelector: {matchLabels: {"no": such}}, policyTypes: [Ingress]}
`
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"lint", "-f", file}, {"lint", "-f", file, "-o", "json"}} {
		var out, errOut bytes.Buffer
		env := &command.Env{
			IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &errOut}, Config: genericclioptions.NewConfigFlags(true),
		}
		root := cli.New(env)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		if out.Len() == 0 {
			t.Fatalf("%v: no output, %v", args, err)
		}
		for line := range bytes.Lines(out.Bytes()) {
			line, _ = bytes.CutSuffix(line, []byte("\n"))
			text := string(bytes.ReplaceAll(line, []byte("\t"), nil))
			if plain.Line(text) != text {
				t.Errorf("%v: %q", args, text)
			}
		}
	}
}
