//go:build browser

package uitest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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

// TestSpeed measures large maps beside the reference, and prints the figures.
func TestSpeed(t *testing.T) {
	for _, size := range []struct{ namespaces, workloads, edges int }{{20, 500, 5000}, {100, 5000, 25000}} {
		graph := synthetic(size.namespaces, size.workloads, size.edges)
		mux := http.NewServeMux()
		mux.Handle("GET /", http.FileServer(http.Dir("../../internal/ui/dist")))
		mux.HandleFunc("GET /reference", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(reference))
		})
		answer := func(out any) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(out) }
		}
		mux.HandleFunc("GET /cytoscape.js", func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, "../../internal/ui/web/node_modules/cytoscape/dist/cytoscape.min.js")
		})
		mux.HandleFunc("GET /cytoscape", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(cytoscapePage))
		})
		mux.HandleFunc("GET /api/graph", answer(graph))
		mux.HandleFunc("GET /api/policies", answer(map[string]any{"policies": []any{}}))
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		b := visit(t, server.URL+"/", server.URL+"/reference", "light")
		plain := b.text(fmt.Sprintf(`(() => {
			const g = document.getElementById('c').getContext('2d'), r = i => Math.abs(Math.sin(i) * 1e4) %% 1;
			const step = n => { g.clearRect(0, 0, 1440, 900); g.beginPath(); for (let i = 0; i < %d; i++) { g.moveTo(r(i) * 1440 + n %% 9, r(i + .1) * 900); g.lineTo(r(i + .2) * 1440, r(i + .3) * 900); } g.stroke(); };
			return %s; })()`, size.edges, frames))
		b = visit(t, server.URL+"/", server.URL+"/#as=graph", "light")
		b.wait(`document.documentElement.dataset.ready`)
		ready := b.text(`String(Math.round(performance.getEntriesByName('map painted')[0].startTime))`)
		longest := b.text(`String(Math.round(Math.max(0, ...kidobanTest.tasks)))`)
		pan := b.text(`(() => { const step = n => kidobanTest.camera({x: n % 60 < 30 ? 6 : -6, y: 2 * Math.sin(n / 9)}); return ` + frames + `; })()`)
		// painted is the time from a change until the first picture after the address has it.
		painted := func(change, address string) string {
			return b.text(`new Promise(done => { let before = -1; const from = performance.now(); ` + change + `;
				const look = () => {
					if (before < 0 && location.hash.includes(` + quote(address) + `)) before = kidobanTest.painted();
					before >= 0 && kidobanTest.painted() > before ? done(String(Math.round(performance.now() - from))) : requestAnimationFrame(look);
				}; look(); })`)
		}
		toggle := painted(`document.querySelector('.verdicts button').click()`, "off=")
		letter := painted(`(() => { const f = document.getElementById('filter'); f.value = 'app-00'; f.dispatchEvent(new Event('input', {bubbles: true})); })()`, "q=app-00")
		open := painted(`location.hash = '#as=graph&open=team-000'`, "open=")
		heap := b.text(`String(Math.round(performance.memory.usedJSHeapSize / 1e6))`)
		if size.workloads == 500 {
			besideCytoscape(t, server.URL, graph, plain)
		}
		t.Logf("%d workloads, %d edges: painted after %s ms, longest task %s ms, pan %s frames/s (plain canvas %s), verdict filter %s ms, a letter %s ms, open a namespace %s ms, heap %s MB",
			size.workloads, size.edges, ready, longest, pan, plain, toggle, letter, open, heap)
	}
}
