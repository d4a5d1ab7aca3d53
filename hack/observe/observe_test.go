package observe

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/compiler"
	_ "github.com/kidoban/kidoban/internal/controller" // registers its metrics
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/flowpush"
	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observer/onward"
	"github.com/kidoban/kidoban/internal/observer/podevents"
	"github.com/kidoban/kidoban/internal/observer/workloadmetrics"
	"github.com/kidoban/kidoban/internal/sink"
	"github.com/kidoban/kidoban/internal/stream/client"
	"github.com/kidoban/kidoban/internal/streamserver"
)

const root = "../../"

// described remembers what collectors say that they export.
type described struct {
	prometheus.Registerer
	names map[string]bool
}

var name = regexp.MustCompile(`fqName: "([^"]+)"`)

func (d described) MustRegister(collectors ...prometheus.Collector) {
	for _, c := range collectors {
		_ = d.Register(c)
	}
}

func (d described) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	for desc := range ch {
		d.names[name.FindStringSubmatch(desc.String())[1]] = true
	}
	return nil
}

// noKernel is of an agent that never starts.
type noKernel struct{ agent.Kernel }

func (noKernel) Usage() []dataplane.MapUsage                                   { return nil }
func (noKernel) Patterns() (map[string]compiler.PatternID, compiler.PatternID) { return nil, 0 }
func (noKernel) LearnsNames() bool                                             { return false }

// agentMetrics are the names of what an agent exports of its own.
func agentMetrics() map[string]bool {
	d := described{names: map[string]bool{}}
	a := agent.New(nil, noKernel{}, agent.Options{Registry: d, RuleSeries: 1, Log: logr.Discard()})
	client.New(client.Options{Registry: d, Log: logr.Discard()})
	flowpush.New(flowpush.Options{Registry: d, Log: logr.Discard()})
	flowlog.New(flowlog.Options{Registry: d, Directory: a.Names(), Sinks: []sink.Sink{sink.Stdout()}, Log: logr.Discard()})
	return d.names
}

// observerMetrics are the names of what an observer exports of its own.
func observerMetrics(t *testing.T) map[string]bool {
	t.Helper()
	d := described{names: map[string]bool{}}
	podevents.New(podevents.Options{Registry: d, Log: logr.Discard()})
	d.MustRegister(workloadmetrics.New(1))
	onward.New(onward.Options{Registry: d, Sinks: []sink.Sink{sink.Stdout()}, Log: logr.Discard()})
	if _, err := ingest.New(ingest.Options{Address: "127.0.0.1:0", Registry: d}); err != nil {
		t.Fatal(err)
	}
	return d.names
}

