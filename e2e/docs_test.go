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
	bin := t.TempDir()
	for module, program := range map[string]string{".": "./cmd/kubectl-kidoban", filepath.Join("hack", "docs"): "."} {
		build := exec.CommandContext(t.Context(), "go", "-C", filepath.Join(test.Repo, module), "build", "-o", bin+"/", program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() { // of a page that ended early
		policies := filepath.Join(test.Repo, "examples", "shop", "policies")
		if _, err := cluster.Output(test.Kubectl(context.Background(), "delete", "--ignore-not-found", "-k", policies)); err != nil {
			t.Error(err)
		}
	})
	docs := test.Outside(t.Context(), filepath.Join(bin, "docs"), "--kind=cluster")
	docs.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	docs.Stdout, docs.Stderr = t.Output(), t.Output()
	if err := docs.Run(); err != nil {
		t.Error(err)
	}
}
