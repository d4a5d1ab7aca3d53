//go:build browser

package uitest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
)

func parse(text []byte) (*model.Cluster, error) {
	m := &model.Manifests{Namespace: "shop"}
	if err := m.Read("manifests", bytes.NewReader(text)); err != nil {
		return nil, err
	}
	return m.Cluster()
}

func shop(t *testing.T) *model.Cluster {
	t.Helper()
	c, err := model.ReadPaths([]string{"../../examples/shop", "../../examples/shop/policies"}, "default", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rows of the table: source, destination and ports with their verdicts.
const rows = `[...document.querySelectorAll('table.list tbody tr')].map(r => {
	const [, from, to, ports] = [...r.cells];
	return [...ports.querySelectorAll('.port')].map(p => from.querySelector('.name').title + ' > ' + to.querySelector('.name').title + ' ' + p.textContent.replace(/^./u, '').trim());
}).flat()`

// The table has the cells of `kubectl kidoban matrix`, edge by edge.
func TestTheTableIsTheMatrix(t *testing.T) {
	c := shop(t)
	b := open(t, c, "as=table&off=&q=-outside:")
	b.wait(`document.querySelectorAll('table.list tbody tr').length > 0 && !document.querySelector('.pager button:last-child:not(:disabled)')`)
	got := b.list(rows)
	var want []string
	m := c.Matrix(model.MatrixOptions{})
	for i, from := range m.Rows {
		for j, to := range m.Columns {
			if v := m.Cells[i][j]; v != model.NotAsked {
				want = append(want, fmt.Sprintf("%s > %s %s %s", from, to.Workload, v, to.Port))
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("table:\n%s\nmatrix:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Find a denied connection and the policy that denies it, without a pointer.
func TestTheKeyboardReachesEverything(t *testing.T) {
	b := open(t, shop(t), "off=")
	b.wait(`document.documentElement.dataset.ready`)
	key := func(keys string) { b.do(chromedp.KeyEvent(keys)) }
	said := func() string { return b.text(`document.querySelector('[aria-live]').textContent`) }
	b.eval(`document.getElementById('map').focus()`)
	key(kb.ArrowRight)
	b.wait(`document.querySelector('[aria-live]').textContent.includes('namespace')`)
	key(kb.PageDown)
	b.wait(`/isolated/.test(document.querySelector('[aria-live]').textContent)`)
	key("n")
	b.wait(`/^Denied: .* to .*, 1 of/.test(document.querySelector('[aria-live]').textContent)`)
	if !strings.HasPrefix(said(), "Denied: ") {
		t.Error(said())
	}
	b.wait(`document.querySelector('.panel .quote .link')`)
	b.eval(`document.querySelector('.panel .quote .link').focus()`)
	key(kb.Enter)
	b.wait(`location.hash.startsWith('#view=policies') && document.querySelector('.card pre')`)
	b.do(chromedp.NavigateBack())
	b.wait(`!location.hash.includes('view=policies')`)
	key("t")
	b.wait(`document.querySelector('table.list')`)
	key(kb.Escape)
	key("/")
	b.wait(`document.activeElement.id === 'filter'`)
	b.eval(`(() => { const f = document.activeElement; f.value = 'port:5432'; f.dispatchEvent(new Event('input', {bubbles: true})); })()`)
	b.wait(`location.hash.includes('q=port:5432')`)
}

// An edge's panel has the sentence and the command of explain.
func TestAnEdgeIsExplained(t *testing.T) {
	b := open(t, shop(t), "off=&sel=shop/frontend>shop/database")
	b.wait(`document.querySelector('.panel .decisions')`)
	panel := b.text(`document.querySelector('.panel').textContent`)
	for _, want := range []string{
		"Denied", "selected by 3 NetworkPolicies (shop/allow-dns, shop/default-deny, shop/frontend); none of their rules allows this connection",
		"kubectl kidoban explain shop/frontend shop/database:5432", "Nearest rule of ingress", "pod shop/frontend-0 has label app.kubernetes.io/name=frontend, not backend",
	} {
		if !strings.Contains(panel, want) {
			t.Errorf("no %q in %s", want, panel)
		}
	}
	if marked := b.text(`document.querySelector('.panel .quote:last-of-type mark')?.textContent ?? ''`); !strings.Contains(marked, "from") {
		t.Errorf("the lines that do not match are not marked: %q", marked)
	}
}

const narrower = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database, namespace: shop}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: database}}
  ingress: [{from: [{podSelector: {matchLabels: {app.kubernetes.io/name: frontend}}}], ports: [{port: 5432}]}]
`

func TestWhatIf(t *testing.T) {
	b := open(t, shop(t), "view=whatif")
	write := func(text string) {
		b.eval(`(() => { const t = document.getElementById('manifests'); t.value = ` + quote(text) + `; t.dispatchEvent(new Event('input', {bubbles: true})); })()`)
		b.wait(`!document.querySelector('.side .primary').disabled`)
		b.eval(`document.querySelector('.side .primary').click()`)
	}
	write(narrower)
	b.wait(`document.querySelector('.answer')`)
	answer := b.text(`document.querySelector('.answer').textContent`)
	for _, want := range []string{"1 pair loses ports", "Lost", "shop/backend → shop/database", "shop/database"} {
		if !strings.Contains(answer, want) {
			t.Errorf("no %q in %s", want, answer)
		}
	}
}

func TestStates(t *testing.T) {
	b := open(t, shop(t), "q=nothing-has-this-name")
	b.wait(`document.body.textContent.includes('No connection matches')`)
	b.eval(`[...document.querySelectorAll('button')].find(x => x.textContent === 'Clear all filters').click()`)
	b.wait(`!document.body.textContent.includes('No connection matches') && location.hash.includes('off=')`)
	b.eval(`location.hash = '#view=flows'`)
	b.wait(`document.body.textContent.includes('No observer')`)
	b.eval(`location.hash = '#q=colour:red'`)
	b.wait(`document.body.textContent.includes('Not a word of the filter: colour:')`)
	b.eval(`location.hash = '#sel=shop/not-there'`)
	b.wait(`document.querySelector('.panel').textContent.includes('not there any more')`)
}

// Names that others write are text, whatever is in them, and widen nothing.
func TestHostileNames(t *testing.T) {
	m := &model.Manifests{Live: true}
	for _, name := range []string{"<script>alert(1)</script>", "\u001b[31mred\u202e<img src=x onerror=alert(1)>", strings.Repeat("a", 253)} {
		m.Add(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: corev1.ProtocolTCP}}}}},
		})
	}
	m.Add(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deny", Namespace: "shop"}})
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	for _, view := range []string{"as=graph", "as=matrix&off=", "as=table&off=", "view=policies", "view=workload"} {
		t.Run(view, func(t *testing.T) {
			b := open(t, c, view)
			b.wait(`document.querySelector('main').childElementCount > 0`)
			if b.text(`String(document.querySelectorAll('script:not([src]), img').length)`) != "0" {
				t.Error("a name became an element")
			}
			if b.text(`String(document.documentElement.scrollWidth <= innerWidth)`) != "true" {
				t.Error("a name widens the page")
			}
			if text := b.text(`document.body.innerText`); strings.ContainsAny(text, "\u001b\u202e") {
				t.Error("control characters are in the text")
			}
		})
	}
}
