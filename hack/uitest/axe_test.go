//go:build browser

package uitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/ui"
)

// axe-core finds nothing in any view and state, light and dark.
func TestAxe(t *testing.T) {
	axe := axeScript(t)
	for _, theme := range []string{"light", "dark"} {
		check := func(t *testing.T, b *browser, state string) {
			t.Helper()
			if found := b.axe(axe); found != "" {
				t.Errorf("%s:\n%s", state, found)
			}
		}
		t.Run(theme+", manifests", func(t *testing.T) { manifestStates(t, theme, check) })
		t.Run(theme+", a cluster with an observer", func(t *testing.T) { liveStates(t, theme, check) })
		t.Run(theme+", failures", func(t *testing.T) { failedStates(t, theme, check) })
		t.Run(theme+", served by the observer", func(t *testing.T) { servedStates(t, theme, check) })
	}
}

// check a state of the page.
type check func(t *testing.T, b *browser, state string)

// shows sets the part of the address after the # and waits for a condition.
func (b *browser) shows(hash, condition string) {
	b.Helper()
	b.eval("location.hash = " + quote("#"+hash))
	b.wait(condition)
	b.text(`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(''))))`)
}

// says is the condition that the page has a text.
func says(text string) string { return `document.body.textContent.includes(` + quote(text) + `)` }

// presses the button with a text.
func (b *browser) presses(text string) {
	b.Helper()
	b.eval(`[...document.querySelectorAll('button')].find(x => x.textContent === ` + quote(text) + `).click()`)
}

func (b *browser) types(id, text string) {
	b.Helper()
	b.eval(`(() => { const f = document.getElementById(` + quote(id) + `); f.value = ` + quote(text) + `; f.dispatchEvent(new Event('input', {bubbles: true})); })()`)
}

func manifestStates(t *testing.T, theme string, check check) {
	b := openAt(t, shop(t), "", theme)
	for _, s := range []struct{ hash, condition string }{
		{"", says("What needs a look")},
		{"as=matrix&off=", `document.querySelector('.matrix td.has')`},
		{"as=table&off=", `document.querySelector('table.list tbody tr')`},
		{"off=&sel=shop/frontend>shop/database", `document.querySelector('.panel .decisions')`},
		{"sel=shop/backend", says("Open the workload")},
		{"sel=ns:shop", says("Not isolated for ingress")},
		{"sel=ns:shop>outside:internet", `document.querySelector('.panel h2')`},
		{"sel=shop/not-there", says("not there any more")},
		{"open=&every=0", `document.querySelector('#map')`},
		{"q=nothing-has-this-name", says("No connection matches")},
		{"as=matrix&q=nothing-has-this-name", says("No connection matches")},
		{"as=table&q=nothing-has-this-name", says("No connection matches")},
		{"q=colour:red", says("Not a word of the filter")},
		{"view=policies", `document.querySelector('.card')`},
		{"view=policies&q=policy:shop/backend", `document.querySelector('.card pre')`},
		{"view=policies&q=policy:none-of-these", says("No policy matches")},
		{"view=workload", says("Choose a workload")},
		{"view=workload&sel=shop/backend", `document.querySelector('.drawing')`},
		{"view=flows", says("No observer")},
		{"view=whatif", `document.querySelector('#manifests')`},
	} {
		b.shows(s.hash, s.condition)
		check(t, b, s.hash)
	}
	b.types("manifests", narrower)
	b.presses("Compare")
	b.wait(`document.querySelector('.answer')`)
	check(t, b, "What if, with an answer")
	b.failing.Store(true)
	b.types("manifests", "kind: NetworkPolicy\nspec: 1\n")
	b.presses("Compare")
	b.wait(says("No answer"))
	check(t, b, "What if, with manifests that are not valid")
	b.shows("", says("What needs a look"))
	b.eval(`document.querySelector('button[aria-label="Keys and words"]').click()`)
	b.wait(`document.querySelector('dialog[open]')`)
	check(t, b, "help")
}

