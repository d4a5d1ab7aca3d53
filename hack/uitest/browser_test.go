//go:build browser

package uitest

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/ui"
)

// browser is a tab that shows the map of one cluster. A console error, a violation of the page's Content-Security-Policy or a request to another
// host fails the test.
type browser struct {
	*testing.T
	ctx context.Context
	// base is the address of the server; no request may go elsewhere.
	base string
	// failing is set while requests may fail: the browser logs each.
	failing *atomic.Bool
}

var chromium = sync.OnceValues(func() (context.Context, context.CancelFunc) {
	options := append([]chromedp.ExecAllocatorOption{}, chromedp.DefaultExecAllocatorOptions[:]...)
	options = append(options, chromedp.ExecPath("/usr/bin/chromium"), chromedp.WindowSize(1440, 900),
		chromedp.Flag("font-render-hinting", "none"), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("ignore-certificate-errors", true))
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(allocator)
	return ctx, func() {
		stop()
		stopAllocator()
	}
})

func TestMain(m *testing.M) {
	code := m.Run()
	if _, stop := chromium(); true {
		stop()
	}
	os.Exit(code)
}

// open a page of the map: the part of its address after the #.
func open(t *testing.T, c *model.Cluster, hash string) *browser {
	t.Helper()
	return openAt(t, c, hash, "light")
}

func openAt(t *testing.T, c *model.Cluster, hash, theme string) *browser {
	t.Helper()
	return openWith(t, ui.Options{Name: "shop", Parse: parse, Read: func(context.Context) (*model.Cluster, error) { return c, nil }}, hash, theme)
}

func openWith(t *testing.T, o ui.Options, hash, theme string) *browser {
	t.Helper()
	base, address := serve(t, o)
	b := visit(t, base, address, theme)
	if hash != "" {
		b.eval("location.hash = " + quote("#"+hash))
	}
	b.wait(`document.querySelector('footer b') !== null`)
	return b
}

// serve the map until the test ends. All of its addresses begin with base; address lets a browser in.
func serve(t *testing.T, o ui.Options) (base, address string) {
	t.Helper()
	server, err := ui.Listen(t.Context(), 0, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	serving, stop := context.WithCancel(context.Background())
	go func() { done <- server.Serve(serving) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	at, _ := url.Parse(server.URL())
	return "http://" + at.Host + "/", server.URL()
}

// visit a page of the server at base.
func visit(t *testing.T, base, address, theme string) *browser {
	t.Helper()
	b := newTab(t, base, theme)
	b.do(chromedp.Navigate(address))
	return b
}

// newTab is a tab that has opened nothing yet.
func newTab(t *testing.T, base, theme string) *browser {
	t.Helper()
	root, _ := chromium()
	tab, stop := chromedp.NewContext(root)
	ctx, cancel := context.WithTimeout(tab, 15*time.Minute) // each wait has a limit of its own
	t.Cleanup(func() {
		cancel()
		stop()
	})
	b := &browser{T: t, ctx: ctx, base: base, failing: &atomic.Bool{}}
	if err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				text, _ := json.Marshal(e.Args)
				t.Errorf("console: %s", text)
			}
		case *runtime.EventExceptionThrown:
			text, _ := json.Marshal(e.ExceptionDetails)
			t.Errorf("exception: %s", text)
		case *log.EventEntryAdded:
			if !b.failing.Load() || !strings.HasPrefix(e.Entry.Text, "Failed to load resource") {
				t.Errorf("log: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, base) && !strings.HasPrefix(e.Request.URL, "data:") {
				t.Errorf("a request to %s", e.Request.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: hook})
	return b
}

// hook is where the page puts what a canvas cannot be asked, and the length of long tasks in milliseconds.
const hook = `globalThis.kidobanTest = {tasks: []};
new PerformanceObserver(list => kidobanTest.tasks.push(...list.getEntries().map(e => e.duration))).observe({type: 'longtask', buffered: true});`

// call a command of the browser.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.Fatalf("%s: %v", command.Method, err)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.Fatal(err)
	}
}

// eval a script, for nothing but its effect.
func (b *browser) eval(script string) {
	b.Helper()
	b.text("void (" + script + "), ''")
}

// text is the value of a script.
func (b *browser) text(script string) string {
	b.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatalf("%s: %v", script, err)
	}
	return out
}

// list is the value of a script that returns texts.
func (b *browser) list(script string) (out []string) {
	b.Helper()
	if err := json.Unmarshal([]byte(b.text("JSON.stringify("+script+")")), &out); err != nil {
		b.Fatalf("%s: %v", script, err)
	}
	return out
}

// wait until a condition holds.
func (b *browser) wait(condition string) {
	b.Helper()
	for until := time.Now().Add(time.Minute); ; {
		if b.text("String(!!("+condition+"))") == "true" {
			return
		}
		if time.Now().After(until) {
			b.Fatalf("never true: %s\n%s", condition, b.text("document.body.innerText.slice(0, 2000)"))
		}
		b.text("new Promise(done => requestAnimationFrame(() => done('')))")
	}
}

// picture of the page, where SCREENSHOTS names a folder.
func (b *browser) picture(name string) {
	b.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	// When the cluster was read, which is now, must not make the picture another one.
	b.eval(`(() => { const x = document.querySelector('.panel .head .soft'); if (x) x.textContent = x.textContent.replace(/\d{4}-\d\d-\d\d \d\d:\d\d/, '2026-01-02 03:04'); })()`)
	b.text("new Promise(done => setTimeout(() => requestAnimationFrame(() => done('')), 150))")
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.Fatal(err)
	}
}

func quote(s string) string {
	out, _ := json.Marshal(s)
	return string(out)
}
