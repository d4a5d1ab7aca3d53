//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// A row of the table.
type row struct {
	name    string
	promise promise
	tally   tally
	heal    time.Duration // from the end of the fault; negative: not measured
}

func (r row) check(t *testing.T) {
	t.Helper()
	if (r.promise.passes && r.tally.passes > 0) || (r.promise.drops && r.tally.drops > 0) {
		t.Errorf("%s: %d wrong passes, %d wrong drops:\n\t%s", r.name, r.tally.passes, r.tally.drops, r.tally.examples())
	} else if len(r.tally.wrong) > 0 {
		t.Logf("%s: %d wrong passes, %d wrong drops, as was said:\n\t%s", r.name, r.tally.passes, r.tally.drops, r.tally.examples())
	}
	if r.tally.connections == 0 {
		t.Errorf("%s: no connection was counted", r.name)
	}
}

func (p promise) String() string {
	switch {
	case p.passes && p.drops:
		return "nothing wrong"
	case p.passes:
		return "no wrong pass; " + p.why
	default:
		return "none: " + p.why
	}
}

const tableHead = "| fault | promise | connections | wrong passes | wrong drops | healed after | on |\n|---|---|---:|---:|---:|---:|---|\n"

// line is the row as the table has it. What breaks the promise is bold.
func (r row) line() string {
	heal := "–"
	if r.heal >= 0 {
		heal = fmt.Sprintf("%.1f s", r.heal.Seconds())
	}
	number := func(n int, promised bool) string {
		if promised && n > 0 {
			return fmt.Sprintf("**%d**", n)
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("| %s | %s | %d | %s | %s | %s | %s |\n", r.name, r.promise, r.tally.connections,
		number(r.tally.passes, r.promise.passes), number(r.tally.drops, r.promise.drops), heal, time.Now().Format(time.DateOnly))
}

// A report is the lines of each fault, those beside the steady traffic below the fault's own.
type report map[string]string

func (r report) table() string {
	var b strings.Builder
	b.WriteString(tableHead)
	for _, f := range faults() {
		b.WriteString(r[f.name])
	}
	return b.String()
}

// write puts the lines of the faults that were run into a file's table, and leaves those of others.
func (r report) write(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	all := report{}
	name := ""
	for line := range strings.Lines(string(content)) {
		cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		known := slices.ContainsFunc(faults(), func(f fault) bool { return f.name == cell })
		switch {
		case !ok || strings.Count(line, " |") != strings.Count(tableHead, " |"):
			name = ""
		case known:
			name = cell
			all[name] = line
		case name != "" && strings.HasPrefix(cell, "… "):
			all[name] += line
		}
	}
	maps.Copy(all, r)
	return writeSection(file, "chaos", all.table())
}

// writeSection replaces what stands between the marks of a section in a file, and says when and where it was measured.
func writeSection(file, section, text string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := fmt.Appendf(nil, "<!-- %s: written by the run from here … -->\n", section), fmt.Appendf(nil, "<!-- … to here: %s -->", section)
	i, j := bytes.Index(content, begin), bytes.Index(content, end)
	if i < 0 || j < i {
		return fmt.Errorf("%s has no section %s", file, section)
	}
	text = provenance() + "\n" + text
	return os.WriteFile(file, bytes.Join([][]byte{content[:i], begin, []byte(text), content[j:]}, nil), 0o644)
}

func provenance() string {
	var uname unix.Utsname
	_ = unix.Uname(&uname)
	version, err := cluster.Output(test.Kubectl(context.Background(), "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.kubeletVersion}"))
	if err != nil {
		version = "of unknown version"
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("On %s: Kubernetes %s, %d nodes on one machine with %d CPUs (load %s at the end),\nLinux %s, %s.\n",
		time.Now().Format("2 January 2006"), version, len(nodes), runtime.NumCPU(), strings.Fields(string(load) + " ?")[0],
		unix.ByteSliceToString(uname.Release[:]), runtime.Version())
}
