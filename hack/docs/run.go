package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Kinds of blocks: where they are run.
const (
	offline      = "offline"
	onCluster    = "cluster"
	withObserver = "observer"
)

var kinds = []string{offline, onCluster, withObserver}

// A block is a script that a page shows.
type block struct {
	page    string
	section string // the heading above it
	line    int    // of its first command
	kind    string
	script  string
	until   string  // it is interrupted once it has printed this; empty: it ends by itself
	status  int     // that it ends with
	output  *string // what it prints; nil: not said
}

// run runs the script in a directory and returns what it prints. It fails if it ends or prints otherwise than the page says.
func (b block) run(ctx context.Context, dir string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.script)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &stdout, &stderr
	if b.until != "" {
		// The script would ignore the signal, too, if this process ignored it.
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT)
		defer signal.Stop(signals)
		cmd.Stdout = &watched{buffer: &stdout, text: b.until, found: func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }}
	}
	// What the script has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if b.until != "" && !strings.Contains(stdout.String(), b.until) {
		return stdout.String(), b.failure(fmt.Sprintf("it ended without %q: %v (%v)", b.until, err, ctx.Err()), &stdout, &stderr)
	}
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

// watched is a buffer that calls a function once a text is in it.
type watched struct {
	buffer *bytes.Buffer
	text   string
	found  func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.buffer.Write(p)
	if w.found != nil && strings.Contains(w.buffer.String(), w.text) {
		w.found()
		w.found = nil
	}
	return n, err
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
