package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Kinds of blocks: where they are run.
const (
	offline   = "offline"
	onCluster = "cluster"
)

// A block is a script that a page shows.
type block struct {
	page   string
	line   int // of its first command
	kind   string
	script string
	status int     // that it ends with
	output *string // what it prints; nil: not said
}

// run runs the script in a directory and returns what it prints. It fails if it ends or prints otherwise than the page says.
func (b block) run(ctx context.Context, dir string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.script)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &stdout, &stderr
	// What the script has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && (ctx.Err() != nil || !errors.As(err, &ended)) {
		return stdout.String(), b.failure(fmt.Sprintf("%v (%v)", err, ctx.Err()), &stdout, &stderr)
	}
	if status := cmd.ProcessState.ExitCode(); status != b.status {
		return stdout.String(), b.failure(fmt.Sprintf("exit status %d, want %d", status, b.status), &stdout, &stderr)
	}
	if b.output != nil && !matches(*b.output, stdout.String()) {
		return stdout.String(), b.failure("it prints something else than the page says", &stdout, &stderr)
	}
	return stdout.String(), nil
}

func (b block) failure(why string, stdout, stderr fmt.Stringer) error {
	return fmt.Errorf("%s:%d: %s\n--- script\n%s--- standard output\n%s--- standard error\n%s", b.page, b.line, why, b.script, stdout, stderr)
}

var blanks = regexp.MustCompile(`[ \t]+`)

// matches reports whether a script printed what a page says.
func matches(want, got string) bool {
	parts := strings.Split(normalize(want), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, `.*`) + `\z`).MatchString(normalize(got))
}

func normalize(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(blanks.ReplaceAllString(l, " "), " ")
	}
	return strings.Join(lines, "\n")
}
