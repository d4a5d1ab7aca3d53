//go:build browser

package uitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/ui"
)

// observer answers as one does, from what a test gives it.
type observer struct {
	mu    sync.Mutex
	flows []observerapi.Flow
	hits  []observerapi.Hit
	// err is why it does not answer.
	err    error
	losses []observerapi.Loss
	// truncated is set if its answers leave out something.
	truncated bool
	// streams that followers read.
	streams []*io.PipeWriter
}

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func workload(name string) observerapi.End {
	return observerapi.End{Namespace: "shop", Pod: name + "-0", Workload: &agentapi.Workload{Kind: "Deployment", Name: name}}
}

func policyRef(name string) agentapi.PolicyRef {
	return agentapi.PolicyRef{Kind: agentapi.KindNetworkPolicy, Namespace: "shop", Name: name}
}

// newFlow at a second, with the decisions of both ends.
func newFlow(from, to string, port uint16, v observerapi.Verdict, second int) observerapi.Flow {
	at := start.Add(time.Duration(second) * time.Second)
	f := observerapi.Flow{First: at, Last: at, Source: workload(from), Destination: workload(to), Protocol: "TCP", Port: port, Verdict: v, Sides: observerapi.Complete, Connections: 3}
	f.Egress = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Tier: "NetworkPolicy", Policy: &agentapi.RuleRef{PolicyRef: policyRef(from), Rules: []int32{0}}}
	f.Ingress = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Tier: "NetworkPolicy", Policy: &agentapi.RuleRef{PolicyRef: policyRef(to), Rules: []int32{0}}}
	if v == observerapi.Denied {
		f.Ingress = &observerapi.Decision{Verdict: v, Reason: agentapi.ReasonDefaultDeny, Tier: "NetworkPolicy", IsolatedBy: []agentapi.PolicyRef{policyRef(to)}}
	}
	return f
}

func (o *observer) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// away ends the streams; nil brings it back.
func (o *observer) away(err error) {
	o.set(func() {
		o.err = err
		for _, s := range o.streams {
			_ = s.Close()
		}
		o.streams = nil
	})
}

// arrive sends a flow to those that follow.
func (o *observer) arrive(t *testing.T, f observerapi.Flow) {
	t.Helper()
	o.set(func() { o.flows = append([]observerapi.Flow{f}, o.flows...) })
	o.send(t, f)
}

// send a line to those that follow.
func (o *observer) send(t *testing.T, of any) {
	t.Helper()
	line, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	o.set(func() {
		for _, s := range o.streams {
			_, _ = s.Write(append(line, '\n'))
		}
	})
}

func (o *observer) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, o.err
	}
	coverage := observerapi.Coverage{Since: start.Add(-time.Hour), Until: start, CompleteSince: start.Add(-30 * time.Minute), Losses: o.losses, Truncated: o.truncated}
	var out any
	switch {
	case query.Get("follow") == "true":
		in, stream := io.Pipe()
		context.AfterFunc(ctx, func() { _ = stream.Close() })
		since, err := time.Parse(time.RFC3339Nano, query.Get("since"))
		var lines bytes.Buffer
		for _, f := range slices.Backward(o.flows) {
			if err != nil || !f.Last.Before(since) {
				_ = json.NewEncoder(&lines).Encode(f)
			}
		}
		o.streams = append(o.streams, stream)
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&lines, in), in}, nil
	case path == observerapi.PathHits:
		out = observerapi.HitList{Coverage: coverage, Hits: o.hits}
	default:
		list := observerapi.FlowList{Coverage: coverage}
		for _, f := range o.flows {
			if v := query.Get("verdict"); v == "" || v == string(f.Verdict) {
				list.Flows = append(list.Flows, f)
			}
		}
		out = list
	}
	text, err := json.Marshal(out)
	return io.NopCloser(bytes.NewReader(text)), err
}

