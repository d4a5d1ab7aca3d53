package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// results are those of the specs that the focus means.
type results struct {
	passed, failed []string
	leftOut        map[string]string // why, by name
	skipped        []string          // by the spec itself, for no reason of ours
}

// junit is what is read of ginkgo's report.
type junitReport struct {
	Suites []struct {
		Cases []struct {
			Name   string `xml:"name,attr"`
			Status string `xml:"status,attr"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func readResults(junit string, focus *regexp.Regexp, left []reason) (*results, error) {
	b, err := os.ReadFile(junit)
	if err != nil {
		return nil, err
	}
	return parseResults(b, focus, left)
}

func parseResults(junit []byte, focus *regexp.Regexp, left []reason) (*results, error) {
	var report junitReport
	if err := xml.Unmarshal(junit, &report); err != nil {
		return nil, fmt.Errorf("the suite's report: %w", err)
	}
	r := &results{leftOut: map[string]string{}}
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			name, isSpec := strings.CutPrefix(c.Name, "[It] ")
			switch {
			case c.Status == "passed":
				if isSpec {
					r.passed = append(r.passed, trim(name))
				}
			case c.Status != "skipped": // also what the suite does before and after its specs
				r.failed = append(r.failed, trim(name))
			case isSpec && focus.MatchString(name):
				i := slices.IndexFunc(left, func(l reason) bool { return l.names.MatchString(name) })
				if i < 0 {
					r.skipped = append(r.skipped, trim(name))
				} else {
					r.leftOut[trim(name)] = left[i].why
				}
			}
		}
	}
	slices.Sort(r.passed)
	slices.Sort(r.failed)
	return r, nil
}

// labels are what ginkgo appends to a name: " [sig-network, Feature:NetworkPolicy]".
var labels = regexp.MustCompile(` \[sig-[^\]]*\]$`)

func trim(name string) string { return labels.ReplaceAllString(name, "") }

// err says why the results are not good. That nothing ran is not good.
func (r *results) err() error {
	var err error
	if len(r.failed) > 0 {
		err = errors.Join(err, fmt.Errorf("%d specs failed", len(r.failed)))
	}
	if len(r.skipped) > 0 {
		err = errors.Join(err, fmt.Errorf("%d specs skipped themselves, for no reason known here:\n  %s", len(r.skipped), strings.Join(r.skipped, "\n  ")))
	}
	if len(r.passed) == 0 {
		err = errors.Join(err, errors.New("no spec passed"))
	}
	return err
}

func (r *results) print(out io.Writer, took time.Duration) {
	for _, name := range r.failed {
		_, _ = fmt.Fprintf(out, "failed: %s\n", name)
	}
	for _, name := range r.leftOutNames() {
		_, _ = fmt.Fprintf(out, "left out: %s: %s\n", name, r.leftOut[name])
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed, %d left out, in %v\n", len(r.passed), len(r.failed), len(r.leftOut), took)
}

// leftOutList is what stands below the table.
func (r *results) leftOutList() string {
	if len(r.leftOut) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nLeft out:\n\n")
	for _, name := range r.leftOutNames() {
		fmt.Fprintf(&b, "- %s: %s\n", name, r.leftOut[name])
	}
	return b.String()
}

func (r *results) leftOutNames() []string {
	var names []string
	for name := range r.leftOut {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
