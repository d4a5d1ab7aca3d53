package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// about is what a result depends on.
type about struct{ kubernetes, kernel, kidoban, date string }

func describe(ctx context.Context, c *cluster.Cluster) (*about, error) {
	out, err := cluster.Output(c.Kubectl(ctx, "get", "--raw", "/version"))
	if err != nil {
		return nil, err
	}
	var version struct{ GitVersion string }
	if err := json.Unmarshal([]byte(out), &version); err != nil {
		return nil, err
	}
	commit, err := revision(ctx, c.Repo)
	if err != nil {
		return nil, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	return &about{
		kubernetes: version.GitVersion, kernel: unix.ByteSliceToString(u.Release[:]),
		kidoban: commit, date: time.Now().UTC().Format(time.DateOnly),
	}, nil
}

// revision names what was tested. The pages that runs like this write do not make it another.
func revision(ctx context.Context, repo string) (string, error) {
	git := func(args ...string) (string, error) {
		out, err := cluster.Output(exec.CommandContext(ctx, "git", append([]string{"-C", repo}, args...)...))
		return strings.TrimSpace(out), err
	}
	commit, err := git("describe", "--tags", "--always", "--abbrev=7")
	if err != nil {
		return "", err
	}
	changed, err := git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs")
	if changed != "" {
		commit += "-dirty"
	}
	return commit, err
}

// A row of the page's table.
type row struct {
	proxyMode, ipFamilies string
	took                  time.Duration
	about
}

// key is how the row begins, and what no other row begins with.
func (r row) key() string { return fmt.Sprintf("| %s | %s |", r.proxyMode, r.ipFamilies) }

const (
	beginMark = "<!-- make conformance writes from here … -->\n"
	endMark   = "<!-- … to here -->\n"
	heading   = "| kube-proxy | IP families | passed | failed | left out | took | Kubernetes | Linux | kidoban | date |\n" +
		"|---|---|---:|---:|---:|---:|---|---|---|---|\n"
)

func updatePage(file string, new row, r *results) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page, err := update(string(old), new, r)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(page), 0o644)
}

// update puts a row into the page's table, in the place of the row before it, and names what was left out.
func update(page string, new row, r *results) (string, error) {
	before, rest, ok := strings.Cut(page, beginMark)
	between, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", errors.New("the marks of the table are gone")
	}
	lines := []string{fmt.Sprintf("%s %d | %d | %d | %v | %s | %s | %s | %s |\n", new.key(),
		len(r.passed), len(r.failed), len(r.leftOut), new.took, new.kubernetes, new.kernel, new.kidoban, new.date)}
	for line := range strings.Lines(strings.TrimPrefix(between, heading)) {
		if strings.HasPrefix(line, "|") && !strings.HasPrefix(line, new.key()) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	var b strings.Builder
	b.WriteString(before + beginMark + heading + strings.Join(lines, ""))
	if len(r.leftOut) > 0 {
		b.WriteString("\nLeft out:\n\n")
		for _, name := range r.leftOutNames() {
			fmt.Fprintf(&b, "- %s: %s\n", name, r.leftOut[name])
		}
	}
	b.WriteString(endMark + after)
	return b.String(), nil
}