// live is a live cluster with an observer and agents.
func live(t *testing.T, o *observer) ui.Options {
	t.Helper()
	c := shop(t)
	return ui.Options{
		Name: "shop", Live: true, Parse: parse, Read: func(context.Context) (*model.Cluster, error) { return c, nil }, Observer: o.open,
		InForce: func(context.Context) (*ui.InForce, error) {
			return &ui.InForce{
				Policies: map[string]ui.PolicyInForce{
					"NetworkPolicy shop/backend":  {Nodes: 3, InForce: 2, Resolved: "True", Waiting: []ui.NodeState{{Node: "node-3", State: agentapi.StatePending, Reason: "waits for shop/web"}}},
					"NetworkPolicy shop/frontend": {Nodes: 3, InForce: 3, Resolved: "True"},
				},
				Pods: map[model.Workload]ui.WorkloadInForce{{Namespace: "shop", Kind: "Deployment", Name: "backend"}: {Pods: 2, InForce: 1, Nodes: []string{"node-1", "node-3"}, Waiting: []string{"node-3"}}},
			}, nil
		},
	}
}

// seen are the rows of the table of flows: source, destination and port.
const seen = `[...document.querySelectorAll('.flows tbody tr')].map(r => [2, 3, 4].map(i => r.cells[i].textContent).join(' '))`

func TestFlowsArrive(t *testing.T) {
	o := &observer{flows: []observerapi.Flow{newFlow("frontend", "database", 5432, observerapi.Denied, 2), newFlow("frontend", "backend", 8000, observerapi.Allowed, 1)}}
	b := openWith(t, live(t, o), "view=flows", "light")
	rows := func(want ...string) {
		t.Helper()
		b.wait(`JSON.stringify(` + seen + `) === ` + quote(string(marshal(t, want))))
	}
	rows("shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")
	if hidden := b.text(`String([...document.querySelectorAll('.flowActions button')].some(x => !x.contains(document.elementFromPoint(x.getBoundingClientRect().x + 9, x.getBoundingClientRect().y + 9))))`); hidden != "false" {
		t.Error("a button of the table cannot be seen")
	}
	o.following(t)
	o.arrive(t, newFlow("backend", "database", 5432, observerapi.Allowed, 3))
	rows("shop/backend shop/database 5432", "shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")

	b.eval(`location.hash = '#view=flows&q=port:5432&off=allowed'`)
	rows("shop/frontend shop/database 5432")
	b.eval(`location.hash = '#view=flows'`)
	rows("shop/backend shop/database 5432", "shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")
	o.following(t)

	b.eval(`[...document.querySelectorAll('.flowActions button')].find(x => x.textContent === 'Pause').click()`)
	o.arrive(t, newFlow("backend", "frontend", 80, observerapi.Denied, 4))
	b.wait(`document.querySelector('.flowActions').textContent.includes('Continue (1 new)')`)
	rows("shop/backend shop/database 5432", "shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")
	b.eval(`[...document.querySelectorAll('.flowActions button')].find(x => x.textContent.startsWith('Continue')).click()`)
	rows("shop/backend shop/frontend 80", "shop/backend shop/database 5432", "shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")
	b.picture("flows-light")

	b.failing.Store(true)
	o.away(errors.New("no replica of the observer is ready"))
	b.wait(`document.querySelector('.flows .strip')?.textContent.includes('no replica of the observer is ready')`)
	rows("shop/backend shop/frontend 80", "shop/backend shop/database 5432", "shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")
	o.away(nil)
	b.wait(`!document.querySelector('.flows .strip')`)
	o.arrive(t, newFlow("backend", "database", 6000, observerapi.Denied, 9))
	rows("shop/backend shop/database 6000", "shop/backend shop/frontend 80", "shop/backend shop/database 5432", "shop/frontend shop/database 5432", "shop/frontend shop/backend 8000")

	b.eval(`document.querySelector('.flows tbody tr:nth-child(4) button').click()`)
	b.wait(`decodeURIComponent(location.hash).includes('sel=shop/frontend>shop/database') && document.querySelector('.panel .decisions')`)
}

// following waits until the page follows.
func (o *observer) following(t *testing.T) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n := 0
		o.set(func() { n = len(o.streams) })
		if n > 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatal("the page does not follow")
		}
	}
}

