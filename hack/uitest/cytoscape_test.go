//go:build browser

package uitest

import (
	"net/url"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/ui"
)

// cytoscapePage draws places and routes with Cytoscape: the other way to draw the map (docs/decisions/0032).
const cytoscapePage = `<!doctype html><link rel="icon" href="data:,"><style>html, body, #map { margin: 0; width: 100%; height: 100%; }</style><div id="map"></div><script src="cytoscape.js"></script>`

// drawWithCytoscape draws what the map had, each edge with a class of its verdict and the corners of its route.
const drawWithCytoscape = `(places => new Promise(done => {
	const from = performance.now(), at = i => { const p = places.nodes[i]; return [p.x + p.w / 2, p.y + p.h / 2]; }, elements = [];
	places.nodes.forEach((p, i) => p && elements.push({ data: { id: 'n' + i }, position: { x: at(i)[0], y: at(i)[1] } }));
	places.routes.forEach((r, i) => {
		const [sx, sy] = at(r.a), [tx, ty] = at(r.b), dx = tx - sx, dy = ty - sy, l = Math.hypot(dx, dy) || 1, d = [], w = [];
		for (let k = 2; k + 3 < r.line.length; k += 2) {
			const x = r.line[k] - sx, y = r.line[k + 1] - sy;
			w.push((x * dx + y * dy) / (l * l));
			d.push((-x * dy + y * dx) / l);
		}
		const bent = w.length > 0 ? r.curve ? ' curve' : ' bent' : '';
		elements.push({ data: { source: 'n' + r.a, target: 'n' + r.b, w: w.join(' '), d: d.join(' ') }, classes: 'v' + r.worst + bent });
	});
	const cy = globalThis.cy = cytoscape({
		container: document.getElementById('map'), elements, layout: { name: 'preset' }, pixelRatio: 1, textureOnViewport: true, autoungrabify: true, boxSelectionEnabled: false,
		style: [
			{ selector: 'node', style: { shape: 'round-rectangle', width: 128, height: 26, 'background-color': '#f3f5f8', 'border-width': 1, 'border-color': '#d9dee6' } },
			{ selector: 'edge', style: { width: 1, 'curve-style': 'straight', 'line-color': '#4a78b8', 'target-arrow-shape': 'triangle', 'target-arrow-color': '#4a78b8', 'arrow-scale': .6 } },
			{ selector: '.bent', style: { 'curve-style': 'segments', 'segment-weights': 'data(w)', 'segment-distances': 'data(d)', 'edge-distances': 'node-position' } },
			{ selector: '.curve', style: { 'curve-style': 'unbundled-bezier', 'control-point-weights': 'data(w)', 'control-point-distances': 'data(d)', 'edge-distances': 'node-position' } },
			{ selector: '.v0', style: { 'line-color': '#a9261c', 'target-arrow-color': '#a9261c', 'line-style': 'dashed' } },
			{ selector: '.v1', style: { 'line-color': '#b28300', 'target-arrow-color': '#b28300', 'line-style': 'dashed' } },
			{ selector: '.off', style: { display: 'none' } },
		],
	});
	cy.one('render', () => { cy.fit(); cy.one('render', () => done(String(Math.round(performance.now() - from)))); });
	cy.forceRender();
}))`

// besideCytoscape draws every edge of a map with the page's painter and then with Cytoscape, at the same places, and prints both figures.
func besideCytoscape(t *testing.T, server string, graph *ui.Graph) {
	t.Helper()
	plain := plainFrames(t, server, len(graph.Edges.Source))
	b := visit(t, server+"/", server+"/#as=graph&every=1&open="+url.QueryEscape(strings.Join(graph.Namespaces, ",")), "light")
	b.wait(`document.documentElement.dataset.ready`)
	measure := func(move, filter, painted string) (pan, filtered, heap string) {
		pan = b.text(`(() => { const step = n => ` + move + `; return ` + frames + `; })()`)
		filtered = b.text(`new Promise(done => { const from = performance.now(), before = ` + painted + `; ` + filter + `;
			const look = () => ` + painted + ` > before ? done(String(Math.round(performance.now() - from))) : requestAnimationFrame(look); look(); })`)
		return pan, filtered, b.text(`String(Math.round(performance.memory.usedJSHeapSize / 1e6))`)
	}
	ready := b.text(`String(Math.round(performance.getEntriesByName('map painted')[0].startTime))`)
	pan, filtered, heap := measure(`kidobanTest.camera({x: n % 60 < 30 ? 6 : -6, y: 2 * Math.sin(n / 9)})`, `document.querySelector('.verdicts button').click()`, `kidobanTest.painted()`)
	b.eval(`location.hash = '#as=graph&every=1&off=&open=` + strings.Join(graph.Namespaces, ",") + `'`)
	b.wait(`!document.querySelector('.verdicts button[aria-pressed=false]')`)
	places := b.text(`JSON.stringify(kidobanTest.places())`)
	t.Logf("our painter, every edge: painted after %s ms, pan %s frames/s (plain canvas %.0f), verdict filter %s ms, heap %s MB", ready, pan, plain, filtered, heap)

	b = visit(t, server+"/", server+"/cytoscape", "light")
	ready = b.text(drawWithCytoscape + `(` + places + `)`)
	b.eval(`(globalThis.rendered = 0, cy.on('render', () => rendered++))`)
	pan, filtered, heap = measure(`cy.panBy({x: n % 60 < 30 ? 6 : -6, y: 2 * Math.sin(n / 9)})`, `cy.batch(() => cy.edges('.v0').toggleClass('off'))`, `rendered`)
	t.Logf("Cytoscape, the same places and edges: drawn %s ms after its start, pan %s frames/s, verdict filter %s ms, heap %s MB, %s edges", ready, pan, filtered, heap, b.text(`String(cy.edges().length)`))
}
