// Command recording draws a terminal session as an animated SVG: recording 'COMMAND' <OUTPUT >FILE. hack/record.sh calls it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: recording 'COMMAND' <OUTPUT >FILE")
		os.Exit(2)
	}
	if err := draw(os.Stdout, os.Args[1], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "recording:", err)
		os.Exit(1)
	}
}

const (
	column = 8.4 // of the font, at its size
	row    = 20
	margin = 16
	typing = 1.5  // seconds until the command stands there
	pace   = 0.12 // seconds between two lines
)

var (
	escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	colour = strings.NewReplacer("✔", `<tspan class="yes">✔</tspan>`, "✘", `<tspan class="no">✘</tspan>`)
)

// draw writes each line of the output as a text of its own, so that a test can read it back. Lines appear one after the other, and all are
// visible where animations are off.
func draw(w io.Writer, command string, output io.Reader) error {
	lines := []string{"$ " + command}
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		lines = append(lines, strings.TrimRight(scanner.Text(), " "))
	}
	columns := 0
	for _, line := range lines {
		columns = max(columns, utf8.RuneCountInString(line))
	}
	width, height := 2*margin+int(column*float64(columns)), 2*margin+row*len(lines)
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Terminal: %s">
<style>
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d5dae2; white-space: pre }
.yes { fill: #6fce7b } .no { fill: #f07a72 } .command { fill: #ffffff; font-weight: bold }
@media (prefers-reduced-motion: no-preference) { text { animation: appear 1ms both } }
@keyframes appear { from { opacity: 0 } to { opacity: 1 } }
</style>
<rect width="100%%" height="100%%" rx="8" fill="#171b22"/>
`, width, height, width, height, escape.Replace(command))
	for i, line := range lines {
		class, at := "", typing+pace*float64(i)
		if i == 0 {
			class, at = ` class="command"`, 0
		}
		fmt.Fprintf(out, `<text%s x="%d" y="%d" style="animation-delay:%.2fs" xml:space="preserve">%s</text>`+"\n",
			class, margin, margin+row*i+14, at, colour.Replace(escape.Replace(line)))
	}
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}
