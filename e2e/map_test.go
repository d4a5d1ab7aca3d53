//go:build e2e && browser

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/internal/policy"
)

// TestMap opens the map of the shop in a browser, with an observer: it shows what the demo's matrix shows, edge by edge, and counts of each edge what
// was connected.
func TestMap(t *testing.T) {
	installObserver(t)
	createShopPolicies(t)
	awaitInForce(t)
	tables, err := store.Measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := store.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := map[netip.Addr]string{}
	for i := range all {
		for _, a := range policy.PodAddresses(&all[i]) {
			names[a] = all[i].Namespace + "/" + all[i].Labels["app.kubernetes.io/name"]
		}
	}
	want := map[string]string{} // "from to port", verdict
	for _, table := range tables {
		for _, p := range table.Probes {
			at := p.Endpoint.Target.Address
			from, to := "", names[at.Addr()]
			if len(p.Source.Addresses) > 0 {
				from = names[p.Source.Addresses[0]]
			}
			if from == "" || to == "" || from == to { // one end is outside, or a Service's address: the map has the pod behind it
				continue
			}
			verdict := "Denied"
			if p.Allowed {
				verdict = "Allowed"
			}
			want[fmt.Sprintf("%s %s %s", from, to, p.Endpoint.Column.Port)] = verdict
		}
	}
	if len(want) == 0 {
		t.Fatal("no connection between two pods was measured")
	}
	b := openMap(t)
	t.Run("the table is the matrix", func(t *testing.T) {
		b.show("as=table&off=&since=1h&q=-outside:")
		b.wait(t, `document.querySelector('table.list tbody tr')`)
		got := b.rows(t)
		for edge, verdict := range want {
			if got[edge] != verdict {
				t.Errorf("%s: measured %s, the map has %q", edge, verdict, got[edge])
			}
		}
	})
	t.Run("does talk is what was measured", func(t *testing.T) {
		eventually(t, "the map has counted all connections", func(context.Context) error {
			counted := b.counted(t)
			for edge, verdict := range want {
				if c := counted[edge]; verdict == "Denied" && c.Denied == 0 || verdict == "Allowed" && c.Total == c.Denied {
					return fmt.Errorf("%s: measured %s, the map has counted %d denied of %d", edge, verdict, c.Denied, c.Total)
				}
			}
			for edge, c := range counted {
				if _, measured := want[edge]; !measured && c.Total > 0 {
					return fmt.Errorf("%s: %d connections that were not measured", edge, c.Total)
				}
			}
			return nil
		})
		b.show("as=table&talk=does&off=&since=1h&q=-outside:")
		b.eval(`document.querySelector('button[aria-label="Read again"]').click()`)
		edges := map[string]bool{}
		for edge := range want {
			from, rest, _ := strings.Cut(edge, " ")
			to, _, _ := strings.Cut(rest, " ")
			edges[from+" "+to] = true
		}
		eventually(t, "Does talk has the connections that were measured, and no other", func(context.Context) error {
			shown := map[string]bool{}
			for row := range b.rows(t) {
				from, rest, _ := strings.Cut(row, " ")
				to, _, _ := strings.Cut(rest, " ")
				if from != to {
					shown[from+" "+to] = true
				}
			}
			if !maps.Equal(shown, edges) {
				return fmt.Errorf("shown: %v, measured: %v", slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(edges)))
			}
			return nil
		})
	})
	t.Run("a denied connection is explained", func(t *testing.T) {
		b.show("off=&sel=shop/frontend>shop/database")
		b.wait(t, `document.querySelector('.panel .decisions')`)
		for _, text := range []string{"none of their rules allows this connection", "kubectl kidoban explain shop/frontend shop/database:5432", "First seen"} {
			if b.eval(`document.querySelector('.panel').textContent.includes('`+text+`')`) != "true" {
				t.Errorf("no %q in %s", text, b.eval(`document.querySelector('.panel').textContent`))
			}
		}
	})
	t.Run("the longest name", func(t *testing.T) {
		pod := longestPod(t)
		create(t, pod)
		b.show("view=workload&sel=shop/" + pod.Name) // it has no connection, which the table would list
		eventually(t, "the map has the pod", func(context.Context) error {
			b.eval(`(document.querySelector('button[aria-label="Read again"]').click(), '')`)
			if b.eval(`document.querySelector('.page header h2')?.textContent`) != "shop/"+pod.Name {
				return fmt.Errorf("the page has: %s", b.eval(`document.body.innerText.slice(0, 400)`))
			}
			return nil
		})
		if b.eval(`String(document.documentElement.scrollWidth <= innerWidth)`) != "true" {
			t.Error("a name of 253 characters widens the page")
		}
	})
	t.Run("policies are in force, and rules were hit", func(t *testing.T) {
		b.show("view=policies&q=policy:shop/backend")
		b.wait(t, `/in force on ([12]) of \1 node/.test(document.querySelector('.card')?.textContent)`)
		b.wait(t, `/ connections?, the last /.test(document.querySelector('.card')?.textContent)`)
	})
	t.Run("flows arrive, and the observer goes and comes back", func(t *testing.T) {
		b.show("view=flows&q=port:5432")
		b.wait(t, `document.querySelector('.flows tbody tr')`)
		scale := func(replicas string) {
			t.Helper()
			if _, err := cluster.Output(test.Kubectl(context.Background(), "-n", engine.Namespace, "scale", "deployment/"+engine.Observer, "--replicas="+replicas)); err != nil {
				t.Fatal(err)
			}
		}
		scale("0")
		b.wait(t, `document.querySelector('.flows .strip')`)
		if b.eval(`String(!!document.querySelector('.flows tbody tr'))`) != "true" {
			t.Error("the table is empty while the observer is away")
		}
		scale("1")
		b.wait(t, `!document.querySelector('.flows .strip')`)
		frontend, database := pods(t, "frontend")[0], pods(t, "database")[0]
		dial(t, &frontend, &database, 5432)
		b.wait(t, `[...document.querySelectorAll('.flows tbody tr')].some(r => r.textContent.includes('Denied') && r.textContent.includes('shop/frontend'))`)
	})
	t.Run("a reader without rights", func(t *testing.T) {
		for _, args := range [][]string{
			{"create", "clusterrolebinding", "map-reader", "--clusterrole=view", "--user=reader"},
			{"create", "clusterrole", "map-reader-nodes", "--verb=list", "--resource=nodes,namespaces"},
			{"create", "clusterrolebinding", "map-reader-nodes", "--clusterrole=map-reader-nodes", "--user=reader"},
		} {
			if _, err := cluster.Output(test.Kubectl(t.Context(), args...)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_, _ = cluster.Output(test.Kubectl(context.Background(), "delete", args[1], args[2]))
			})
		}
		reader := openMap(t, "--as=reader")
		reader.show("view=flows")
		reader.wait(t, `document.body.textContent.includes('You have no rights to see this')`)
		reader.show("as=table&off=")
		reader.wait(t, `document.querySelector('table.list tbody tr') && document.querySelector('.strip')`)
	})
}

