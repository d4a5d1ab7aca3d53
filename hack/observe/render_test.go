package observe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

var update = flag.Bool("update", false, "write testdata/dashboard.txt anew")

// scraped are two scrapes, a minute apart, of the agents and the leading controller of a cluster under test (e2e), as Prometheus has them
// with the labels of config/prometheus. Only our own metrics and the processes' memory were kept.
func scraped(t *testing.T) storage.Queryable {
	t.Helper()
	samples := map[string][]chunks.Sample{}
	for minute, when := range []string{"before", "after"} {
		for _, of := range []struct{ file, labels string }{
			{"agent-n1", `node="n1",pod="kidoban-agent-a"`}, {"agent-n2", `node="n2",pod="kidoban-agent-b"`}, {"controller", `pod="kidoban-controller-c"`},
		} {
			text, err := os.ReadFile(filepath.Join("testdata", of.file+"-"+when+".prom"))
			if err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
				line := lines.Text()
				space := strings.LastIndexByte(line, ' ')
				value, err := strconv.ParseFloat(line[space+1:], 64)
				if err != nil {
					t.Fatal(err)
				}
				name, rest, _ := strings.Cut(line[:space], "{")
				series := name + "{" + of.labels + "}"
				if rest != "" {
					series = name + "{" + of.labels + "," + rest
				}
				samples[series] = append(samples[series], sample{int64(minute) * 60_000, value})
			}
		}
	}
	var all []storage.Series
	for _, text := range slices.Sorted(maps.Keys(samples)) {
		l, err := parser.NewParser(parser.Options{}).ParseMetric(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		all = append(all, storage.NewListSeries(l, samples[text]))
	}
	return queryable(all)
}

// queryable answers queries from these series.
func queryable(all []storage.Series) storage.Queryable {
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &seriesSet{at: -1}
		for _, s := range all {
			if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) }) {
				set.series = append(set.series, s)
			}
		}
		return set
	}}}
}

// sample is a value at a time in milliseconds.
type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

type seriesSet struct {
	series []storage.Series
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// TestTheDashboardRendered asks each panel's queries of a real cluster's metrics, as Grafana does, and shows what comes of them.
func TestTheDashboardRendered(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(read(t, "config/prometheus/dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	data := scraped(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{})})
	t.Cleanup(func() { _ = engine.Close() })
	var out strings.Builder
	for _, p := range dashboard.Panels {
		if p.Type == "row" {
			fmt.Fprintf(&out, "== %s\n", p.Title)
			continue
		}
		fmt.Fprintf(&out, "%s\n", p.Title)
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$__range", "5m", "$cluster", ".*", "$namespace", ".*", "$node", ".*").Replace(target.Expr)
			query, err := engine.NewInstantQuery(t.Context(), data, nil, expr, time.Unix(60, 0))
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			vector, err := query.Exec(t.Context()).Vector()
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			if len(vector) == 0 {
				t.Errorf("%s: %s shows nothing", p.Title, expr)
			}
			for _, line := range samples(vector, target.LegendFormat) {
				fmt.Fprintf(&out, "    %s\n", line)
			}
			query.Close()
		}
	}
	golden := filepath.Join("testdata", "dashboard.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("(-update writes %s anew)\n%s", golden, &out)
	}
}

// samples as a legend names them, in order.
func samples(v promql.Vector, legend string) []string {
	var out []string
	for _, s := range v {
		name := legend
		for _, l := range []string{"direction", "reason", "namespace", "policy", "rule", "map", "node", "sink", "kind", "operation", "result", "pod"} {
			name = strings.ReplaceAll(name, "{{"+l+"}}", s.Metric.Get(l))
		}
		if name == "" {
			name = s.Metric.String()
		}
		value := fmt.Sprintf("%.4g", s.F)
		if math.IsNaN(s.F) {
			value = "-" // of no observation in this minute
		}
		out = append(out, strings.TrimSpace(name+"  "+value))
	}
	slices.Sort(out)
	return out
}
