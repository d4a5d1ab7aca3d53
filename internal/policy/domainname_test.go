package policy

import (
	"strings"
	"testing"
)

func TestCanonicalDomainName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"example.com":                   "example.com",
		"Example.COM.":                  "example.com",
		"*.Example.com":                 "*.example.com",
		"*.internal":                    "*.internal",
		"_sip._tcp.a-b.example":         "_sip._tcp.a-b.example",
		"1.example":                     "1.example",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"bücher.example":                "xn--bcher-kva.example",
		"*.BÜCHER.example.":             "*.xn--bcher-kva.example",
		"faß.example":                   "xn--fa-hia.example",
		"例え。テスト":                        "xn--r8jz45g.xn--zckzah",
		long + ".example":               long + ".example",
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a",
	} {
		if got, err := CanonicalDomainName(in); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                                   "is not a full name",
		".":                                  "is not a full name",
		"localhost":                          "is not a full name",
		"*":                                  "is not a full name",
		"*.":                                 "is not a full name",
		"a..b":                               "empty label",
		".example.com":                       "empty label",
		"*..com":                             "empty label",
		"10.0.0.1":                           "is an address",
		"10.1":                               "is an address",
		"*.0.0.1":                            "is an address",
		"2001:db8::1":                        "is an address",
		"[2001:db8::1]":                      "is an address",
		"[a].example":                        `'[' is not a letter`,
		"a^b.example":                        `'^' is not a letter`,
		"a b.example":                        `' ' is not a letter`,
		"a.*.com":                            "a star can only be the first label",
		"**.com":                             "a star can only be the first label",
		"-a.example":                         "hyphen",
		"a-.example":                         "hyphen",
		long + "a.example":                   "a label of 64 characters",
		strings.Repeat("ü", 60) + ".example": "a label of",
		strings.Repeat("a.", 127) + "a":      "at most 253",
		"a\u2060\ufffd.example":              "internationalised",
	} {
		if got, err := CanonicalDomainName(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestCoversName(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"a.example", "a.example", true},
		{"a.example", "b.a.example", false},
		{"*.example", "a.example", true},
		{"*.example", "c.b.a.example", true},
		{"*.example", "example", false},
		{"*.a.example", "ba.example", false},
		{"*.a.example", "*.b.a.example", true},
	} {
		if got := CoversName(tc.pattern, tc.name); got != tc.want {
			t.Errorf("%s, %s: %v", tc.pattern, tc.name, got)
		}
	}
}
