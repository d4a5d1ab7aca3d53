package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// PreviousTag is the tag of the images that MakePrevious packs.
const PreviousTag = "previous"

// beforeReleases stands for the previous release as long as there is none: the first commit that keeps an address in one slice. There is no upgrade from
// earlier commits (docs/upgrade.md).
const beforeReleases = "7d04a4f429172329b897d274e066173e13e668b5"

// MakePrevious unpacks the last release, or PREVIOUS, into dir and builds its images. It returns their tars.
func MakePrevious(ctx context.Context, repo, dir string, out io.Writer) (commit string, tars []string, err error) {
	commit = previousCommit(ctx, repo)
	archive := exec.CommandContext(ctx, "sh", "-c", `git archive "$0" api cmd internal config go.mod go.sum | tar -x -C "$1"`, commit, dir)
	archive.Dir = repo
	if output, err := archive.CombinedOutput(); err != nil || exists(filepath.Join(dir, "go.mod")) != nil {
		return "", nil, fmt.Errorf("commit %s cannot be unpacked; a shallow clone needs `git fetch --unshallow --tags`: %w: %s", commit, err, output)
	}
	const version = "github.com/kidoban/kidoban/internal/version.Version="
	steps := []*exec.Cmd{command(ctx, dir, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X "+version+commit, "-o", "bin/", "./cmd/controller", "./cmd/agent")}
	for half, user := range map[string]string{"controller": "65532:65532", "agent": "0:0"} {
		tar := filepath.Join(dir, half+".tar")
		tars = append(tars, tar)
		steps = append(steps, command(ctx, repo, "bin/image", "--platform=linux/"+runtime.GOARCH, "--tag=kidoban.dev/"+half+":"+PreviousTag,
			"--user="+user, "--entrypoint=/"+half, "--output="+tar, filepath.Join(dir, "bin", half)+":/"+half))
	}
	for _, step := range steps {
		step.Stdout, step.Stderr = out, out
		if err := step.Run(); err != nil {
			return "", nil, fmt.Errorf("%v: %w", step.Args, err)
		}
	}
	return commit, tars, nil
}

func previousCommit(ctx context.Context, repo string) string {
	if commit := os.Getenv("PREVIOUS"); commit != "" {
		return commit
	}
	// The tag before this commit's own, if it has one.
	describe := command(ctx, repo, "git", "describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^")
	if tag, err := describe.Output(); err == nil {
		return strings.TrimSpace(string(tag))
	}
	return beforeReleases
}

func command(ctx context.Context, dir string, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

func exists(file string) error {
	_, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
