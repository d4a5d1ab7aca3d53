//go:build browser

package uitest

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/ui"
)

// synthetic is a graph whose popularity follows a power law: the same each time.
func synthetic(namespaces, workloads, edges int) *ui.Graph {
	r := rand.New(rand.NewPCG(1, 2))
	power := func(n int, k float64) int { return min(n-1, int(float64(n)*math.Pow(r.Float64(), k))) }
	g := &ui.Graph{Name: "synthetic", ID: "1", Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	of := make([][]int, namespaces)
	for i := range namespaces {
		g.Namespaces = append(g.Namespaces, fmt.Sprintf("team-%03d", i))
	}
	for i := range workloads {
		ns := i
		if i >= namespaces {
			ns = power(namespaces, 1.4)
		}
		of[ns] = append(of[ns], i)
		name := fmt.Sprintf("app-%03d", len(of[ns]))
		n := &g.Nodes
		n.ID, n.Name, n.Namespace = append(n.ID, g.Namespaces[ns]+"/"+name), append(n.Name, name), append(n.Namespace, ns)
		n.Kind, n.Pods, n.Ingress, n.Egress = append(n.Kind, "Deployment"), append(n.Pods, 2), append(n.Ingress, r.IntN(2)), append(n.Egress, r.IntN(2))
	}
	seen := map[[2]int]bool{}
	for len(seen) < edges {
		a := power(namespaces, 1.2)
		b := a
		if r.Float64() < 0.4 {
			b = power(namespaces, 2)
		}
		from, to := of[a][power(len(of[a]), 1.3)], of[b][power(len(of[b]), 1.3)]
		if from == to || seen[[2]int{from, to}] {
			continue
		}
		seen[[2]int{from, to}] = true
		e := &g.Edges
		e.Source, e.Destination, e.First = append(e.Source, from), append(e.Destination, to), append(e.First, len(e.Port))
		code := ui.CodeAllowed
		switch x := r.Float64(); {
		case x < 0.03:
			code = ui.CodeDenied
		case x < 0.05:
			code = ui.CodeWouldDeny
		}
		e.Port, e.Protocol, e.Verdict = append(e.Port, 8080), append(e.Protocol, 6), append(e.Verdict, code)
	}
	g.Edges.First = append(g.Edges.First, len(g.Edges.Port))
	return g
}

// reference is a page that draws so many straight lines on a canvas in each frame, and nothing else.
const reference = `<!doctype html><link rel="icon" href="data:,"><canvas id="c" width="1440" height="900"></canvas>`

// frames counts the frames of 2 seconds, in which step runs.
const frames = `new Promise(done => {
	let n = 0; const from = performance.now();
	const frame = now => { step(n++); now - from < 2000 ? requestAnimationFrame(frame) : done(String(Math.round(n / (now - from) * 10000) / 10)); };
	requestAnimationFrame(frame);
})`

// rounds is how often each map is measured; the best of them counts: others use the machine, too.
var rounds = flag.Int("rounds", 1, "rounds of TestSpeed")

// speed is what a round measured.
type speed struct {
	ready, longest, toggle, letter, open, heap int // milliseconds, and megabytes
	pan, plain                                 float64
}

// best of two rounds, each figure by itself.
func (s speed) best(o speed) speed {
	return speed{
		min(s.ready, o.ready), min(s.longest, o.longest), min(s.toggle, o.toggle), min(s.letter, o.letter), min(s.open, o.open), min(s.heap, o.heap),
		max(s.pan, o.pan), max(s.plain, o.plain),
	}
}

// TestSpeed measures large maps beside the reference, and Cytoscape at the places of one of them, and prints the figures. With PERFORMANCE it writes
// them into that page.
func TestSpeed(t *testing.T) {
	var rows strings.Builder
	for _, size := range []struct{ namespaces, workloads, edges int }{{20, 500, 5000}, {100, 5000, 25000}} {
		graph := synthetic(size.namespaces, size.workloads, size.edges)
		server := serveGraph(t, graph)
		var best speed
		for round := range *rounds {
			now := measureMap(t, server, size.edges)
			if round == 0 {
				best = now
			}
			best = best.best(now)
		}
		fmt.Fprintf(&rows, "| %s workloads, %s edges | %d ms | %.0f (plain canvas %.0f) | %d ms | %d ms | %d ms | %d ms | %d MB |\n",
			thousands(size.workloads), thousands(size.edges), best.ready, best.pan, best.plain, best.toggle, best.letter, best.open, best.longest, best.heap)
		if size.workloads == 500 {
			besideCytoscape(t, server, graph)
		}
	}
	t.Logf("best of %d, load %s\n%s", *rounds, load(t), rows.String())
	if page := os.Getenv("PERFORMANCE"); page != "" {
		writeSpeed(t, page, rows.String())
	}
}

func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// load of the machine in the last minute.
func load(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}

const speedBegin, speedEnd = "<!-- BEGIN map -->\n", "<!-- END map -->\n"

// writeSpeed replaces the part of a page between the marks.
func writeSpeed(t *testing.T, page, rows string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), speedBegin)
	_, after, ended := strings.Cut(rest, speedEnd)
	if !ok || !ended {
		t.Fatalf("%s has no part between %q and %q", page, speedBegin, speedEnd)
	}
	made := fmt.Sprintf("Best of %d, %s, %d CPUs, load %s.\n\n", *rounds, time.Now().Format("2 January 2006"), goruntime.NumCPU(), load(t)) +
		"| map | first picture | frames/s | verdict filter | a typed character | open a namespace | longest task | heap |\n|---|--:|--:|--:|--:|--:|--:|--:|\n" + rows
	if err := os.WriteFile(page, []byte(before+speedBegin+made+speedEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// serveGraph serves the page with a graph, and the pages that it is compared with.
func serveGraph(t *testing.T, graph *ui.Graph) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir("../../internal/ui/dist")))
	html := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(text))
		}
	}
	mux.HandleFunc("GET /reference", html(reference))
	mux.HandleFunc("GET /cytoscape", html(cytoscapePage))
	mux.HandleFunc("GET /cytoscape.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "../../internal/ui/web/node_modules/cytoscape/dist/cytoscape.min.js")
	})
	answer := func(out any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(out) }
	}
	mux.HandleFunc("GET /api/graph", answer(graph))
	mux.HandleFunc("GET /api/policies", answer(map[string]any{"policies": []any{}}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// plainFrames is how many frames a second a canvas has that draws so many lines in each.
func plainFrames(t *testing.T, server string, edges int) float64 {
	t.Helper()
	b := visit(t, server+"/", server+"/reference", "light")
	return b.number(fmt.Sprintf(`(() => {
		const g = document.getElementById('c').getContext('2d'), r = i => Math.abs(Math.sin(i) * 1e4) %% 1;
		const step = n => { g.clearRect(0, 0, 1440, 900); g.beginPath(); for (let i = 0; i < %d; i++) { g.moveTo(r(i) * 1440 + n %% 9, r(i + .1) * 900); g.lineTo(r(i + .2) * 1440, r(i + .3) * 900); } g.stroke(); };
		return %s; })()`, edges, frames))
}

func measureMap(t *testing.T, server string, edges int) speed {
	t.Helper()
	out := speed{plain: plainFrames(t, server, edges)}
	b := visit(t, server+"/", server+"/#as=graph", "light")
	b.wait(`document.documentElement.dataset.ready`)
	whole := func(script string) int { return int(b.number(script)) }
	out.ready = whole(`String(Math.round(performance.getEntriesByName('map painted')[0].startTime))`)
	out.longest = whole(`String(Math.round(Math.max(0, ...kidobanTest.tasks)))`)
	out.pan = b.number(`(() => { const step = n => kidobanTest.camera({x: n % 60 < 30 ? 6 : -6, y: 2 * Math.sin(n / 9)}); return ` + frames + `; })()`)
	// painted is the time from a change until the first picture after the address has it.
	painted := func(change, address string) int {
		return whole(`new Promise(done => {
			let before = -1; const from = performance.now(), write = history.replaceState, has = () => {
				if (before < 0 && location.hash.includes(` + quote(address) + `)) before = kidobanTest.painted();
			};
			history.replaceState = (...a) => { write.apply(history, a); has(); };
			` + change + `; has();
			const look = () => {
				if (before < 0 || kidobanTest.painted() <= before) return requestAnimationFrame(look);
				history.replaceState = write;
				done(String(Math.round(performance.now() - from)));
			}; look(); })`)
	}
	out.toggle = painted(`document.querySelector('.verdicts button').click()`, "off=")
	out.letter = painted(`(() => { const f = document.getElementById('filter'); f.value = 'app-00'; f.dispatchEvent(new Event('input', {bubbles: true})); })()`, "q=app-00")
	out.open = painted(`location.hash = '#as=graph&open=team-000'`, "open=")
	out.heap = whole(`String(Math.round(performance.memory.usedJSHeapSize / 1e6))`)
	return out
}

// number is the value of a script.
func (b *browser) number(script string) float64 {
	b.Helper()
	text := b.text(script)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.Fatalf("%s: %v", script, err)
	}
	return n
}
