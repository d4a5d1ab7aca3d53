// Package plain keeps control characters out of logs and terminals. Names come from objects that tenants write, and a
// character that breaks a line, moves the cursor or turns the direction of text would change what a reader sees.
package plain

import (
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// replacement stands for each character that is left out.
const replacement = '_'

// Line returns the text without control characters, line breaks included: C0, DEL, C1, U+2028, U+2029, and those that
// control the direction of text.
func Line(text string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return replacement
		}
		return r
	}, text)
}

func isControl(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// writer is a Writer.
type writer struct {
	out     io.Writer
	allowed *regexp.Regexp // sequences, or nil
	rest    []byte         // of the last write: the first bytes of a character
}

// Writer returns a writer of text that Line would not change, except line feeds, tabs, and sequences that match allowed
// from their begin on; nil: none.
func Writer(out io.Writer, allowed *regexp.Regexp) io.Writer {
	return &writer{out: out, allowed: allowed}
}

// Write takes all of p, and holds back the bytes of a character that is not complete.
func (w *writer) Write(p []byte) (int, error) {
	text := append(w.rest, p...)
	w.rest = nil
	clean := make([]byte, 0, len(text))
	for len(text) > 0 {
		if !utf8.FullRune(text) {
			w.rest = append([]byte{}, text...)
			break
		}
		size := w.sequence(text)
		if size > 0 {
			clean = append(clean, text[:size]...)
		} else {
			var r rune
			r, size = utf8.DecodeRune(text)
			if r != '\n' && r != '\t' && isControl(r) {
				r = replacement
			}
			clean = utf8.AppendRune(clean, r)
		}
		text = text[size:]
	}
	if _, err := w.out.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}

// sequence is the length of the allowed sequence that the text begins with.
func (w *writer) sequence(text []byte) int {
	if w.allowed == nil || !unicode.IsControl(rune(text[0])) {
		return 0
	}
	if at := w.allowed.FindIndex(text); at != nil && at[0] == 0 {
		return at[1]
	}
	return 0
}
