//go:build browser

package uitest

import (
	"testing"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// What is missing in the stream is shown as it arrives, also while the table is held, until the flows are read again.
func TestMissingFlows(t *testing.T) {
	o := &observer{flows: []observerapi.Flow{newFlow("frontend", "backend", 8000, observerapi.Allowed, 1)}}
	b := openWith(t, live(t, o), "view=flows", "light")
	b.wait(`document.querySelector('.flows tbody tr')`)
	o.following(t)
	b.presses("Pause")
	o.send(t, observerapi.Missing{Losses: []observerapi.Loss{{Node: "node-7", Reason: "queue", Records: 2}}})
	b.wait(says("Records lost: node-7 (queue)"))
	o.send(t, observerapi.Missing{Missed: 12})
	o.send(t, observerapi.Missing{Missed: 30})
	b.wait(says("The observer left out 42 flows"))
	if found := b.axe(axeScript(t)); found != "" {
		t.Error(found)
	}
	o.arrive(t, newFlow("backend", "database", 5432, observerapi.Allowed, 3))
	b.presses("Read again")
	b.wait(`!document.body.textContent.includes('left out') && document.querySelectorAll('.flows tbody tr').length === 2`)
}

// An answer that leaves out something is not the base of what was never used or never hit.
func TestTruncatedAnswers(t *testing.T) {
	o := tried()
	b := openWith(t, live(t, o), "", "light")
	b.wait(says("Allowed and never used") + ` && ` + says("Records lost: node-2 (rate)") + ` && document.querySelector('footer').textContent.includes('records lost on 1 node')`)
	if n := b.text(`[...document.querySelectorAll('.verdicts button')].find(x => x.textContent.includes('Never used')).querySelector('b').textContent`); n == "0" {
		t.Fatal("no connection is called never used, so that this test shows nothing")
	}
	o.set(func() { o.truncated = true })
	b.eval(`document.querySelector('button[aria-label="Read again"]').click()`)
	b.wait(`document.querySelector('footer').textContent.includes('not all connections listed')`)
	if n := b.text(`[...document.querySelectorAll('.verdicts button')].find(x => x.textContent.includes('Never used')).querySelector('b').textContent`); n != "0" {
		t.Errorf("%s connections are called never used", n)
	}
	b.wait(says("the rarest are left out"))
	b.shows("view=policies", says("so this is not known"))
	if n := b.text(`String(document.querySelectorAll('.card .pill.unused').length)`); n != "0" {
		t.Errorf("%s policies have rules that are called never hit", n)
	}
	b.shows("view=policies&q=policy:shop/backend", says("No hits in the observer’s answer"))
}
