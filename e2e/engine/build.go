// Package engine builds kidoban and installs it on a test cluster, as a user would.
package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// probeImage is what examples/shop runs.
const probeImage = "kidoban.dev/probe:dev"

// A Build is what Make made.
type Build struct {
	Images []string // OCI tars of both halves, of the probe and of the observer
	Probe  string   // the probe's executable, static
	Agent  string   // the agent's
}

// Make builds for this machine, into dist/. out gets what the compiler and the packer say.
func Make(ctx context.Context, repo string, out io.Writer) (*Build, error) {
	dist := filepath.Join(repo, "dist", runtime.GOARCH)
	probe, image := filepath.Join(dist, "probe"), filepath.Join(dist, "probe.tar")
	steps := []*exec.Cmd{
		exec.CommandContext(ctx, "make", "--no-print-directory", "--silent", "image"),
		exec.CommandContext(ctx, "go", "-C", "e2e", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", probe, "./probe"),
		exec.CommandContext(ctx, "bin/image", "--platform=linux/"+runtime.GOARCH, "--tag="+probeImage,
			"--output="+image, "--entrypoint=/probe", probe+":/probe"),
	}
	for _, step := range steps {
		step.Dir = repo
		step.Env = append(os.Environ(), "CGO_ENABLED=0")
		step.Stdout, step.Stderr = out, out
		if err := step.Run(); err != nil {
			return nil, fmt.Errorf("%v: %w", step.Args, err)
		}
	}
	return &Build{
		Images: []string{filepath.Join(dist, "controller.tar"), filepath.Join(dist, "agent.tar"), image, filepath.Join(dist, "observer.tar")},
		Probe:  probe,
		Agent:  filepath.Join(dist, "agent"),
	}, nil
}