func marshal(t *testing.T, of any) []byte {
	t.Helper()
	text, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestExports(t *testing.T) {
	hostile := newFlow("frontend", "database", 5432, observerapi.Denied, 2)
	hostile.Source.Pod = `=HYPERLINK("x")`
	o := &observer{flows: []observerapi.Flow{hostile}}
	b := openWith(t, live(t, o), "view=flows", "light")
	b.wait(`document.querySelector('.flows tbody tr')`)
	b.eval(`(globalThis.saved = [], URL.createObjectURL = blob => (saved.push(blob), 'data:,'))`)
	for _, name := range []string{"Export CSV", "Export JSON"} {
		b.eval(`[...document.querySelectorAll('.flowActions button')].find(x => x.textContent === ` + quote(name) + `).click()`)
	}
	if csv := b.text(`saved[0].text()`); !strings.Contains(csv, `shop/frontend,"'=HYPERLINK(""x"")"`) || strings.Count(csv, "\r\n") != 2 {
		t.Errorf("CSV: %q", csv)
	}
	var back observerapi.Flow
	if text := b.text(`saved[1].text()`); json.Unmarshal([]byte(text), &back) != nil || back.Source.Pod != hostile.Source.Pod || back.Verdict != observerapi.Denied {
		t.Errorf("JSON: %q", text)
	}
}

func TestPoliciesHaveHitsAndWhatIsInForce(t *testing.T) {
	o := &observer{hits: []observerapi.Hit{
		{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("backend"), Rules: []int32{0}}, Direction: "Ingress", Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Connections: 1234, Last: start},
		{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("backend")}, Direction: "Ingress", Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny, Connections: 7, Last: start},
	}}
	b := openWith(t, live(t, o), "view=policies&q=policy:shop/backend", "light")
	b.wait(`document.querySelector('.card .detail') && document.body.textContent.includes('Resolved: yes')`)
	card := b.text(`document.querySelector('.card').textContent`)
	for _, want := range []string{"in force on 2 of 3 nodes", "node-3: Pending, waits for shop/web", "1,234 connections", "7 connections denied because no rule allows them", "Never hit since"} {
		if !strings.Contains(card, want) {
			t.Errorf("no %q in %s", want, card)
		}
	}
	b.picture("policy-light")
	b.eval(`location.hash = '#view=policies'`)
	b.wait(`document.querySelector('.page h2').textContent.startsWith('Rules never hit')`)
	if list := b.text(`document.querySelector('.page .peers').textContent`); !strings.Contains(list, "NetworkPolicy shop/frontend") {
		t.Error(list)
	}
}

func TestAWorkloadHasItsDenials(t *testing.T) {
	o := &observer{flows: []observerapi.Flow{newFlow("frontend", "backend", 9090, observerapi.Denied, 2), newFlow("frontend", "backend", 8000, observerapi.Allowed, 1)}}
	b := openWith(t, live(t, o), "view=workload&sel=shop/backend", "light")
	b.wait(`document.querySelector('.list') && document.body.textContent.includes('in force for')`)
	page := b.text(`document.querySelector('.page').textContent`)
	for _, want := range []string{"Its policies are in force for 1 of 2 pods, on node-1, node-3", "Recent denials1", "9090", "no rule of shop/backend"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in %s", want, page)
		}
	}
	if n := b.text(`String(document.querySelectorAll('.list tbody tr').length)`); n != "1" {
		t.Errorf("%s denials", n)
	}
	if head := b.text(`document.querySelector('.head').textContent`); !strings.Contains(head, "in force on 1 of 2 nodes") {
		t.Error(head)
	}
	if side := b.text(`document.querySelector('.two').textContent`); !strings.Contains(side, "in force on 2 of 3 nodes") {
		t.Error(side)
	}
	// frontend may open connections to backend's port 8000, and tried another one.
	if label := b.text(`document.querySelector('.drawing').getAttribute('aria-label')`); !strings.HasPrefix(label, "2 callers") || !strings.HasSuffix(label, ", 1 of them with denied connections") {
		t.Error(label)
	}
	if marks := b.text(`[...document.querySelectorAll('.drawing .svgMark')].map(x => x.textContent).join('')`); marks != "✘" {
		t.Errorf("marks %q", marks)
	}
	b.picture("workload-light")
}

