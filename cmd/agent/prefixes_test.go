package main

import "testing"

func TestPrefixes(t *testing.T) {
	for value, want := range map[string]string{
		"":                            "",
		"192.0.2.1":                   "192.0.2.1/32",
		"192.0.2.9/24,2001:db8::1":    "192.0.2.0/24,2001:db8::1/128",
		"::ffff:192.0.2.1,10.0.0.0/8": "192.0.2.1/32,10.0.0.0/8",
	} {
		p := prefixes{}
		if err := p.Set(value); err != nil || p.String() != want {
			t.Errorf("%q: %s, %v", value, p.String(), err)
		}
	}
	for _, value := range []string{"node-1", "192.0.2.1/33", "fe80::1%eth0", "::ffff:192.0.2.0/120"} {
		if (&prefixes{}).Set(value) == nil {
			t.Errorf("%q is taken", value)
		}
	}
}