// tried are flows of every verdict, and the hits of a policy.
func tried() *observer {
	many := func(f observerapi.Flow, connections uint64) observerapi.Flow {
		f.Connections = connections
		return f
	}
	scraped := newFlow("prometheus", "database", 9187, observerapi.WouldBeDeny, 3)
	scraped.Source.Namespace = "monitoring"
	scraped.Ingress = &observerapi.Decision{
		Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Tier: "NetworkPolicy", Audited: observerapi.Denied, AuditedBy: []agentapi.PolicyRef{policyRef("database")},
	}
	one := newFlow("frontend", "backend", 9090, observerapi.Denied, 4)
	one.Sides = observerapi.OneSide
	visit := newFlow("", "frontend", 8080, observerapi.Allowed, 5)
	visit.Source = observerapi.End{Address: netip.MustParseAddr("198.51.100.7")}
	return &observer{
		flows: []observerapi.Flow{
			many(visit, 900), one, many(scraped, 60), many(newFlow("frontend", "database", 5432, observerapi.Denied, 2), 42),
			many(newFlow("backend", "database", 5432, observerapi.Allowed, 1), 2700), many(newFlow("frontend", "backend", 8000, observerapi.Allowed, 1), 5400),
		},
		hits: []observerapi.Hit{
			{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("backend"), Rules: []int32{0}}, Direction: "Ingress", Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Connections: 5400, Last: start},
			{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("backend")}, Direction: "Ingress", Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny, Connections: 3, Last: start},
			{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("backend"), Rules: []int32{0}}, Direction: "Egress", Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Connections: 2700, Last: start},
			{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("database"), Rules: []int32{0}}, Direction: "Ingress", Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Connections: 2700, Last: start},
			{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("frontend"), Rules: []int32{0}}, Direction: "Ingress", Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Connections: 900, Last: start},
			{RuleRef: agentapi.RuleRef{PolicyRef: policyRef("frontend"), Rules: []int32{0}}, Direction: "Egress", Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Connections: 5400, Last: start},
		},
		losses: []observerapi.Loss{{Node: "node-2", Reason: "rate", Records: 9}},
	}
}

func liveStates(t *testing.T, theme string, check check) {
	o := tried()
	b := openWith(t, live(t, o), "", theme)
	for _, s := range []struct{ hash, condition string }{
		{"", says("Denied and tried")},
		{"off=&sel=shop/frontend>shop/database", `document.querySelector('.panel .decisions')`},
		{"as=matrix&off=", `document.querySelector('.matrix td.has')`},
		{"as=table&off=&talk=does", `document.querySelector('table.list tbody tr')`},
		{"as=table&off=&talk=may", `document.querySelector('table.list tbody tr')`},
		{"view=policies", says("Rules never hit")},
		{"view=policies&q=policy:shop/backend", says("waits for shop/web")},
		{"view=workload&sel=shop/backend", says("in force for 1 of 2 pods")},
		{"view=workload&sel=shop/database", says("No agent reports a pod of it")},
		{"view=whatif", says("Recommend policies")},
		{"view=flows", `document.querySelector('.flows tbody tr')`},
	} {
		b.shows(s.hash, s.condition)
		if s.hash == "" {
			b.picture("map-" + theme)
		}
		check(t, b, s.hash)
	}
	o.following(t)
	b.presses("Pause")
	o.arrive(t, newFlow("backend", "frontend", 80, observerapi.Denied, 5))
	b.wait(says("Continue (1 new)"))
	check(t, b, "Flows, held")
	b.failing.Store(true)
	o.away(errors.New("no replica of the observer is ready"))
	b.wait(`document.querySelector('.flows .strip')`)
	check(t, b, "Flows, the observer is away")
	b.shows("", `document.querySelector('.lines .strip')`)
	check(t, b, "the map, the observer is away")
	b.shows("view=policies", says("no replica of the observer is ready"))
	check(t, b, "policies, the observer is away")
	o.away(ui.NoRights{Err: fmt.Errorf("you need create on serviceaccounts/token")})
	b.shows("view=flows&since=6h", says("You have no rights to see this"))
	check(t, b, "Flows, no rights")
	o.away(nil)
	b.shows("view=whatif", `document.querySelector('#manifests')`)
	b.eval(`document.querySelector('button[aria-label="Read again"]').click()`)
	b.wait(says("Recommend policies"))
	b.types("manifests", narrower)
	b.presses("Compare")
	b.wait(`[...document.querySelectorAll('.answer .why')].some(x => x.textContent.startsWith('Of '))`)
	check(t, b, "What if, with recorded connections")
}

