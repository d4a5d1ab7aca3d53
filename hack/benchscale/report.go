package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is one measured figure with its bar.
type row struct {
	section, what string
	// ratio of the figure to the bar: at most 1 is right. Negative if there is no bar.
	ratio         float64
	measured, bar string
}

func ratioOf(d, bar time.Duration) float64 { return d.Seconds() / bar.Seconds() }

// report collects the figures.
type report struct {
	began    time.Time
	progress io.Writer
	notes    []string
	rows     []row
}

// logf reports progress.
func (r *report) logf(format string, args ...any) {
	fmt.Fprintf(r.progress, "%6.1f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// note adds a sentence to the report.
func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *report) add(w row) {
	w.section += loadNow()
	r.rows = append(r.rows, w)
	r.logf("%-60s %10s  (bar %s)", w.what, w.measured, w.bar)
}

// markdown formats the report as a part of a page.
func (r *report) markdown(command string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "`%s` on %s, %s.\n\n", command, r.began.UTC().Format("2 January 2006"), machine())
	b.WriteString("| measured ÷ bar | case | measured | bar | load |\n|---:|---|---:|---:|---:|\n")
	for _, w := range r.rows {
		ratio := "–"
		if w.ratio >= 0 {
			ratio = fmt.Sprintf("%.3g", w.ratio)
			if w.ratio > 1 {
				ratio = "**" + ratio + "**"
			}
		}
		section, load, _ := strings.Cut(w.section, "@")
		fmt.Fprintf(&b, "| %s | %s: %s | %s | %s | %s |\n", ratio, section, w.what, w.measured, w.bar, load)
	}
	b.WriteByte('\n')
	for _, n := range r.notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	return b.Bytes()
}

const endMark = "<!-- … to here -->\n"

func beginMarkOf(target string) string { return "<!-- make " + target + " writes from here … -->\n" }

// replaceIn replaces the text between the marks of a make target in a file by the report.
func replaceIn(file, target string, content []byte) error {
	beginMark := beginMarkOf(target)
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark)) // the first one after it
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q, between which the report belongs", file, beginMark, endMark)
	}
	return os.WriteFile(file, bytes.Join([][]byte{before, []byte(beginMark), content, []byte(endMark), after}, nil), 0o644)
}

// machine describes the machine of the measurement.
func machine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer func() { _ = f.Close() }()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	var name unix.Utsname
	_ = unix.Sysinfo(&info)
	_ = unix.Uname(&name)
	return fmt.Sprintf("%d CPUs (%s), %.0f GiB, Linux %s, %s, API server, etcd and load on the same machine",
		runtime.NumCPU(), model, float64(info.Totalram)*float64(info.Unit)/(1<<30), unix.ByteSliceToString(name.Release[:]), runtime.Version())
}

// loadNow is the load average of the last minute, in the form of a row.
func loadNow() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), " ")
	return "@" + first
}
