package plain_test

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/kidoban/kidoban/internal/plain"
)

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"shop/frontend-1":             "shop/frontend-1",
		"größer, 木戸番, ✓":              "größer, 木戸番, ✓",
		"a\x00\x1b[2Jb\r\n\tc\x7f":    "a__[2Jb___c_",
		"a\u0085b\u009b31mc":          "a_b_31mc",
		"a\u2028b\u2029c":             "a_b_c",
		"\u061ca\u200e\u200f\u202ab":  "_a___b",
		"\u202b\u202c\u202d\u202ea":   "____a",
		"\u2066\u2067\u2068\u2069abc": "____abc",
		"a\xffb":                      "a\ufffdb",
	} {
		if got := plain.Line(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestWriter(t *testing.T) {
	text := "NAME\tPORT\nb\u00fcro\u202e\x1b[31mx\x1b[5m\r\n\x1b[31my\x1b[0m木\u0085\n"
	for name, test := range map[string]struct {
		allowed *regexp.Regexp
		want    string
	}{
		"nothing allowed": {nil, "NAME\tPORT\nb\u00fcro__[31mx_[5m_\n_[31my_[0m木_\n"},
		"some colours":    {regexp.MustCompile(`^\x1b\[(0|31)m`), "NAME\tPORT\nb\u00fcro_\x1b[31mx_[5m_\n\x1b[31my\x1b[0m木_\n"},
	} {
		var whole, bytewise bytes.Buffer
		if n, err := plain.Writer(&whole, test.allowed).Write([]byte(text)); n != len(text) || err != nil || whole.String() != test.want {
			t.Errorf("%s: %d, %v, %q, want %q", name, n, err, whole.String(), test.want)
		}
		if test.allowed != nil {
			continue // a sequence is written at once
		}
		w := plain.Writer(&bytewise, nil)
		for i := range len(text) {
			if n, err := w.Write([]byte{text[i]}); n != 1 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if bytewise.String() != test.want {
			t.Errorf("byte by byte: %q", bytewise.String())
		}
	}
}
