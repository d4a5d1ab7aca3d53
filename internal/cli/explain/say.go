package explain

import "strings"

// Text is the answer as the command prints it, without colours.
func (a *Answer) Text() string {
	var b strings.Builder
	write(&b, false, a)
	return b.String()
}

// Sentence is the decision of this half and its reason, as the command prints them.
func (h *Half) Sentence() string {
	var b strings.Builder
	writeHalf(&b, false, h)
	line, _, _ := strings.Cut(strings.TrimLeft(b.String(), "\n "), "\n")
	_, sentence, _ := strings.Cut(line, h.Of+": ")
	return sentence
}
