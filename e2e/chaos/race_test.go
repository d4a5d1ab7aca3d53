//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

// makeRace replaces the images of the build by such whose binaries look for data races. They are static: the images hold nothing else.
func makeRace(ctx context.Context, repo string) error {
	dist := filepath.Join(repo, "dist", "race")
	for i, half := range []string{"controller", "agent"} {
		binary, image := filepath.Join(dist, half), filepath.Join(dist, half+".tar")
		user := map[string]string{"controller": "65532:65532", "agent": "0:0"}[half]
		for _, argv := range [][]string{
			{"go", "build", "-race", "-tags=netgo,osusergo", "-buildvcs=false", "-ldflags=-linkmode=external -extldflags=-static", "-o", binary, "./cmd/" + half},
			{"bin/image", "--platform=linux/" + runtime.GOARCH, "--tag=kidoban.dev/" + half + ":dev", "--user=" + user,
				"--entrypoint=/" + half, "--output=" + image, binary + ":/" + half},
		} {
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Dir = repo
			cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%v: %w: %s", argv, err, out)
			}
		}
		build.Images[i] = image
	}
	return nil
}

// checkLogs wants kidoban's containers to have run without end since the soak began, and to have said nothing of data races or panics.
func checkLogs(t *testing.T) {
	t.Helper()
	for _, component := range []string{"agent", "controller"} {
		for _, pod := range engineNow(t, component) {
			var failed error
			if n := pod.Status.ContainerStatuses[0].RestartCount; n > 0 {
				failed = fmt.Errorf("%d restarts", n)
			}
			said, err := cluster.Output(test.Kubectl(t.Context(), "-n", engine.Namespace, "logs", pod.Name))
			must(t, err)
			for _, s := range []string{"DATA RACE", "panic:", "fatal error:"} {
				if i := strings.Index(said, s); i >= 0 {
					failed = errors.Join(failed, fmt.Errorf("%.5000s", said[i:]))
				}
			}
			if failed != nil {
				t.Errorf("%s: %v", pod.Name, failed)
			}
		}
	}
}
