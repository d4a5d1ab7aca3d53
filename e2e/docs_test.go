//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// TestDocs runs the commands that the pages show for a cluster, as a reader does: kubectl points to this one, and finds its plugin.
func TestDocs(t *testing.T) {
	bin := docsPrograms(t)
	t.Cleanup(func() { // of a page that ended early
		policies := filepath.Join(test.Repo, "examples", "shop", "policies")
		if _, err := cluster.Output(test.Kubectl(context.Background(), "delete", "--ignore-not-found", "-k", policies)); err != nil {
			t.Error(err)
		}
	})
	docs := docsCommand(t, bin, "--kind=cluster")
	docs.Stdout, docs.Stderr = t.Output(), t.Output()
	if err := docs.Run(); err != nil {
		t.Error(err)
	}
}

// docsPrograms builds hack/docs and the plugin, and returns the directory that has both.
func docsPrograms(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for module, program := range map[string]string{".": "./cmd/kubectl-kidoban", filepath.Join("hack", "docs"): "."} {
		if out, err := goBuild(t.Context(), module, bin+"/", program).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return bin
}

func docsCommand(t *testing.T, bin string, args ...string) *exec.Cmd {
	t.Helper()
	docs := test.Outside(t.Context(), append([]string{filepath.Join(bin, "docs")}, args...)...)
	docs.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	return docs
}

// goBuild builds a program of one of the repository's modules.
func goBuild(ctx context.Context, module, output, program string) *exec.Cmd {
	build := exec.CommandContext(ctx, "go", "-C", filepath.Join(test.Repo, module), "build", "-o", output, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build
}
