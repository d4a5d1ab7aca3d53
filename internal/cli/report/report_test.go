package report

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// An archive with nothing of the cluster in it is no report: the command fails and leaves no file.
func TestReportWithoutACluster(t *testing.T) {
	for name, kubeconfig := range map[string]string{
		"no configuration": "/dev/null",
		"no answer": writeFile(t, "config", `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
current-context: c
`),
	} {
		t.Run(name, func(t *testing.T) {
			config := genericclioptions.NewConfigFlags(true)
			config.KubeConfig = &kubeconfig
			streams, _, _, messages := genericiooptions.NewTestIOStreams()
			file := filepath.Join(t.TempDir(), "report.tar.gz")
			cmd := New(&command.Env{IOStreams: streams, Config: config, Now: time.Now})
			cmd.SilenceUsage, cmd.SilenceErrors = true, true
			cmd.SetArgs([]string{"--file", file})
			if err := cmd.ExecuteContext(t.Context()); err == nil || strings.Contains(messages.String(), "wrote") {
				t.Errorf("%v; it printed %s", err, messages)
			}
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is there: %v", err)
			}
		})
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