// longestPod has the longest name that a pod can have.
func longestPod(t *testing.T) *corev1.Pod {
	t.Helper()
	of := podOf(t, "frontend")
	label := strings.Repeat("a", 63)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: of.Namespace, Name: strings.Join([]string{label, label, label, label[:61]}, "."), Labels: map[string]string{"app.kubernetes.io/name": "longest"}}}
	p.Spec.Containers = []corev1.Container{*of.Spec.Containers[0].DeepCopy()}
	p.Spec.Containers[0].VolumeMounts = nil
	return p
}

// mapPage is the map in a browser.
type mapPage struct {
	*testing.T
	ctx context.Context
}

// openMap starts kubectl kidoban ui in the control plane's network namespace, where the API server is, with its port published on the loopback
// address, where the browser is.
func openMap(t *testing.T, args ...string) *mapPage {
	t.Helper()
	program, err := cli()
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	serving := test.Command(ctx, append([]string{"exec", "--publish=" + port, "--", program, "ui", "--port=" + port}, args...)...)
	var notes bytes.Buffer
	serving.Stderr = &notes
	out, err := serving.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serving.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = serving.Wait() // it was stopped
	})
	at := ""
	for lines := bufio.NewScanner(out); at == "" && lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); strings.HasPrefix(line, "http://") {
			at = line
		}
	}
	if at == "" {
		t.Fatalf("kubectl kidoban ui prints no address: %s", &notes)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("/usr/bin/chromium"), chromedp.WindowSize(1440, 900))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	tab, endTab := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		endTab()
		end()
	})
	m := &mapPage{t, tab}
	if err := chromedp.Do(tab, chromedp.Navigate(at)); err != nil {
		t.Fatal(err)
	}
	m.wait(t, `document.querySelector('footer b')`)
	return m
}