func TestStatesOfFlows(t *testing.T) {
	axe := axeScript(t)
	check := func(b *browser) {
		t.Helper()
		if found := b.axe(axe); found != "" {
			t.Error(found)
		}
	}
	o := &observer{losses: []observerapi.Loss{{Node: "node-2", Reason: "rate", Records: 9}}}
	b := openWith(t, live(t, o), "view=flows", "dark")
	b.wait(`document.body.textContent.includes('Nothing seen yet')`)
	b.wait(`document.body.textContent.includes('Records lost: node-2 (rate)')`)
	check(b)
	o.following(t)
	o.arrive(t, newFlow("frontend", "backend", 8000, observerapi.Allowed, 1))
	b.wait(`document.querySelector('.flows tbody tr')`)
	check(b)
	b.eval(`location.hash = '#view=flows&off=allowed'`)
	b.wait(`document.body.textContent.includes('No connection matches')`)
	check(b)

	b.failing.Store(true)
	o.away(ui.NoRights{Err: fmt.Errorf("you need create on serviceaccounts/token")})
	b.eval(`location.hash = '#view=flows&since=1h'`)
	b.wait(`document.body.textContent.includes('You have no rights to see this')`)
	if text := b.text(`document.body.textContent`); !strings.Contains(text, "serviceaccounts/token") {
		t.Error(text)
	}
	check(b)
	o.away(errors.New("connection refused"))
	b.eval(`location.hash = '#view=flows&since=6h'`)
	b.wait(`document.body.textContent.includes('No answer') && document.body.textContent.includes('connection refused')`)
	check(b)
	o.away(nil)
	b.eval(`[...document.querySelectorAll('button')].find(x => x.textContent === 'Retry').click()`)
	b.wait(`document.querySelector('.flows tbody tr')`)
}

// What manifests would change has the recorded connections that it concerns, and a recommendation is compared at once.
func TestWhatIfWithRecordedConnections(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	allowed := newFlow("backend", "database", 5432, observerapi.Allowed, 1)
	allowed.First, allowed.Last = now.Add(-2*time.Minute), now.Add(-time.Minute)
	o := &observer{}
	b := openWith(t, live(t, o), "view=whatif&since=1h", "light")
	for _, end := range []*observerapi.End{&allowed.Source, &allowed.Destination} {
		end.Labels, end.NamespaceLabels = map[string]string{"app.kubernetes.io/name": end.Workload.Name}, map[string]string{"kubernetes.io/metadata.name": "shop"}
	}
	o.set(func() { o.flows = []observerapi.Flow{allowed} })
	b.eval(`(() => { const t = document.getElementById('manifests'); t.value = ` + quote(narrower) + `; t.dispatchEvent(new Event('input', {bubbles: true})); })()`)
	b.wait(`!document.querySelector('.side .primary').disabled`)
	b.eval(`document.querySelector('.side .primary').click()`)
	b.wait(`document.querySelector('.answer')?.textContent.includes('Of 3 connections in the last hour, 3 would be denied')`)
	if text := b.text(`document.querySelector('.answer').textContent`); !strings.Contains(text, "shop/backend → shop/database3 denied") {
		t.Error(text)
	}
	b.picture("whatif-light")
	b.eval(`[...document.querySelectorAll('.side button')].find(x => x.textContent === 'Clear').click()`)
	b.wait(`document.querySelector('.side select')`)
	b.eval(`(() => { const x = document.querySelector('.side select'); x.value = 'shop'; x.dispatchEvent(new Event('change', {bubbles: true})); })()`)
	b.eval(`[...document.querySelectorAll('.side button')].find(x => x.textContent === 'Recommend').click()`)
	b.wait(`[...document.querySelectorAll('.side button')].some(x => x.textContent === 'Compare before and after')`)
	b.eval(`[...document.querySelectorAll('.side button')].find(x => x.textContent === 'Compare before and after').click()`)
	b.wait(`document.querySelector('.answer .why') && document.getElementById('manifests').value.includes('kind: NetworkPolicy')`)
}
