package calico

import (
	"strings"
	"testing"
)

func TestSelectors(t *testing.T) {
	labels := map[string]string{"app": "web", "tier": "front-end", "empty": "", "example.com/x_1": "y", "in": "z"}
	get := func(key string) (string, bool) { v, ok := labels[key]; return v, ok }
	for text, want := range map[string]bool{
		"":                                  true,
		"  ":                                true,
		"all()":                             true,
		"all( )":                            true,
		"!all()":                            false,
		"global()":                          true, // no namespace
		"app == 'web'":                      true,
		`app == "web"`:                      true,
		"app=='web'":                        true,
		"app == 'db'":                       false,
		"app != 'db'":                       true,
		"none != 'db'":                      true, // not there
		"none == ''":                        false,
		"empty == ''":                       true,
		"has(empty)":                        true,
		"has( app )":                        true,
		"!has(none)":                        true,
		"!!has(none)":                       false,
		"app in {'web', 'db'}":              true,
		"app in {'web','db',}":              true,
		"app in {}":                         false,
		"app not in {}":                     true,
		"app not in {'web'}":                false,
		"app notin {'web'}":                 false,
		"none not in {'web'}":               true,
		"in in {'z'}":                       true,
		"tier contains 'nt-e'":              true,
		"tier starts with 'front'":          true,
		"tier startswith 'front'":           true,
		"tier ends with 'front'":            false,
		"none contains ''":                  false,
		"app == 'db' || has(tier)":          true,
		"app == 'db' && has(tier)":          false,
		"has(none) && has(none) || all()":   true, // && binds before ||
		"has(none) && (has(none) || all())": false,
		"!(app == 'db' || has(none))":       true,
		"!app == 'db'":                      true,
		"example.com/x_1 == 'y'":            true,
		"\tapp\t==\t'web'":                  true,
		"app == 'x && y'":                   false,
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := s.Matches(get); got != want {
			t.Errorf("%q (%s): %v", text, s, got)
		}
		again, err := ParseSelector(s.String())
		if err != nil || again.String() != s.String() {
			t.Errorf("%q is written %q, which reads as %v, %v", text, s, again, err)
		}
	}
}

func TestSelectorsThatAreNone(t *testing.T) {
	for _, text := range []string{
		"app", "app =", "app = 'web'", "app == web", "== 'web'", "app == 'web", `app == 'web"`, "app == 'web' &&", "app == 'web' has(x)", "(app == 'web'", "app == 'web')",
		"has()", "has(app", "has app", "all(", "all", "app in 'web'", "app in {'web'", "app in {web}", "app in {,}", "app not 'web'", "!", "&& all()", "app == 'a' & app == 'b'",
		"app == 'a' | app == 'b'", "app == 'a'\n|| app == 'b'", "app starts 'x'", "app <= 'x'", "é == 'x'", strings.Repeat("(", 200) + "all()" + strings.Repeat(")", 200),
	} {
		if s, err := ParseSelector(text); err == nil {
			t.Errorf("%q reads as %s", text, s)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, text := range []string{
		"", "all()", "global()", "has(a)", "a == 'x'", `a != "x"`, "a in {'x', 'y'}", "a not in {'x'}", "a contains 'x'", "a starts with 'x'", "a ends with 'x'", "!a == 'x'",
		"!(has(a) && b == 'y') || all()", "projectcalico.org/namespace == 'x'", "a in {}", "a == \"'\"", "((((all()))))", "a == 'x' && b == 'y' || c == 'z'",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		again, err := ParseSelector(s.String())
		if err != nil {
			t.Fatalf("%q is written %q, which does not read: %v", text, s, err)
		}
		if again.String() != s.String() {
			t.Fatalf("%q is written %q, and that %q", text, s, again)
		}
		for _, labels := range []map[string]string{{}, {"a": "x"}, {"a": "y", "b": "y"}, {"a": ""}} {
			get := func(key string) (string, bool) { v, ok := labels[key]; return v, ok }
			if s.Matches(get) != again.Matches(get) {
				t.Fatalf("%q and %q disagree about %v", s, again, labels)
			}
		}
	})
}