// show the view that the part of an address after the # names.
func (m *mapPage) show(hash string) {
	m.Helper()
	text, _ := json.Marshal("#" + hash)
	m.eval(`(location.hash = ` + string(text) + `, '')`)
}

func (m *mapPage) eval(script string) string {
	m.Helper()
	out, err := chromedp.Run(m.ctx, chromedp.Evaluate[string](`String(`+script+`)`))
	if err != nil {
		m.Fatalf("%s: %v", script, err)
	}
	return out
}

func (m *mapPage) wait(t *testing.T, condition string) {
	t.Helper()
	eventually(t, condition, func(context.Context) error {
		if m.eval(`!!(`+condition+`)`) != "true" {
			return fmt.Errorf("the page has: %s", m.eval(`document.body.innerText.slice(0, 1500)`))
		}
		return nil
	})
}

// rows of the table: the verdict of each port, by source, destination and port.
func (m *mapPage) rows(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	text := m.eval(`JSON.stringify([...document.querySelectorAll('table.list tbody tr')].flatMap(r => {
		const [, from, to, ports] = [...r.cells];
		return [...ports.querySelectorAll('.port')].map(p => [from.querySelector('.name').title + ' ' + to.querySelector('.name').title + ' ' + p.lastChild.textContent.toLowerCase(), p.title]);
	}))`)
	var rows [][2]string
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for _, r := range rows {
		verdict := "Denied"
		if r[1] == "allowed" || r[1] == "some pods" {
			verdict = "Allowed"
		}
		out[r[0]] = verdict
	}
	return out
}

// count is what the map has of a port in the last hour.
type count struct{ Total, Denied uint64 }

// counted asks the map's server, as the page does, for connections between workloads: by source, destination and port.
func (m *mapPage) counted(t *testing.T) map[string]count {
	t.Helper()
	out, err := chromedp.Run(m.ctx, chromedp.Evaluate[string](`(async () => {
		const g = await (await fetch('api/graph?since=1h')).json(), out = {}, protocol = {6: '', 17: '/udp', 132: '/sctp'};
		g.edges.source.forEach((source, i) => {
			const [from, to] = [source, g.edges.destination[i]];
			if (from === to || g.nodes.namespace[from] < 0 || g.nodes.namespace[to] < 0) return;
			for (let k = g.edges.first[i]; k < g.edges.first[i + 1]; k++) {
				const port = (g.edges.port[k] || 'other') + (protocol[g.edges.protocol[k]] ?? '/' + g.edges.protocol[k]);
				out[g.nodes.id[from] + ' ' + g.nodes.id[to] + ' ' + port] = { Total: g.seen?.total[k] ?? 0, Denied: g.seen?.denied[k] ?? 0 };
			}
		});
		return JSON.stringify(out);
	})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]count{}
	if err := json.Unmarshal([]byte(out), &counted); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return counted
}
