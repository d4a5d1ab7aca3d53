package calico

import (
	"errors"
	"fmt"
	"strings"
)

type kind uint8

const (
	end       kind = iota
	label          // a label's key
	literal        // a string in quotes
	operator       // == != in "not in" contains "starts with" "ends with"
	symbol         // ( ) { } , ! && ||
	predicate      // has(key): text is the key
	constant       // all or global
)

type token struct {
	kind kind
	text string
}

// operators that are words, behind a label.
var operators = []struct{ words, name string }{
	{"contains", "contains"}, {"starts with", "starts with"}, {"ends with", "ends with"}, {"not in", "not in"}, {"in", "in"},
}

var symbols = []string{"&&", "||", "(", ")", "{", "}", ",", "!"}

// tokenize a selector. Blanks and tabs may stand between tokens; line feeds may not, as in Calico.
func tokenize(text string) ([]token, error) {
	var out []token
	for {
		text = strings.TrimLeft(text, " \t")
		if text == "" {
			return append(out, token{kind: end}), nil
		}
		afterLabel := len(out) > 0 && out[len(out)-1].kind == label
		t, rest, err := next(text, afterLabel)
		if err != nil {
			return nil, err
		}
		out, text = append(out, t), rest
	}
}

func next(text string, afterLabel bool) (token, string, error) {
	switch {
	case strings.HasPrefix(text, "=="), strings.HasPrefix(text, "!="):
		return token{operator, text[:2]}, text[2:], nil
	case text[0] == '"', text[0] == '\'':
		value, rest, ok := strings.Cut(text[1:], text[:1])
		if !ok {
			return token{}, "", errors.New("a string has no end")
		}
		return token{literal, value}, rest, nil
	}
	for _, s := range symbols {
		if rest, ok := strings.CutPrefix(text, s); ok {
			return token{symbol, s}, rest, nil
		}
	}
	if afterLabel {
		for _, o := range operators {
			if rest, ok := cutWords(text, o.words); ok {
				return token{operator, o.name}, rest, nil
			}
		}
		return token{}, "", fmt.Errorf("no operator at %q", text)
	}
	for _, name := range []string{"has", "all", "global"} {
		rest, ok := strings.CutPrefix(text, name+"(")
		if !ok {
			continue
		}
		rest = strings.TrimLeft(rest, " \t")
		key := ""
		if name == "has" {
			if key, rest = cutKey(rest); key == "" {
				return token{}, "", errors.New("has() without a label")
			}
			rest = strings.TrimLeft(rest, " \t")
		}
		if rest, ok = strings.CutPrefix(rest, ")"); !ok {
			return token{}, "", fmt.Errorf("%s( without )", name)
		}
		if name == "has" {
			return token{predicate, key}, rest, nil
		}
		return token{constant, name}, rest, nil
	}
	if key, rest := cutKey(text); key != "" {
		return token{label, key}, rest, nil
	}
	return token{}, "", fmt.Errorf("unexpected %q", text[:1])
}

// cutWords cuts words off, between which blanks may stand or not.
func cutWords(text, words string) (string, bool) {
	for word := range strings.FieldsSeq(words) {
		var ok bool
		if text, ok = strings.CutPrefix(strings.TrimLeft(text, " \t"), word); !ok {
			return "", false
		}
	}
	return text, true
}

func cutKey(text string) (key, rest string) {
	n := strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_./-", r)
	})
	if n < 0 {
		n = len(text)
	}
	return text[:n], text[n:]
}