// isController reports whether the controller exports a metric: then another one cannot have its name.
func isController(name string) bool {
	other := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Another one."})
	if err := metrics.Registry.Register(other); err != nil {
		return true
	}
	metrics.Registry.Unregister(other)
	return false
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(root + path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheTableListsWhatThereIs(t *testing.T) {
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(kidoban_[a-z_]+)` \\|").FindAllSubmatch(read(t, "docs/metrics.md"), -1) {
		documented[string(m[1])] = true
	}
	there := agentMetrics()
	maps.Copy(there, observerMetrics(t))
	if _, err := streamserver.New(streamserver.Options{Address: "127.0.0.1:0", Registry: described{names: there}}); err != nil {
		t.Fatal(err)
	}
	gathered, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range gathered {
		if strings.HasPrefix(f.GetName(), "kidoban_controller_") {
			there[f.GetName()] = true
		}
	}
	for name := range there {
		if !documented[name] {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	for name := range documented {
		if !there[name] && !isController(name) {
			t.Errorf("%s does not exist", name)
		}
	}
}

// metricsOf parses an expression and gives the metrics that it asks for.
func metricsOf(t *testing.T, expr string) []string {
	t.Helper()
	expr = strings.NewReplacer("$__rate_interval", "5m", "$__range", "5m", "$cluster", ".*", "$namespace", ".*", "$node", ".*").Replace(expr)
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return nil
	}
	var out []string
	for _, selectors := range parser.ExtractSelectors(parsed) {
		for _, m := range selectors {
			if m.Name == "__name__" {
				out = append(out, m.Value)
			}
		}
	}
	return out
}

// others are metrics that are not ours: of kube-state-metrics, and of every process.
var others = []string{
	"kube_daemonset_status_number_unavailable", "kube_daemonset_status_desired_number_scheduled", "kube_deployment_status_replicas_available", "process_resident_memory_bytes",
}

func checkExpressions(t *testing.T, expressions []string) {
	t.Helper()
	if len(expressions) == 0 {
		t.Error("no expression was found")
	}
	there := agentMetrics()
	maps.Copy(there, observerMetrics(t))
	for _, expr := range expressions {
		for _, name := range metricsOf(t, expr) {
			base := name
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !there[name] && !there[base] && !isController(base) && !slices.Contains(others, name) {
				t.Errorf("%s: there is no metric %s", expr, name)
			}
		}
	}
}

var port = regexp.MustCompile(`\bport \d|:\d{4}`)

func TestAlerts(t *testing.T) {
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr string
					Annotations map[string]string
				}
			}
		}
	}
	if err := yaml.Unmarshal(read(t, "config/prometheus/rules.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	var expressions []string
	for _, g := range rules.Spec.Groups {
		for _, r := range g.Rules {
			expressions = append(expressions, r.Expr)
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s does not say what it is about", r.Alert)
			}
			if text := r.Annotations["summary"] + r.Annotations["description"]; port.MatchString(text) {
				t.Errorf("%s names a port, which users may change: %s", r.Alert, text)
			}
		}
	}
	checkExpressions(t, expressions)
	if !slices.ContainsFunc(expressions, func(e string) bool { return strings.Contains(e, "kidoban_controller_unresolved_policies") }) {
		t.Error("no alert for policies that cannot be enforced in full")
	}
}

func TestDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, "config/prometheus/dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	var expressions []string
	cells := map[[2]int]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s covers %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
	checkExpressions(t, expressions)
}

// TestVerdictsExist looks for each verdict that alerts and panels select in the row of docs/metrics.md: one that no series has selects nothing.
func TestVerdictsExist(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `kidoban_agent_verdicts_total` .*$").Find(read(t, "docs/metrics.md"))
	text := string(read(t, "config/prometheus/dashboard.json")) + string(read(t, "config/prometheus/rules.yaml"))
	found := regexp.MustCompile(`verdict!?=~?\\?"([A-Za-z|]+)`).FindAllStringSubmatch(text, -1)
	if len(found) < 5 {
		t.Errorf("only %d selectors were found", len(found))
	}
	for _, m := range found {
		for verdict := range strings.SplitSeq(m[1], "|") {
			if !strings.Contains(string(row), "`"+verdict+"`") {
				t.Errorf("%s: docs/metrics.md has no verdict %s", m[0], verdict)
			}
		}
	}
}

func TestLinesKeepToTheSchema(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(root + "docs/flow-log.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	lines, err := filepath.Glob(root + "internal/flowlog/testdata/*.json")
	if err != nil || len(lines) == 0 {
		t.Fatal("no lines", err)
	}
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		line, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(line); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for key := range line.(map[string]any) {
			seen[key] = true
		}
	}
	// The lines have every field that the schema has: none was forgotten in either.
	var plain struct{ Properties map[string]any }
	if err := json.Unmarshal(read(t, "docs/flow-log.schema.json"), &plain); err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(plain.Properties)) {
		if !seen[key] {
			t.Errorf("no line in testdata has %s", key)
		}
	}
}

// The dashboard is shipped by the component's own generator.
func TestTheComponentHasEveryFile(t *testing.T) {
	kustomization := string(read(t, "config/prometheus/kustomization.yaml"))
	err := fs.WalkDir(os.DirFS(root+"config/prometheus"), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != "kustomization.yaml" && !strings.Contains(kustomization, path) {
			t.Errorf("%s is not used", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
