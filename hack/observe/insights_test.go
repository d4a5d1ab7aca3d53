package observe

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// insights finds the queries of docs/eks.md, by the format of the lines that they read.
var insights = regexp.MustCompile("(?ms)^```logs-insights (json|text)\n(.*?)^```$")

// TestLogsInsightsQueries compares the queries of docs/eks.md for CloudWatch Logs Insights with lines as the agent writes them: fields of
// the JSON form exist, and expressions for the text form find what they are named for. A query's own syntax is CloudWatch's alone to judge.
func TestLogsInsightsQueries(t *testing.T) {
	fields := map[string]bool{}
	for _, line := range flowLogLines(t, "json") {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		flatten(fields, "", o)
	}
	text := flowLogLines(t, "text")
	seen := map[string]int{}
	for _, m := range insights.FindAllStringSubmatch(string(read(t, "docs/eks.md")), -1) {
		format, query := m[1], m[2]
		seen[format]++
		if format == "json" {
			checkFields(t, query, fields)
		} else {
			checkPatterns(t, query, text)
		}
	}
	if seen["json"] < 3 || seen["text"] < 2 {
		t.Errorf("found queries %v", seen)
	}
}

func flowLogLines(t *testing.T, format string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(root + "internal/flowlog/testdata/*." + format)
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(string(b)))
	}
	return lines
}

// flatten adds the names that CloudWatch gives the fields of a JSON line: a.b for a field of an object, a.0 for the first of a list.
func flatten(fields map[string]bool, prefix string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			flatten(fields, strings.TrimPrefix(prefix+"."+key, "."), below)
		}
	case []any:
		for i, below := range v {
			flatten(fields, prefix+"."+strconv.Itoa(i), below)
		}
	default:
		fields[prefix] = true
	}
}

var (
	quoted    = regexp.MustCompile(`"[^"]*"|/[^/]*/`)
	word      = regexp.MustCompile(`@?[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z0-9]+)*\(?`)
	functions = []string{"sum(", "latest(", "bin("}
	keywords  = strings.Fields("filter stats display sort limit by as and or like asc desc h @logStream @message")
	alias     = regexp.MustCompile(`\bas (\w+)`)
)

// checkFields looks for words in a query that are neither fields of the flow log, nor of the language, nor names that the query gives.
func checkFields(t *testing.T, query string, fields map[string]bool) {
	t.Helper()
	known := append(slices.Clone(keywords), functions...)
	for _, m := range alias.FindAllStringSubmatch(query, -1) {
		known = append(known, m[1])
	}
	used := 0
	for _, name := range word.FindAllString(quoted.ReplaceAllString(query, ""), -1) {
		switch {
		case fields[name]:
			used++
		case !slices.Contains(known, name):
			t.Errorf("%s\nno line of the flow log has the field %s; there are %v", query, name, slices.Sorted(maps.Keys(fields)))
		}
	}
	if used < 3 {
		t.Errorf("%s\nonly %d fields of the flow log are used", query, used)
	}
}

// checkPatterns runs a query's expressions on lines of the text form: those that filter must match some lines and not others, those
// that parse must find a value in a line that the filters choose.
func checkPatterns(t *testing.T, query string, lines []string) {
	t.Helper()
	expression := regexp.MustCompile(`/((?:[^/\\]|\\.)*)/`)
	chosen, parsed := slices.Clone(lines), 0
	for line := range strings.Lines(query) {
		for _, m := range expression.FindAllStringSubmatch(line, -1) {
			if strings.HasPrefix(m[1], "^kidoban-") {
				continue // of the stream's name
			}
			re, err := regexp.Compile(m[1])
			if err != nil {
				t.Fatalf("%s: %v", m[1], err)
			}
			if strings.HasPrefix(line, "filter") {
				chosen = slices.DeleteFunc(chosen, func(l string) bool { return !re.MatchString(l) })
				if len(chosen) == 0 || len(chosen) == len(lines) {
					t.Errorf("%s matches %d of %d lines", m[1], len(chosen), len(lines))
				}
				continue
			}
			parsed++
			found := slices.ContainsFunc(chosen, func(l string) bool {
				groups := re.FindStringSubmatch(l)
				return len(groups) > 1 && !slices.Contains(groups, "")
			})
			if !found {
				t.Errorf("%s finds nothing in any of %d lines", m[1], len(chosen))
			}
		}
	}
	if parsed == 0 {
		t.Errorf("%s\nparses nothing", query)
	}
}
