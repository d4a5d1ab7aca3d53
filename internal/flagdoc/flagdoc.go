// Package flagdoc holds docs/configuration.md against the flags that a command defines. Only tests use it.
package flagdoc

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/kidoban/kidoban/internal/startup"
)

// Check fails if the part of a Markdown file between the comments "BEGIN command" and "END command" is not the table of these flags
// and of those that controller-runtime adds. With update it writes that part.
func Check(t *testing.T, file, command string, fs *flag.FlagSet, update bool) {
	t.Helper()
	config.RegisterFlags(fs) // --kubeconfig, which main has by an import
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- BEGIN "+command+" -->\n"), []byte("<!-- END "+command+" -->\n")
	before, rest, ok1 := bytes.Cut(page, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the comments %sand %s", file, begin, end)
	}
	want := bytes.Join([][]byte{before, begin, []byte(table(fs)), end, after}, nil)
	if bytes.Equal(page, want) {
		return
	}
	if !update {
		t.Fatalf("%s is not what the flags of cmd/%s say: go generate ./cmd/...", file, command)
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

func table(fs *flag.FlagSet) string {
	var b strings.Builder
	b.WriteString("| setting | flag | default | meaning |\n|---|---|---|---|\n")
	fs.VisitAll(func(f *flag.Flag) {
		value := ""
		if f.DefValue != "" {
			value = "`" + f.DefValue + "`"
		}
		meaning := strings.Join(strings.Fields(strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(f.Usage)), " ")
		setting := strings.TrimPrefix(startup.EnvName(f.Name), startup.EnvPrefix)
		fmt.Fprintf(&b, "| `%s` | `--%s` | %s | %s |\n", setting, f.Name, cmp.Or(value, " "), meaning)
	})
	return b.String()
}
