package cli_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/cli/command"
)

var update = flag.Bool("update", false, "write the golden files and the generated parts of docs/cli anew")

// env without a cluster, whose output goes to a buffer.
func testEnv() (*command.Env, *bytes.Buffer) {
	var out bytes.Buffer
	config := genericclioptions.NewConfigFlags(true)
	nowhere := "/dev/null"
	config.KubeConfig = &nowhere
	return &command.Env{
		IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &out},
		Config:    config,
		Now:       func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	}, &out
}

// run a command line, and return what it prints and its exit code.
func run(stdin []byte, args ...string) string {
	env, out := testEnv()
	env.In = bytes.NewReader(stdin)
	root := cli.New(env)
	root.SetArgs(args)
	code := command.ExitCode(root.Execute(), env.ErrOut)
	return fmt.Sprintf("%sexit code %d\n", out, code)
}

var shop = []string{"-f", "../../examples/shop", "-f", "../../examples/shop/policies"}

// recordedDay is a recording of the shop.
const recordedDay = "../../examples/flows/shop.jsonl"

func with(files []string, args ...string) []string {
	return append(append([]string{}, args...), files...)
}

func TestGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"explain-allowed":           with(shop, "explain", "--from", "shop/frontend", "--to", "shop/backend:http"),
		"explain-refused-port":      with(shop, "explain", "--from", "shop/frontend", "--to", "shop/backend:80"),
		"explain-service":           with(shop, "explain", "--from", "shop/frontend", "--to", "svc/shop/backend:80"),
		"explain-service-port":      {"explain", "-f", "testdata/service-port.yaml", "--from", "store/client", "--to", "svc/store/web:80"},
		"explain-except":            with(shop, "explain", "--from", "shop/backend", "--to", "203.0.113.200:443"),
		"explain-all-ports-json":    with(shop, "explain", "--from", "monitoring/prometheus", "--to", "shop/database", "-o", "json"),
		"explain-kinds":             with(shop, "explain", "-n", "shop", "deploy/frontend", "pod/backend-0:8000"),
		"explain-wrong-kind":        with(shop, "explain", "sts/shop/frontend", "--to", "shop/backend:8000"),
		"explain-service-source":    with(shop, "explain", "-n", "shop", "svc/frontend", "svc/backend:80"),
		"explain-itself":            with(shop, "explain", "--from", "shop/backend-0", "--to", "shop/backend-0:8000"),
		"explain-nobody":            with(shop, "explain", "--from", "shop/fronted", "--to", "shop/backend:80"),
		"explain-no-service-port":   with(shop, "explain", "--from", "shop/frontend", "--to", "svc/shop/backend:81"),
		"explain-monitoring":        {"explain", "-f", "testdata/broken", "--from", "observability/agent", "--to", "svc/payments/api:metrics"},
		"explain-own-node":          {"explain", "-f", "testdata/own-node.yaml", "--from", "192.168.0.1", "--to", "shop/web:8080"},
		"explain-own-node-ipv6":     {"explain", "-f", "testdata/own-node.yaml", "--from", "shop/web", "--to", "[fd00:1::1]:10250"},
		"explain-other-node":        {"explain", "-f", "testdata/own-node.yaml", "--from", "192.168.0.2", "--to", "shop/web:8080"},
		"explain-service-on-nodes":  {"explain", "-f", "testdata/own-node.yaml", "--from", "shop/web", "--to", "svc/shop/exporter:9100"},
		"matrix":                    with(shop, "matrix", "--outside", "192.0.2.1", "--outside", "203.0.113.200"),
		"matrix-narrow":             with(shop, "matrix", "-n", "shop", "--width", "50"),
		"matrix-csv":                with(shop, "matrix", "-n", "shop", "--port", "5432", "--port", "53/UDP", "-o", "csv"),
		"matrix-to":                 with(shop, "matrix", "--to", "shop/database", "--only", "allowed", "-o", "list"),
		"matrix-from":               with(shop, "matrix", "--from", "deploy/backend", "-n", "shop", "--only", "denied"),
		"matrix-to-address":         with(shop, "matrix", "--to", "203.0.113.7", "-o", "list"),
		"matrix-to-name":            {"matrix", "-f", "testdata/tiers/world.yaml", "-f", "testdata/tiers/names.yaml", "--to", "a.feeds.example", "-o", "list"},
		"matrix-to-open":            {"matrix", "-f", "../../examples/shop", "--ip-families", "IPv4,IPv6", "--to", "shop/database"},
		"matrix-to-nothing":         with(shop, "matrix", "--to", "shop/databases"),
		"matrix-markdown":           with(shop, "matrix", "-n", "shop", "-o", "markdown"),
		"matrix-html":               with(shop, "matrix", "-n", "shop", "-o", "html"),
		"matrix-mermaid":            with(shop, "matrix", "-A", "-o", "mermaid"),
		"matrix-dot":                with(shop, "matrix", "--from", "shop/backend", "-o", "dot"),
		"matrix-dot-denied":         with(shop, "matrix", "--from", "shop/backend", "--only", "denied", "-o", "dot"),
		"hostile-table":             {"matrix", "-f", "testdata/hostile.yaml"},
		"hostile-list":              {"matrix", "-f", "testdata/hostile.yaml", "-o", "list"},
		"hostile-csv":               {"matrix", "-f", "testdata/hostile.yaml", "-o", "csv"},
		"hostile-markdown":          {"matrix", "-f", "testdata/hostile.yaml", "-o", "markdown"},
		"hostile-html":              {"matrix", "-f", "testdata/hostile.yaml", "-o", "html"},
		"hostile-mermaid":           {"matrix", "-f", "testdata/hostile.yaml", "-o", "mermaid"},
		"hostile-dot":               {"matrix", "-f", "testdata/hostile.yaml", "-o", "dot"},
		"hostile-json":              {"matrix", "-f", "testdata/hostile.yaml", "-o", "json"},
		"matrix-to-service":         with(shop, "matrix", "-n", "shop", "--to", "svc/database", "--only", "allowed", "-o", "list"),
		"matrix-from-service":       with(shop, "matrix", "--from", "svc/shop/backend", "--only", "allowed", "-o", "list"),
		"matrix-no-such-service":    with(shop, "matrix", "--to", "svc/shop/databases"),
		"matrix-partial":            {"matrix", "-f", "testdata/broken"},
		"diff-all":                  {"diff", "--base", "../../examples/shop", "-f", "../../examples/shop/policies"},
		"diff-nothing":              {"diff", "--base", "../../examples/shop", "--base", "../../examples/shop/policies", "-f", "../../examples/shop/policies"},
		"diff-changed":              {"diff", "--base", "testdata/broken", "-f", "testdata/changed"},
		"diff-changed-json":         {"diff", "--base", "testdata/broken", "-f", "testdata/changed", "-o", "json"},
		"lint-shop":                 with(shop, "lint"),
		"lint-everything":           {"lint", "-f", "testdata/lint"},
		"lint-sarif":                {"lint", "-f", "testdata/lint", "-o", "sarif"},
		"lint-junit":                {"lint", "-f", "testdata/lint", "-o", "junit", "--fail-on", "error"},
		"lint-checks":               {"lint", "--list-checks"},
		"lint-checks-json":          {"lint", "--list-checks", "-o", "json"},
		"lint-shop-json":            with(shop, "lint", "-o", "json"),
		"version-json":              {"version", "--client", "-o", "json"},
		"lint-skip-yaml":            {"lint", "-f", "testdata/lint", "--skip", "no-default-deny", "--skip", "open-peer", "-o", "yaml", "--fail-on", "error"},
		"misspelt-field":            {"lint", "-f", "testdata/misspelt.yaml"},
		"template":                  {"lint", "-f", "testdata/template.yaml"},
		"replay":                    {"replay", "--flows", recordedDay, "-f", "../../examples/shop/policies", "-n", "shop"},
		"replay-delete-markdown":    {"replay", "--flows", recordedDay, "--base", "../../examples/shop/policies", "-n", "shop", "--delete", "netpol/allow-metrics", "-o", "markdown"},
		"replay-delete-nothing":     {"replay", "--flows", recordedDay, "--delete", "cnp/nothing"},
		"replay-half-json":          {"replay", "--flows", recordedDay, "--since", "12h", "-f", "../../examples/shop/policies", "-n", "shop", "-o", "json"},
		"recommend":                 {"recommend", "--flows", recordedDay, "-n", "shop"},
		"recommend-missing":         {"recommend", "--flows", recordedDay, "-n", "shop", "--only-missing", "--audit", "-f", "../../examples/shop", "-f", "../../examples/shop/policies"},
		"recommend-tighten":         {"recommend", "--flows", recordedDay, "-n", "shop", "--tighten", "--since", "2026-11-20T20:00:00Z", "-f", "../../examples/shop", "-f", "../../examples/shop/policies"},
		"recommend-no-namespace":    {"recommend", "--flows", recordedDay},
		"no-such-format":            with(shop, "matrix", "-o", "xml"),
		"live-needs-no-files":       with(shop, "explain", "--live", "--from", "shop/frontend", "--to", "shop/backend:80"),
		"explain-needs-both-ends":   with(shop, "explain", "--from", "shop/frontend"),
		"matrix-of-nothing":         {"matrix", "-f", "../../examples/shop/policies"},
		"diff-needs-something-new":  {"diff"},
		"explain-address-of-a-port": with(shop, "explain", "--from", "shop/backend", "--to", "203.0.113.200"),
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, filepath.Join("testdata", "golden", name+".txt"), run(nil, args...))
		})
	}
}

// Each recipe, with what matrix and lint say of it.
func TestRecipes(t *testing.T) {
	const recipes = "../../examples/recipes/"
	files, err := filepath.Glob(recipes + "*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal("no recipes", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if name == "workloads" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			of := []string{"-f", recipes + "workloads.yaml", "-f", file}
			matrix := run(nil, with(of, "matrix", "--outside", "192.0.2.1", "--outside", "203.0.113.9", "--outside", "203.0.113.200")...)
			golden(t, filepath.Join("testdata", "golden", "recipes", name+".txt"), matrix+"\n"+run(nil, with(of, "lint", "--skip", "no-default-deny")...))
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}

func TestManifestsFromStdin(t *testing.T) {
	manifests, err := os.ReadFile("testdata/broken/payments.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := run(manifests, "matrix", "-f", "-"), run(nil, "matrix", "-f", "testdata/broken/payments.yaml"); got != want {
		t.Errorf("from stdin:\n%s\nfrom a file:\n%s", got, want)
	}
}
