// Package table keeps the results of conformance suites in tables of docs pages: a row for each kube-proxy and family of addresses.
package table

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// About is what a result depends on.
type About struct{ Kubernetes, Kernel, Kidoban, Date string }

// Describe finds it out of a cluster and the tree that it runs.
func Describe(ctx context.Context, c *cluster.Cluster) (*About, error) {
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
	return &About{
		Kubernetes: version.GitVersion, Kernel: unix.ByteSliceToString(u.Release[:]),
		Kidoban: commit, Date: time.Now().UTC().Format(time.DateOnly),
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

// Row of a table.
type Row struct {
	ProxyMode, IPFamilies   string
	Passed, Failed, LeftOut int
	Took                    time.Duration
	About
}

// key is how the row begins, and what no other row begins with.
func (r Row) key() string { return fmt.Sprintf("| %s | %s |", r.ProxyMode, r.IPFamilies) }

func (r Row) String() string {
	return fmt.Sprintf("%s %d | %d | %d | %v | %s | %s | %s | %s |\n",
		r.key(), r.Passed, r.Failed, r.LeftOut, r.Took, r.Kubernetes, r.Kernel, r.Kidoban, r.Date)
}

const (
	endMark = "<!-- … to here -->\n"
	heading = "| kube-proxy | IP families | passed | failed | left out | took | Kubernetes | Linux | kidoban | date |\n" +
		"|---|---|---:|---:|---:|---:|---|---|---|---|\n"
)

func beginMark(command string) string { return "<!-- " + command + " writes from here … -->\n" }

// Write puts a row into the table of a page, in the place of the row before it, and below the table what else there is to say. The
// table is between the marks of the command that writes it.
func Write(file, command string, new Row, below string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page, err := update(string(old), command, new, below)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(page), 0o644)
}

func update(page, command string, new Row, below string) (string, error) {
	begin := beginMark(command)
	before, rest, ok := strings.Cut(page, begin)
	between, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("the marks of the table of %q are gone", command)
	}
	lines := []string{new.String()}
	for line := range strings.Lines(strings.TrimPrefix(between, heading)) {
		if strings.HasPrefix(line, "|") && !strings.HasPrefix(line, new.key()) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return before + begin + heading + strings.Join(lines, "") + below + endMark + after, nil
}
