//go:build browser

package uitest

import (
	"strings"
	"testing"
)

// clicks the first thing with a text that a person sees in a part of the page.
func (b *browser) clicks(part, text string) {
	b.Helper()
	found := `[...document.querySelector(` + quote(part) + `).querySelectorAll('button, a')].find(x => x.innerText.includes(` + quote(text) + `) && x.checkVisibility())`
	b.wait(`document.querySelector(` + quote(part) + `) && ` + found)
	b.eval(found + `.click()`)
}

// sees fails unless a part of the page shows each of the texts.
func (b *browser) sees(part string, texts ...string) {
	b.Helper()
	shown := b.text(`document.querySelector(` + quote(part) + `).innerText`)
	for _, text := range texts {
		if !strings.Contains(shown, text) {
			b.Errorf("no %q in %s", text, shown)
		}
	}
}

// What somebody does who sees the map for the first time: by clicks, and by what is written on the page.
func TestFirstTasks(t *testing.T) {
	o := tried()
	o.losses = nil
	b := openWith(t, live(t, o), "", "light")

	// Why does a connection fail?
	b.clicks(".panel", "shop/frontend → shop/database")
	b.wait(`document.querySelector('.panel .decisions')`)
	b.sees(".panel", "Denied", "none of their rules allows this connection", "42", "First seen", "Nearest rule", "kubectl kidoban explain shop/frontend shop/database:5432")
	b.picture("edge-light")
	b.clicks(".panel .actions", "Flows of this edge")
	b.wait(`document.querySelectorAll('.flows tbody tr').length === 1`)
	b.eval(`document.querySelector('.flows tbody tr td').click()`)
	b.wait(`document.querySelector('.panel .decisions')`)

	// Which rules are unused?
	b.clicks("nav", "Policies")
	b.wait(`document.querySelector('.page h2')?.innerText.startsWith('Rules never hit')`)
	b.picture("policies-light")
	b.clicks(".page .peers", "NetworkPolicy shop/backend")
	b.wait(`document.querySelector('.card .detail pre')`)
	b.sees(".card", "5,400 connections", "Never hit since")

	// What would a new policy cut?
	b.clicks("nav", "What if")
	b.wait(`document.getElementById('manifests')`)
	b.types("manifests", narrower)
	b.clicks(".side", "Compare")
	b.wait(says("1 pair loses ports"))
	b.sees(".side", "Nothing is applied", "1 pair loses ports", "shop/backend → shop/database")
	b.clicks("nav", "Map")
	b.wait(`document.querySelector('.panel')?.innerText.includes('What needs a look')`)
}