func failedStates(t *testing.T, theme string, check check) {
	for name, err := range map[string]error{"You have no rights to see this": ui.NoRights{Err: errors.New("you need list on pods")}, "No answer": errors.New("connection refused")} {
		base, address := serve(t, ui.Options{Name: "shop", Live: true, Parse: parse, Read: func(context.Context) (*model.Cluster, error) { return nil, err }})
		b := newTab(t, base, theme)
		b.failing.Store(true)
		b.do(chromedp.Navigate(address))
		b.wait(says(name))
		check(t, b, "the map: "+name)
	}
}

// mount serves the map as an observer does, for readers with the tokens "all" and "one".
func mount(t *testing.T) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	at, err := ui.ParseURL("https://" + server.Listener.Addr().String() + "/net/kidoban/")
	if err != nil {
		t.Fatal(err)
	}
	c, o := shop(t), tried()
	server.Config.Handler = ui.Mounted{
		URL: at,
		Reader: func(_ context.Context, token string) (bool, error) {
			if token != "all" && token != "one" {
				return false, ui.ErrToken
			}
			return token == "all", nil
		},
		Ask: func(ctx context.Context, _, path string, query url.Values) (io.ReadCloser, error) {
			return o.open(ctx, path, query)
		},
		Options: ui.Options{Name: "shop", Live: true, Parse: parse, Read: func(context.Context) (*model.Cluster, error) { return c, nil }},
	}.Handler()
	server.StartTLS()
	t.Cleanup(server.Close)
	return at.String()
}

func servedStates(t *testing.T, theme string, check check) {
	address := mount(t)
	enter := func(token string) *browser {
		t.Helper()
		b := newTab(t, address, theme)
		b.failing.Store(true)
		b.do(chromedp.Navigate(address))
		b.wait(`document.querySelector('#token')`)
		check(t, b, "the form for a token")
		b.types("token", "not a token")
		b.presses("Continue")
		b.wait(`document.querySelector('main [role=alert]')`)
		check(t, b, "a token that is not valid")
		b.types("token", token)
		b.presses("Continue")
		return b
	}
	b := enter("one")
	b.wait(says("You have no rights to see this"))
	check(t, b, "the map for a reader of one namespace")
	b.shows("view=flows", `document.querySelector('.flows tbody tr')`)
	check(t, b, "Flows for a reader of one namespace")
	b.do(chromedp.Navigate("about:blank"))
	call(b, network.ClearBrowserCookies, cdp.Empty{})

	b = enter("all")
	b.wait(`document.querySelector('footer b')`)
	check(t, b, "the map for a reader of everything")
	b.failing.Store(false)
	b.do(chromedp.Reload())
	b.wait(`document.querySelector('footer b')`)
	if text := b.text(`location.href + document.cookie + JSON.stringify({...localStorage})`); strings.Contains(text, "token=") || strings.Contains(text, `"all"`) {
		t.Errorf("the token is where scripts find it: %s", text)
	}
	b.shows("view=whatif", `document.querySelector('#manifests')`)
	check(t, b, "What if, served")
	if b.text(`String(`+says("Recommend policies")+`)`) != "false" {
		t.Error("an observer does not recommend policies, and its page offers it")
	}
}

func axeScript(t *testing.T) string {
	t.Helper()
	axe, err := os.ReadFile("../../internal/ui/web/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("make ui installs axe-core: %v", err)
	}
	return string(axe)
}

// axe is what axe-core finds on the page.
func (b *browser) axe(script string) string {
	b.Helper()
	if b.text(`typeof axe`) == "undefined" { // of a page that was loaded anew
		if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("(() => {"+script+"\n})(), ''")); err != nil {
			b.Fatalf("load axe-core: %v", err)
		}
	}
	return b.text(`axe.run(document, {resultTypes: ['violations']}).then(r =>
		r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 160) + ' ' + n.failureSummary).join('\n')).join('\n'))`)
}
