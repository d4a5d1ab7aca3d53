package migrate

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kidoban/kidoban/internal/cli/command"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// testEnv without a cluster, whose output goes to a buffer.
func testEnv(out *bytes.Buffer) *command.Env {
	config := genericclioptions.NewConfigFlags(true)
	nowhere := "/dev/null"
	config.KubeConfig = &nowhere
	return &command.Env{
		IOStreams: genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: out, ErrOut: out},
		Config:    config,
		Now:       func() time.Time { return noon },
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name+".txt")
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

const examples = "../../../examples/calico"

func TestGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"convert":                  {"convert", "-f", examples + "/namespaces.yaml", "-f", examples + "/policies.yaml"},
		"convert-some":             {"convert", "-f", examples, "--expand-global", "--pod-cidr", "10.1.0.0/16"},
		"convert-refused-json":     {"convert", "-f", examples + "/refused.yaml", "-f", examples + "/global.yaml", "-o", "json"},
		"convert-cluster":          {"convert", "-f", "testdata/calico-cluster.yaml"},
		"convert-network-only":     {"convert", "-f", examples + "/namespaces.yaml", "-f", examples + "/policies.yaml", "--network-policies-only"},
		"convert-unknown":          {"convert", "-f", "testdata/unknown.yaml"},
		"convert-beside":           {"convert", "-f", "testdata/beside.yaml"},
		"convert-again":            {"convert", "-f", "testdata/again.yaml"},
		"convert-list":             {"convert", "-f", "testdata/list.json"},
		"convert-nothing":          {"convert", "-f", "../../../examples/shop"},
		"convert-no-such-format":   {"convert", "-f", examples, "-o", "table"},
		"compare-too-short":        {"compare", "--for", "10s"},
		"convert-no-such-pod-cidr": {"convert", "-f", examples, "--pod-cidr", "10.0.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, runMigrate(append([]string{"calico"}, args...)...))
		})
	}
}

func TestGoldenANP(t *testing.T) {
	for name, args := range map[string][]string{
		"anp-convert":         {"convert", "-f", "testdata/anp.yaml"},
		"anp-convert-json":    {"convert", "-f", "testdata/anp.yaml", "-o", "json"},
		"anp-convert-invalid": {"convert", "-f", "testdata/anp-invalid.yaml"},
		"anp-convert-nothing": {"convert", "-f", "../../../examples/shop"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, runMigrate(append([]string{"anp"}, args...)...))
		})
	}
}

func TestGoldenAWS(t *testing.T) {
	for name, args := range map[string][]string{
		"aws-check":           {"check", "-f", "testdata/aws.yaml"},
		"aws-check-same":      {"check", "-f", "testdata/aws-same.yaml"},
		"aws-check-services":  {"check", "-f", "testdata/aws.yaml", "-f", "testdata/aws-cluster.yaml"},
		"aws-convert":         {"convert", "-f", "testdata/aws.yaml"},
		"aws-convert-aws":     {"convert", "-f", "testdata/aws.yaml", "--order=aws"},
		"aws-convert-json":    {"convert", "-f", "testdata/aws-same.yaml", "-o", "json"},
		"aws-convert-invalid": {"convert", "-f", "testdata/aws-invalid.yaml"},
		"aws-convert-nothing": {"convert", "-f", "../../../examples/shop"},
		"aws-convert-order":   {"convert", "-f", "testdata/aws.yaml", "--order=best"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, runMigrate(append([]string{"aws"}, args...)...))
		})
	}
}

// runMigrate returns what a command line of migrate prints, and its exit code.
func runMigrate(args ...string) string {
	var out bytes.Buffer
	cmd := New(testEnv(&out))
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	code := command.ExitCode(cmd.Execute(), &out)
	return fmt.Sprintf("%sexit code %d\n", &out, code)
}
